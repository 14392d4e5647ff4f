"""Records what the daemon's parts report: one method an event. Metrics, status and page are derived from it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from pool_daemon import events
from pool_daemon.expiry.watcher import StreamEnd
from pool_daemon.guards.leadership import Role
from pool_daemon.plain_text import shown_id
from pool_daemon.reconcile.findings import NAMED
from pool_daemon.store.density import Density
from pool_daemon.store.events import RecordedPool
from pool_daemon.store.pool_counts import Upcoming
from pool_daemon.telemetry import metric_table as table
from pool_daemon.telemetry.guard_observer import GuardObserver
from pool_daemon.telemetry.notice_observer import NoticeObserver
from pool_daemon.telemetry.pass_observer import PassObserver, recorded_event
from pool_daemon.telemetry.snapshot import StreamState
from pool_daemon.telemetry.status import EVENTS


class Observer(PassObserver, GuardObserver, NoticeObserver):
    """Records all that the parts tell: as log lines, in `metrics`, and as the current state in `status`.

    All methods but `command_finished` belong to the loop's thread, and none blocks.
    """

    _lines_dropped: int = 0

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

    def stopping(self, *, drain_seconds: float) -> None:
        """Record that a stop of the daemon was requested; the pass in progress has `drain_seconds` to finish."""
        self.tell(events.STOPPING, drain_seconds=drain_seconds)
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

    def unreadable(self, kind: str, *, document_id: object, reason: str) -> None:
        """Record the first encounter with an unreadable document ("pool" or "workload") or "change"."""
        self.metrics.add(table.UNREADABLE, kind=kind)
        self.status.change(unreadable=self.status.snapshot.unreadable + 1)
        self._note("unreadable", f"{kind} {shown_id(document_id)}: {reason}")

    def drift_repaired(self, *, pool_id: int, dropped: Sequence[int], excess: Mapping[str, float]) -> None:
        """Record that a pool was repaired, by the workloads that it listed wrongly and the rates that were too high."""
        kind, named = "workload_ids" if dropped else "rates", list(dropped[:NAMED])
        self.tell(events.DRIFT_REPAIRED, pool=pool_id, dropped=len(dropped), workloads=named, excess=dict(excess))
        self.metrics.add(table.DRIFT_REPAIRED, kind=kind)
        self._note("repaired", f"its {kind.replace('_', ' ')} had drifted", pool_id=pool_id)

    def order_restored(self, workload_id: int, *, pool_id: int) -> None:
        """Record that a missing delete order was restored."""
        self.tell(events.DELETE_ORDER_RESTORED, workload=workload_id, pool=pool_id)
        self.metrics.add(table.ORDERS_RESTORED)
        self._note("repaired", "1 missing delete order restored")

    def waiting_orders_seen(self, orders: int | None, *, since_at: float | None = None) -> None:
        """Record how many delete orders wait, the oldest since `since_at` (unix seconds); None if that is unknown."""
        waits_monotonic = None if since_at is None else self._clock.monotonic() - (self._clock.now() - since_at)
        self.status.change(waiting_orders=orders, order_waits_monotonic=waits_monotonic)

    def missing_workloads_counted(self, pools: int | None) -> None:
        """Record how many pools list workloads that have no document; None if that is unknown now."""
        before = self.status.snapshot.pools_missing_workloads
        if pools == before:
            return
        self.status.change(pools_missing_workloads=pools)
        if pools and not before:
            self._note("missing", f"{pools:,} pool{'s' * (pools > 1)} with workloads that have no document")

    def workload_documents_missing(self, *, pools: int, workloads: int, pool_ids: Sequence[int]) -> None:
        """Record that pools list workloads without a document, more than twice as many as were logged before."""
        self.tell(
            events.WORKLOAD_DOCUMENTS_MISSING,
            pools=pools,
            workloads=workloads,
            pool_ids=list(pool_ids),
            remedy="restore the collection workload; until then these pools are not reconciled",
        )
        self.missing_workloads_counted(pools)

    def stream_opened(self, *, resumed: bool) -> None:
        """Record that the change stream is open, where the one before ended or anew."""
        self.tell(events.STREAM_OPENED, resumed=resumed)
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

    def stream_lost(self, cause: StreamEnd, *, reason: str, retry_seconds: float) -> None:
        """Record what ended the change stream or kept it from opening: `cause` in one word, `reason` in detail."""
        self.tell(events.STREAM_LOST, cause=cause, reason=reason, retry_seconds=round(retry_seconds, 3))
        self._stream_ended(cause, reason)

    def resume_token_discarded(self, cause: StreamEnd, *, reason: str) -> None:
        """Record what ended the change stream for good: what happened since is found by a full scan."""
        self.tell(events.RESUME_TOKEN_DISCARDED, cause=cause, reason=reason)
        self._stream_ended(cause, reason)

    def changes_unreadable(self, changes: int, *, reason: str) -> None:
        """Record changes of the stream that were not understood."""
        self.tell(events.CHANGE_NOT_UNDERSTOOD, changes=changes, reason=reason)
        self.unreadable("change", document_id="of the stream", reason=reason)

    def _stream_ended(self, cause: StreamEnd, reason: str) -> None:
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

    def settings_reloaded(self, *, changed: Sequence[str], needs_restart: Sequence[str]) -> None:
        """Record that new settings are in force, but for those that need a restart."""
        self.tell(events.SETTINGS_RELOADED, changed=changed, needs_restart=needs_restart)
        self._settings_read(None)

    def settings_rejected(self, reason: str) -> None:
        """Record why new settings cannot be used; the old ones stay in force."""
        self.tell(events.SETTINGS_REJECTED, reason=reason, remedy="correct them and send SIGHUP again")
        self._settings_read(reason)

    def _settings_read(self, problem: str | None) -> None:
        self.metrics.add(table.SETTINGS_RELOADS, outcome="applied" if problem is None else "refused")
        self.status.change(settings_problem=problem)
        self._note("settings", "reloaded" if problem is None else f"refused, the old ones stay in force: {problem}")

    def upcoming_seen(self, upcoming: Sequence[Upcoming]) -> None:
        """Record which pools run empty next, ordered by deadline."""
        self.status.change(upcoming=tuple(upcoming))

    def expiring_counted(self, expiring: Mapping[str, int], *, density: Density | None = None) -> None:
        """Record how many pools run empty within each horizon, and in each interval."""
        self.status.change(
            expiring=MappingProxyType(dict(expiring)), expiring_monotonic=self._clock.monotonic(), density=density
        )

    def recorded_events_seen(self, pools: Sequence[RecordedPool]) -> None:
        """Record decommissions from before this daemon's start, oldest first; they precede its own events."""
        now = self.status.snapshot
        before = (recorded_event(pool) for pool in pools if pool.decommissioned_at < now.started_at)
        self.status.change(events=(*before, *now.events)[-EVENTS:])
