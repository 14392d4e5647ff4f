"""The verbs in which the daemon's parts tell what they do; metrics, status and the page follow from them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from pool_daemon.clock import Clock
from pool_daemon.plain_text import shown_id
from pool_daemon.store.cases import Decommissioned
from pool_daemon.store.horizon import Upcoming
from pool_daemon.store.recent_events import RecordedPool
from pool_daemon.telemetry import metric_table as table
from pool_daemon.telemetry.attention import SETTLED_SECONDS
from pool_daemon.telemetry.hold_observer import HoldObserver
from pool_daemon.telemetry.snapshot import (
    Clocks,
    FinishedPass,
    PassOutcome,
    Role,
    StreamState,
)
from pool_daemon.telemetry.status import EVENTS
from pool_daemon.telemetry.toll import Toll, recorded_event

AT_EMPTY: Final[Mapping[int, float]] = MappingProxyType({})


class Observer(HoldObserver):
    """Records what happens: counted in `metrics`, and as it stands now in `status`.

    In a `dry_run` a batch commits nothing: what it would have decommissioned is an event, and counted nowhere.

    All verbs but `command_finished` belong to the loop's thread. None of them waits, and recording the same state twice
    costs nothing.
    """

    def __init__(self, *, identity: str, version: str, clock: Clock, dry_run: bool = False) -> None:
        super().__init__(identity=identity, version=version, clock=clock, dry_run=dry_run)
        self._settled_in_pass = 0
        self._lines_dropped = 0

    def beat(self, lag_seconds: float) -> None:
        """Record that the loop has come round, so much later than it should."""
        self.metrics.observe(table.LOOP_LAG, lag_seconds)
        self.status.change(beat_tick=self._clock.monotonic())

    def log_lines_dropped(self, total: int) -> None:
        """Record how many log lines have been dropped since the start."""
        self.metrics.add(table.LOG_LINES_DROPPED, total - self._lines_dropped)
        self._lines_dropped = total

    def http_seen(self, problem: str | None) -> None:
        """Record why the HTTP endpoint cannot be asked; None once it can."""
        self.status.change(http_problem=problem)
        self._note("http", "answers" if problem is None else problem)

    def stopping(self) -> None:
        """Record that the daemon has been told to stop."""
        if not self.status.snapshot.stopping:
            self.status.change(stopping=True)
            self._note("stopping", "told to stop")

    def command_finished(self, name: str, seconds: float, *, failed: bool) -> None:
        """Count every answer of the database, or that there was none; any thread may call this."""
        self.metrics.observe(table.COMMAND_DURATION, seconds, command=name)
        if failed:
            self.metrics.add(table.COMMAND_ERRORS, command=name)
        else:
            self.status.database_answered()

    def indexes_made(self) -> None:
        """Record that the indexes are there, or that they never will be because MongoDB refuses to make them."""
        self.status.change(indexes_made=True)

    def indexes_missing(self, missing: Mapping[str, str]) -> None:
        """Record which indexes are missing, each with the reason."""
        self.status.change(indexes_missing=MappingProxyType(dict(missing)))

    def role_seen(self, role: Role, *, term: int | None = None, leader: str | None = None) -> None:
        """Record what this daemon is, in which term it acts, and who acts if it does not."""
        before = self.status.snapshot
        if (role, term, leader) == (before.role, before.term, before.leader):
            return
        self.status.change(role=role, term=term, leader=leader)
        if role is Role.LEADER:
            self._note("role", "acts without a lease" if term is None else f"leads in term {term}")
        elif role is Role.STANDBY:
            self._note("role", f"stands by for {leader}" if leader else "stands by")
        else:
            self._note("role", f"{role}: writes nothing")

    def lease_held(self, tick: float | None) -> None:
        """Record when, by the monotonic clock, the lease was last known to be held by this daemon or another."""
        self.status.change(lease_tick=tick)

    def armed(self, at: float | None, *, pool_id: int | None = None) -> None:
        """Record what the timer is armed for (unix seconds), and which pool's end that is if it is one."""
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
        set_aside: int,
        outcome: PassOutcome,
        reason: str | None = None,
    ) -> None:
        """Count a pass that did not fail; `reason` is which gate held it."""
        self._count_pass(
            FinishedPass(self._clock.now(), seconds, outcome, settled, decommissioned, set_aside, reason),
        )
        if outcome is not PassOutcome.STOPPED:
            tick = self._clock.monotonic()
            self.status.change(completed_tick=tick, progress_tick=tick, failures=0)

    def pass_failed(self, *, seconds: float, reason: str) -> None:
        """Record that a pass failed as a whole; another follows."""
        failures = self.status.snapshot.failures + 1
        self.metrics.add(table.RETRIES, step="pass")
        self._count_pass(FinishedPass(self._clock.now(), seconds, PassOutcome.FAILED, reason=reason))
        self.status.change(failures=failures)
        self._note("pass_failed", reason)

    def backlog_counted(self, pools: int | None) -> None:
        """Record how many pools have fallen due since the last pass that completed; None if that is not for us to say.

        What the pass under way has settled since comes off, and so does what it settles from now on.
        """
        self.status.change(
            backlog=None if pools is None else max(0, pools - self._settled_in_pass),
            backlog_tick=self._clock.monotonic(),
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
        """Record that a batch settled so many pools at the unix instant `at`, and which workloads had to go.

        `due_at` maps a pool to the instant at which it came to that, if that is not its `empty_at`: another
        resource ran out, or a workload was deployed or a pool rewritten after the end. Lateness counts from there.
        """
        if self._dry_run:
            self.status.change(progress_tick=self._clock.monotonic())
            self.status.note(*Toll(gone, at=at, due_at=due_at).would_be_events(EVENTS))
            return
        self.metrics.observe(table.BATCH_DURATION, seconds)
        self.metrics.observe(table.BATCH_POOLS, pools)
        self.metrics.observe(table.BATCH_WORKLOADS, len(gone))
        toll = Toll(gone, at=at, due_at=due_at)
        toll.count(self.metrics)
        before = self.status.snapshot
        self._settled_in_pass += pools
        self.status.change(
            progress_tick=self._clock.monotonic(),
            pools_decommissioned=before.pools_decommissioned + toll.pools,
            workloads_decommissioned=before.workloads_decommissioned + len(gone),
            backlog=max(0, before.backlog - pools) if before.backlog else before.backlog,
            settled=self._settled(toll.pools),
        )
        self.status.note(*toll.last_events(EVENTS))

    def batch_halved(self) -> None:
        """Record that a batch failed or was too large, and is tried again in halves."""
        self.metrics.add(table.RETRIES, step="batch")

    def pool_set_aside(self, pool_id: int, *, reason: str) -> None:
        """Record that a pool fails by itself and is tried again later."""
        self.metrics.add(table.RETRIES, step="pool")
        self._note("set_aside", reason, pool_id=pool_id)

    def unreadable(self, kind: str, *, document_id: object, reason: str) -> None:
        """Record that a document of a "pool" or a "workload", or a "change", was met first and cannot be read."""
        self.metrics.add(table.UNREADABLE, kind=kind)
        self.status.change(unreadable=self.status.snapshot.unreadable + 1)
        self._note("unreadable", f"{kind} {shown_id(document_id)}: {reason}")

    def clocks_compared(self, difference_seconds: float, *, agree: bool) -> None:
        """Record how far this machine's clock is ahead of the database's, and whether that is still good enough."""
        self.status.change(clocks=Clocks(difference_seconds, agree, self._clock.monotonic()))

    def drift_repaired(self, kind: str, *, pool_id: int) -> None:
        """Record that a pool's record of what is in use was repaired, and in one word what differed."""
        self.metrics.add(table.DRIFT_REPAIRED, kind=kind)
        self._note("repaired", f"its {kind.replace('_', ' ')} had drifted", pool_id=pool_id)

    def orders_restored(self, count: int) -> None:
        """Record that so many delete orders were missing and were restored."""
        if count:
            self.metrics.add(table.ORDERS_RESTORED, count)
            self._note("repaired", f"{count} missing delete order{'s' * (count > 1)} restored")

    def missing_workloads_counted(self, pools: int | None) -> None:
        """Record how many pools list workloads without a document; None if that is not known now."""
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
                stream, state=StreamState.OPEN, token_tick=self._clock.monotonic(), closed_tick=None, reason=None
            )
        )
        self._note("stream", "the change stream is open")

    def stream_token_moved(self) -> None:
        """Record that the change stream lives."""
        stream = self.status.snapshot.stream
        self.status.change(stream=replace(stream, token_tick=self._clock.monotonic()))

    def stream_lost(self, cause: table.StreamEnd, *, reason: str) -> None:
        """Record, in one word and in some more, what ended the change stream or kept it from opening."""
        stream = self.status.snapshot.stream
        self.metrics.add(table.STREAM_REOPENINGS, cause=cause)
        self.status.change(
            stream=replace(
                stream,
                state=StreamState.CLOSED,
                closed_tick=self._clock.monotonic() if stream.closed_tick is None else stream.closed_tick,
                reopened=stream.reopened + 1,
                reason=reason,
            )
        )
        self._note("stream", f"{cause}: {reason}")

    def settings_reloaded(self, problem: str | None = None) -> None:
        """Record that the settings were read again, and why they could not be used if so."""
        self.metrics.add(table.SETTINGS_RELOADS, outcome="applied" if problem is None else "refused")
        self.status.change(settings_problem=problem)
        self._note("settings", "reloaded" if problem is None else f"refused, the old ones stay in force: {problem}")

    def upcoming_seen(self, upcoming: Sequence[Upcoming]) -> None:
        """Record which pools run empty next, the first one first."""
        self.status.change(upcoming=tuple(upcoming))

    def expiring_counted(self, expiring: Mapping[str, int]) -> None:
        """Record how many pools run empty within each horizon."""
        self.status.change(expiring=MappingProxyType(dict(expiring)), expiring_tick=self._clock.monotonic())

    def recorded_events_seen(self, pools: Sequence[RecordedPool]) -> None:
        """Record what was decommissioned before this daemon started, the oldest first; its own events are newer."""
        now = self.status.snapshot
        before = (recorded_event(pool) for pool in pools if pool.decommissioned_at < now.started_at)
        self.status.change(events=(*before, *now.events)[-EVENTS:])

    def _settled(self, pools: int) -> tuple[tuple[float, int], ...]:
        """Return the settled pools of the last minutes with some more, those of half a minute as one number."""
        tick = self._clock.monotonic()
        settled = [each for each in self.status.snapshot.settled if tick - each[0] <= SETTLED_SECONDS]
        if settled and tick - settled[-1][0] <= SETTLED_SECONDS / 20:
            began_tick, number = settled.pop()
            return (*settled, (began_tick, number + pools))
        return (*settled, (tick, pools)) if pools else tuple(settled)

    def _count_pass(self, finished: FinishedPass) -> None:
        self._settled_in_pass = 0
        self.metrics.add(table.PASSES, outcome=finished.outcome)
        self.metrics.observe(table.PASS_DURATION, finished.seconds)
        self.status.finish_pass(finished)
