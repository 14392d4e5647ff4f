"""Records what the daemon's parts report: one method an event. Metrics, status and page are derived from it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from pool_daemon.clock import Clock
from pool_daemon.plain_text import shown_id
from pool_daemon.store.cases import Decommissioned
from pool_daemon.store.events import RecordedPool
from pool_daemon.store.pool_counts import Upcoming
from pool_daemon.telemetry import metric_table as table
from pool_daemon.telemetry.attention import SETTLED_SECONDS
from pool_daemon.telemetry.hold_observer import HoldObserver
from pool_daemon.telemetry.pass_costs import PassCosts, recorded_event
from pool_daemon.telemetry.snapshot import (
    Clocks,
    FinishedPass,
    PassOutcome,
    Role,
    StreamState,
)
from pool_daemon.telemetry.status import EVENTS

AT_EMPTY: Final[Mapping[int, float]] = MappingProxyType({})


class Observer(HoldObserver):
    """Records events: counted in `metrics`, and as the current state in `status`.

    In a `dry_run` a batch commits nothing: its would-be decommissions become events, and are not counted.

    All methods but `command_finished` belong to the loop's thread. None blocks, and recording the same state twice
    costs nothing.
    """

    def __init__(self, *, identity: str, version: str, clock: Clock, dry_run: bool = False) -> None:
        super().__init__(identity=identity, version=version, clock=clock, dry_run=dry_run)
        self._settled_in_pass = 0
        self._lines_dropped = 0

    def beat(self, lag_seconds: float) -> None:
        """Record a beat of the event loop, and how much later than scheduled it came."""
        self.metrics.observe(table.LOOP_LAG, lag_seconds)
        self.status.change(beat_monotonic=self._clock.monotonic())

    def log_lines_dropped(self, total: int) -> None:
        """Record how many log lines have been dropped since the start."""
        self.metrics.add(table.LOG_LINES_DROPPED, total - self._lines_dropped)
        self._lines_dropped = total

    def http_seen(self, problem: str | None) -> None:
        """Record why the HTTP endpoint cannot be reached; None once it can."""
        self.status.change(http_problem=problem)
        self._note("http", "answers" if problem is None else problem)

    def stopping(self) -> None:
        """Record that a stop of the daemon was requested."""
        if not self.status.snapshot.stopping:
            self.status.change(stopping=True)
            self._note("stopping", "told to stop")

    def command_finished(self, name: str, seconds: float, *, failed: bool) -> None:
        """Count an answer of the database, or its absence; any thread may call this."""
        self.metrics.observe(table.COMMAND_DURATION, seconds, command=name)
        if failed:
            self.metrics.add(table.COMMAND_ERRORS, command=name)
        else:
            self.status.database_answered()

    def indexes_made(self) -> None:
        """Record that the indexes exist, or that each missing one was tried once; it is tried again later."""
        self.status.change(indexes_made=True)

    def indexes_missing(self, missing: Mapping[str, str]) -> None:
        """Record which indexes are missing, each with the reason."""
        self.status.change(indexes_missing=MappingProxyType(dict(missing)))

    def role_seen(self, role: Role, *, term: int | None = None, leader: str | None = None) -> None:
        """Record this daemon's role, the term in which it acts, and which daemon leads if this one does not."""
        before = self.status.snapshot
        if (role, term, leader) == (before.role, before.term, before.leader):
            return
        self.status.change(role=role, term=term, leader=leader)
        self._leave_failures_to_the_leader()
        if role is Role.LEADER:
            self._note("role", "acts without a lease" if term is None else f"leads in term {term}")
        elif role is Role.STANDBY:
            self._note("role", f"stands by for {leader}" if leader else "stands by")
        else:
            self._note("role", f"{role}: writes nothing")

    def lease_held(self, tick: float | None) -> None:
        """Record when, by the monotonic clock, the lease was last known to be held by this daemon or another."""
        self.status.change(lease_monotonic=tick)

    def armed(self, at: float | None, *, pool_id: int | None = None) -> None:
        """Record the timer's deadline (unix seconds), and which pool runs empty then, if any."""
        self.status.change(next_at=at, next_pool_id=pool_id)

    def timers_set(self, next_runs: Mapping[str, float]) -> None:
        """Record when each job of the timer rings next, in unix seconds."""
        self.status.change(timers=next_runs)

    def pass_finished(
        self,
        *,
        seconds: float,
        settled: int,
        decommissioned: int,
        failed_pools: int,
        outcome: PassOutcome,
        reason: str | None = None,
    ) -> None:
        """Count a pass that did not fail; `reason` names the gate that held it."""
        self._count_pass(
            FinishedPass(self._clock.now(), seconds, outcome, settled, decommissioned, failed_pools, reason),
        )
        if outcome is not PassOutcome.STOPPED:
            tick = self._clock.monotonic()
            self.status.change(completed_monotonic=tick, progress_monotonic=tick)
        if outcome is PassOutcome.COMPLETED:
            self.status.change(failures=0)
        self._leave_failures_to_the_leader()

    def pass_failed(self, *, seconds: float, reason: str) -> None:
        """Record that a pass failed as a whole; another pass follows."""
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
            settled=self._settled(costs.pools),
        )
        self.status.note(*costs.last_events(EVENTS))

    def batch_halved(self) -> None:
        """Record that a batch conflicted, failed or was too large, and is retried in pieces."""
        self.metrics.add(table.RETRIES, step="batch")

    def pool_failed(self, pool_id: int, *, reason: str) -> None:
        """Record that a pool failed by itself and is retried later."""
        self.metrics.add(table.RETRIES, step="pool")
        self._note("failed", reason, pool_id=pool_id)

    def unreadable(self, kind: str, *, document_id: object, reason: str) -> None:
        """Record the first encounter with an unreadable document ("pool" or "workload") or "change"."""
        self.metrics.add(table.UNREADABLE, kind=kind)
        self.status.change(unreadable=self.status.snapshot.unreadable + 1)
        self._note("unreadable", f"{kind} {shown_id(document_id)}: {reason}")

    def clocks_compared(self, difference_seconds: float, *, agree: bool) -> None:
        """Record how far this machine's clock is ahead of the database's, and whether that is within tolerance."""
        self.status.change(clocks=Clocks(difference_seconds, agree, self._clock.monotonic()))

    def drift_repaired(self, kind: str, *, pool_id: int) -> None:
        """Record that a pool's record of what is in use was repaired; `kind` names what differed."""
        self.metrics.add(table.DRIFT_REPAIRED, kind=kind)
        self._note("repaired", f"its {kind.replace('_', ' ')} had drifted", pool_id=pool_id)

    def orders_restored(self, count: int) -> None:
        """Record that `count` missing delete orders were restored."""
        if count:
            self.metrics.add(table.ORDERS_RESTORED, count)
            self._note("repaired", f"{count} missing delete order{'s' * (count > 1)} restored")

    def missing_workloads_counted(self, pools: int | None) -> None:
        """Record how many pools list workloads that have no document; None if that is unknown now."""
        before = self.status.snapshot.pools_missing_workloads
        if pools == before:
            return
        self.status.change(pools_missing_workloads=pools)
        if pools and not before:
            self._note("missing", f"{pools:,} pool{'s' * (pools > 1)} with workloads that have no document")

    def stream_opened(self) -> None:
        """Record that the change stream is open."""
        stream = self.status.snapshot.stream
        self.status.change(
            stream=replace(
                stream,
                state=StreamState.OPEN,
                token_monotonic=self._clock.monotonic(),
                closed_monotonic=None,
                reason=None,
            )
        )
        self._note("stream", "the change stream is open")

    def stream_token_moved(self) -> None:
        """Record that the resume token moved: the change stream is alive."""
        stream = self.status.snapshot.stream
        self.status.change(stream=replace(stream, token_monotonic=self._clock.monotonic()))

    def stream_lost(self, cause: table.StreamEnd, *, reason: str) -> None:
        """Record what ended the change stream or kept it from opening: `cause` in one word, `reason` in detail."""
        stream = self.status.snapshot.stream
        self.metrics.add(table.STREAM_REOPENINGS, cause=cause)
        self.status.change(
            stream=replace(
                stream,
                state=StreamState.CLOSED,
                closed_monotonic=self._clock.monotonic()
                if stream.closed_monotonic is None
                else stream.closed_monotonic,
                reopened=stream.reopened + 1,
                reason=reason,
            )
        )
        self._note("stream", f"{cause}: {reason}")

    def settings_reloaded(self, problem: str | None = None) -> None:
        """Record a reload of the settings; `problem` says why the new ones were rejected, None if they were applied."""
        self.metrics.add(table.SETTINGS_RELOADS, outcome="applied" if problem is None else "refused")
        self.status.change(settings_problem=problem)
        self._note("settings", "reloaded" if problem is None else f"refused, the old ones stay in force: {problem}")

    def upcoming_seen(self, upcoming: Sequence[Upcoming]) -> None:
        """Record which pools run empty next, ordered by deadline."""
        self.status.change(upcoming=tuple(upcoming))

    def expiring_counted(self, expiring: Mapping[str, int]) -> None:
        """Record how many pools run empty within each horizon."""
        self.status.change(expiring=MappingProxyType(dict(expiring)), expiring_monotonic=self._clock.monotonic())

    def recorded_events_seen(self, pools: Sequence[RecordedPool]) -> None:
        """Record decommissions from before this daemon's start, oldest first; they precede its own events."""
        now = self.status.snapshot
        before = (recorded_event(pool) for pool in pools if pool.decommissioned_at < now.started_at)
        self.status.change(events=(*before, *now.events)[-EVENTS:])

    def _leave_failures_to_the_leader(self) -> None:
        """Reset the count of failed passes once another daemon acts; a held pass alone has tried nothing."""
        now = self.status.snapshot
        if now.failures and now.role is Role.STANDBY and now.leader is not None:
            self.status.change(failures=0)

    def _settled(self, pools: int) -> tuple[tuple[float, int], ...]:
        """Return the settled pools of the last minutes including `pools`, added up by half minutes."""
        tick = self._clock.monotonic()
        settled = [each for each in self.status.snapshot.settled if tick - each[0] <= SETTLED_SECONDS]
        if settled and tick - settled[-1][0] <= SETTLED_SECONDS / 20:
            began_monotonic, number = settled.pop()
            return (*settled, (began_monotonic, number + pools))
        return (*settled, (tick, pools)) if pools else tuple(settled)

    def _count_pass(self, finished: FinishedPass) -> None:
        self._settled_in_pass = 0
        self.metrics.add(table.PASSES, outcome=finished.outcome)
        self.metrics.observe(table.PASS_DURATION, finished.seconds)
        self.status.finish_pass(finished)
