"""Records how passes and batches go: one event of the log, metrics and status from one call."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from pool_daemon import events
from pool_daemon.capacity.exhaustion import RESOURCES
from pool_daemon.capacity.workload import WorkloadType
from pool_daemon.errors import StoreError
from pool_daemon.expiry.pass_report import PassOutcome, PassReport
from pool_daemon.guards.gate import Closed
from pool_daemon.guards.leadership import Role
from pool_daemon.store.cases import Decommissioned
from pool_daemon.store.events import RecordedPool
from pool_daemon.telemetry import metric_table as table
from pool_daemon.telemetry.attention import LATELY_SECONDS
from pool_daemon.telemetry.metrics import Metrics
from pool_daemon.telemetry.recorder import Recorder
from pool_daemon.telemetry.snapshot import Decommissions, FinishedPass, StatusEvent
from pool_daemon.telemetry.status import EVENTS

TYPES: Final = {int(kind): kind.name.lower() for kind in WorkloadType}


class PassCosts:
    """The workloads that were decommissioned at the unix instant `at`.

    `due_at` maps a pool to the instant since which its workloads were due, where that is not its `empty_at`.
    """

    def __init__(self, gone: Sequence[Decommissioned], *, at: float, due_at: Mapping[int, float]) -> None:
        self._gone = gone
        self._at = at
        self._due_at = due_at
        self._pools: dict[int, list[Decommissioned]] = defaultdict(list)
        for workload in gone:
            self._pools[workload.pool_id].append(workload)

    @property
    def pools(self) -> int:
        """Number of pools that lost workloads."""
        return len(self._pools)

    def count(self, metrics: Metrics) -> None:
        """Update the decommissioning metrics."""
        kinds = Counter((gone.resources[0], TYPES.get(gone.workload_type, "unknown")) for gone in self._gone)
        for (resource, workload_type), number in kinds.items():
            metrics.add(table.WORKLOADS_DECOMMISSIONED, number, resource=resource, workload_type=workload_type)
        for first, number in Counter(_exhausted(workloads)[0] for workloads in self._pools.values()).items():
            metrics.add(table.POOLS_DECOMMISSIONED, number, resource=first)
        for workload in self._gone:
            metrics.observe(table.LATENESS, self._late_seconds(workload))
            if workload.grace_seconds:
                kind = TYPES.get(workload.workload_type, "unknown")
                metrics.add(table.GRACE_SECONDS, workload.grace_seconds, workload_type=kind)

    def last_events(self, most: int) -> Iterator[StatusEvent]:
        """Yield the events of the last `most` pools of the batch."""
        for pool_id, workloads in list(self._pools.items())[-most:]:
            text = _told(_exhausted(workloads), len(workloads))
            yield StatusEvent(self._at, "decommissioned", text, pool_id, self._late_seconds(workloads[0]))

    def would_be_events(self, most: int) -> Iterator[StatusEvent]:
        """Yield the same events for a dry run, without lateness: nothing was decommissioned."""
        for event in self.last_events(most):
            text = f"would be decommissioned: {event.text}"
            yield replace(event, kind="dry_run", text=text, lateness_seconds=None)

    def _late_seconds(self, workload: Decommissioned) -> float:
        return max(0.0, self._at - workload.due_at(self._due_at.get(workload.pool_id, workload.empty_at)))


def recorded_event(pool: RecordedPool) -> StatusEvent:
    """Return the event of a pool that an earlier daemon decommissioned; its lateness is not on record."""
    resources = [resource for resource in RESOURCES if resource in pool.resources]
    return StatusEvent(pool.decommissioned_at, "decommissioned", _told(resources, pool.workloads), pool.pool_id)


def _told(resources: Sequence[str], workloads: int) -> str:
    return f"{_enumerated(resources) or 'a resource'} ran out, {workloads} workload{'s' * (workloads > 1)}"


def _exhausted(workloads: Sequence[Decommissioned]) -> list[str]:
    """Name the exhausted resources of some workloads, in a fixed order."""
    exhausted = {resource for workload in workloads for resource in workload.resources}
    return [resource for resource in RESOURCES if resource in exhausted]


def _enumerated(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


AT_EMPTY: Final[Mapping[int, float]] = MappingProxyType({})


class PassObserver(Recorder):
    """Records passes and batches.

    In a `dry_run` a batch commits nothing: its would-be decommissions become events, and are not counted.
    """

    _settled_in_pass: int = 0
    _told: tuple[Closed | None] | None = None  # None before the first pass: no state is logged yet

    def armed(self, at: float | None, *, pool_id: int | None = None) -> None:
        """Record the timer's deadline (unix seconds), and which pool runs empty then, if any."""
        self.status.change(next_at=at, next_pool_id=pool_id)
        self.tell(events.ARMED, pool=pool_id, at=at)

    def timers_set(self, next_runs: Mapping[str, float]) -> None:
        """Record when each job of the timer rings next, in unix seconds."""
        self.status.change(timers=next_runs)

    def pass_finished(self, report: PassReport, *, seconds: float) -> None:
        """Record a pass that did not fail; whether this daemon acts is logged when it changes."""
        reason = report.cut_short_by
        if self._told != (reason,):
            self._told = (reason,)
            self.tell(events.EXPIRY_ACTIVE if reason is None else events.EXPIRY_PAUSED, reason=reason)
        if report.settled or report.failed_pools:
            self.tell(
                events.PASS_COMPLETED,
                settled=report.settled,
                **{"would_decommission" if self._dry_run else "decommissioned": report.decommissioned},
                seconds=round(seconds, 3),
            )
        self._count_pass(
            FinishedPass(
                self._clock.now(),
                seconds,
                report.outcome,
                report.settled,
                report.decommissioned,
                report.failed_pools,
                reason,
            )
        )
        if report.outcome is not PassOutcome.STOPPED:
            tick = self._clock.monotonic()
            self.status.change(completed_monotonic=tick, progress_monotonic=tick)
        if report.outcome is PassOutcome.COMPLETED:
            self.status.change(failures=0)
        self._leave_failures_to_the_leader()

    def pass_failed(self, error: Exception, *, seconds: float, retry_seconds: float) -> None:
        """Record that a pass failed as a whole; another pass follows."""
        reason = str(error)
        self.tell(
            events.PASS_FAILED,
            reason=reason,
            retry_seconds=round(retry_seconds, 3),
            exc_info=None if isinstance(error, StoreError) else error,
        )
        failures = self.status.snapshot.failures + 1
        self.metrics.add(table.RETRIES, step="pass")
        self._count_pass(FinishedPass(self._clock.now(), seconds, PassOutcome.FAILED, reason=reason))
        self.status.change(failures=failures)
        self._note("pass_failed", reason)

    def backlog_counted(self, pools: int | None) -> None:
        """Record how many pools have fallen due since the last completed pass; None if this daemon cannot know.

        Pools that the current pass has settled, or settles from now on, are subtracted.
        """
        self.status.change(
            backlog=None if pools is None else max(0, pools - self._settled_in_pass),
            backlog_monotonic=self._clock.monotonic(),
        )

    def batch_committed(
        self,
        gone: Sequence[Decommissioned],
        *,
        pools: int,
        seconds: float,
        at: float,
        due_at: Mapping[int, float] = AT_EMPTY,
    ) -> None:
        """Record a batch that settled `pools` pools at the unix instant `at`, and the workloads it decommissioned.

        `due_at` maps a pool to the instant since which its workloads were due, where that is not its `empty_at`:
        another resource ran out, or a workload was deployed or a pool rewritten after the end. Lateness counts from
        there.
        """
        if self._dry_run:
            self.status.change(progress_monotonic=self._clock.monotonic())
            self.status.note(*PassCosts(gone, at=at, due_at=due_at).would_be_events(EVENTS))
            return
        self.metrics.observe(table.BATCH_DURATION, seconds)
        self.metrics.observe(table.BATCH_POOLS, pools)
        self.metrics.observe(table.BATCH_WORKLOADS, len(gone))
        costs = PassCosts(gone, at=at, due_at=due_at)
        costs.count(self.metrics)
        before = self.status.snapshot
        self._settled_in_pass += pools
        self.status.change(
            progress_monotonic=self._clock.monotonic(),
            pools_decommissioned=before.pools_decommissioned + costs.pools,
            workloads_decommissioned=before.workloads_decommissioned + len(gone),
            backlog=max(0, before.backlog - pools) if before.backlog else before.backlog,
            lately_decommissioned=self._lately_decommissioned(costs.pools, len(gone)),
        )
        self.status.note(*costs.last_events(EVENTS))

    def batch_split(self) -> None:
        """Record that a batch conflicted, failed or was too large, and is retried in pieces."""
        self.metrics.add(table.RETRIES, step="batch")

    def pool_failed(self, pool_id: int, *, reason: str, retry_seconds: float) -> None:
        """Record that a pool failed by itself and is retried later."""
        self.tell(events.POOL_FAILED, pool=pool_id, reason=reason, retry_seconds=retry_seconds)
        self.metrics.add(table.RETRIES, step="pool")
        self._note("failed", reason, pool_id=pool_id)

    def _leave_failures_to_the_leader(self) -> None:
        """Reset the count of failed passes once another daemon acts; a held pass alone has tried nothing."""
        now = self.status.snapshot
        if now.failures and now.role is Role.STANDBY and now.leader is not None:
            self.status.change(failures=0)

    def _lately_decommissioned(self, pools: int, workloads: int) -> tuple[Decommissions, ...]:
        """Return the decommissions of the last minutes including these, added up by half minutes."""
        tick = self._clock.monotonic()
        before = self.status.snapshot.lately_decommissioned
        lately = [each for each in before if tick - each.began_monotonic <= LATELY_SECONDS]
        if not pools:
            return tuple(lately)
        if lately and tick - lately[-1].began_monotonic <= LATELY_SECONDS / 20:
            last = lately.pop()
            return (*lately, Decommissions(last.began_monotonic, tick, last.pools + pools, last.workloads + workloads))
        return (*lately, Decommissions(tick, tick, pools, workloads))

    def _count_pass(self, finished: FinishedPass) -> None:
        self._settled_in_pass = 0
        self.metrics.add(table.PASSES, outcome=finished.outcome)
        self.metrics.observe(table.PASS_DURATION, finished.seconds)
        self.status.finish_pass(finished)
