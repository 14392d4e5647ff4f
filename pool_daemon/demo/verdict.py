"""The verdict: pool by pool, what was expected of the daemon and what it did, as read from the database."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pool_daemon.capacity.workload import NextAction
from pool_daemon.demo.scenario import BEFORE_THE_DAEMON, PlannedPool, Timetable
from pool_daemon.demo.scene import DatabaseState, Record
from pool_daemon.errors import ExitCode

TOLERANCE: Final = timedelta(seconds=1)
"""A workload stopped within the second in which its pool runs empty counts as in time."""

SYNCED: Final = frozenset({"cus", "sus", "ipv4us", "last_updated"})
"""The fields that the daemon saves of a pool that ran empty; all others are its customer's."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the verdict; the expectation held if there are no `faults`."""

    name: str
    shows: str
    expected: str
    happened: str
    lateness: timedelta | None
    faults: tuple[str, ...]

    @property
    def held(self) -> bool:
        """Whether everything that was expected happened, and nothing else."""
        return not self.faults


@dataclass(frozen=True, slots=True, kw_only=True)
class Observations:
    """The input of the verdict.

    `written` are the pools as their customers last wrote them, `belated` the ids of those whose customer was late,
    `exit_code` is the daemon's after the stop.
    """

    timetable: Timetable
    snapshot: DatabaseState
    written: Mapping[int, Mapping[str, Any]]
    belated: Collection[int]
    exit_code: int


def judge(plans: Sequence[PlannedPool], observed: Observations) -> list[Finding]:
    """Compare the scenario with what happened: a finding for each pool, and one for the daemon itself."""
    return [*(_judge_pool(plan, observed) for plan in plans), _judge_daemon(plans, observed)]


def exit_code(findings: Sequence[Finding]) -> ExitCode:
    """Return OK only if everything held."""
    return ExitCode.OK if all(finding.held for finding in findings) else ExitCode.FAILED


def milliseconds(lateness: timedelta) -> int:
    """Return a lateness in whole milliseconds; MongoDB keeps no instant more precisely."""
    return round(lateness / timedelta(milliseconds=1))


def _judge_pool(plan: PlannedPool, observed: Observations) -> Finding:
    return Finding(
        name=plan.name,
        shows=plan.shows,
        expected=_expected(plan),
        happened=_happened(plan, observed.snapshot),
        lateness=_lateness(plan, observed.snapshot),
        faults=tuple(dict.fromkeys(_faults(plan, observed))),
    )


def _judge_daemon(plans: Sequence[PlannedPool], observed: Observations) -> Finding:
    known = {workload_id for plan in plans for workload_id in plan.all_workloads}
    strangers = {record.workload_id for record in observed.snapshot.records} - known
    faults = [f"a record of workload {workload_id}, which does not exist" for workload_id in sorted(strangers)]
    if observed.exit_code:
        faults.append(f"ended with exit code {observed.exit_code} when told to stop")
    return Finding(
        name="the daemon",
        shows="stops when it is told to",
        expected="exit code 0",
        happened=f"exit code {observed.exit_code}",
        lateness=None,
        faults=tuple(faults),
    )


def _expected(plan: PlannedPool) -> str:
    if not plan.leaving:
        return "runs on"
    when = "at once" if plan.appears == BEFORE_THE_DAEMON else f"at {plan.ends} s"
    return f"{_share(plan.leaving, plan)} {when}"


def _happened(plan: PlannedPool, snapshot: DatabaseState) -> str:
    gone = [workload_id for workload_id in plan.all_workloads if not _runs(workload_id, snapshot)]
    if not gone:
        return "runs on"
    if plan.appears == BEFORE_THE_DAEMON:
        return f"{_share(gone, plan)} at once"
    lateness = _lateness(plan, snapshot)
    when = "unrecorded" if lateness is None else f"{milliseconds(lateness)} ms late"
    return f"{_share(gone, plan)}, {when}"


def _lateness(plan: PlannedPool, snapshot: DatabaseState) -> timedelta | None:
    """Return how late the pool's last workload was stopped, None if none was or if the daemon did not run yet."""
    if plan.appears == BEFORE_THE_DAEMON:
        return None
    return max((record.lateness for record in snapshot.records_of(plan)), default=None)


def _share(gone: Collection[int], plan: PlannedPool) -> str:
    total = len(plan.all_workloads)
    if len(gone) < total:
        return f"{len(gone)} of {total}"
    return "stops" if total == 1 else f"{total} stop"


def _runs(workload_id: int, snapshot: DatabaseState) -> bool:
    workload = snapshot.workloads.get(workload_id)
    return workload is not None and workload["next_action"] == NextAction.DEPLOY


def _faults(plan: PlannedPool, observed: Observations) -> Iterator[str]:
    if plan.pool_id in observed.belated:
        yield "its customer came too late: this machine is too busy"
    leaving = plan.leaving
    for workload_id in plan.all_workloads:
        if workload_id in leaving:
            yield from _faults_of_leaving(workload_id, plan, observed)
        else:
            yield from _faults_of_staying(workload_id, observed.snapshot)
    may_change = SYNCED if leaving else frozenset()
    found = observed.snapshot.pools.get(plan.pool_id, {})
    if _without(may_change, found) != _without(may_change, observed.written[plan.pool_id]):
        yield "its pool is not as its customer wrote it"


def _without(names: Collection[str], document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in names}


def _faults_of_leaving(workload_id: int, plan: PlannedPool, observed: Observations) -> Iterator[str]:
    snapshot = observed.snapshot
    workload, order = snapshot.workloads.get(workload_id), snapshot.orders.get(workload_id)
    if workload is None or workload["next_action"] != NextAction.DELETE:
        yield f"workload {workload_id} was not stopped"
    if order is None:
        yield f"workload {workload_id} has no work order"
    elif order != workload:
        yield f"the work order of {workload_id} is no copy of it"
    records = [record for record in snapshot.records if record.workload_id == workload_id]
    if len(records) != 1:
        yield f"workload {workload_id} has {len(records)} records"
    for record in records:
        yield from _faults_of_time(record, plan, observed.timetable)


def _faults_of_time(record: Record, plan: PlannedPool, timetable: Timetable) -> Iterator[str]:
    if record.empty_at != timetable.empty_at(plan):
        yield f"stopped for second {record.empty_at - timetable.origin(plan)}"
    if record.lateness < timedelta():
        yield f"stopped {-milliseconds(record.lateness)} ms early"
    elif record.lateness >= TOLERANCE and plan.appears != BEFORE_THE_DAEMON:
        yield f"stopped {milliseconds(record.lateness)} ms late"


def _faults_of_staying(workload_id: int, snapshot: DatabaseState) -> Iterator[str]:
    if not _runs(workload_id, snapshot):
        yield f"workload {workload_id} does not run any more"
    if workload_id in snapshot.orders:
        yield f"workload {workload_id} has a work order"
    if any(record.workload_id == workload_id for record in snapshot.records):
        yield f"workload {workload_id} has a record of being stopped"


def report(findings: Sequence[Finding]) -> RenderableType:
    """Return the verdict as a table, with every fault on a line of its own below it, and a summary."""
    faults = [Text(f"✗ {finding.name}: {fault}", "red") for finding in findings for fault in finding.faults]
    return Group(Text(), _table(findings), Text(), *faults, _summary(findings))


def _table(findings: Sequence[Finding]) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for column in ("pool", "what it shows", "expected", "happened", ""):
        table.add_column(column)
    for finding in findings:
        mark = Text("✓", "green") if finding.held else Text("✗", "bold red")
        table.add_row(Text(finding.name, "bold"), finding.shows, finding.expected, finding.happened, mark)
    return table


def _summary(findings: Sequence[Finding]) -> Text:
    failed = sum(not finding.held for finding in findings)
    if failed:
        return Text(f"{failed} of {len(findings)} did not hold.", "bold red")
    latest = max((finding.lateness for finding in findings if finding.lateness), default=timedelta())
    return Text(
        f"All {len(findings)} held: nothing stopped early, and nothing more than {milliseconds(latest)} ms late.",
        "bold green",
    )
