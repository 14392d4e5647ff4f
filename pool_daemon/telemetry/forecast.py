"""Keeps upcoming expirations in the status: every minute for the metrics, every two seconds while a client watches."""

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any, Final

from pool_daemon.clock import Clock
from pool_daemon.errors import StoreError
from pool_daemon.events import FORECAST_READ_FAILED
from pool_daemon.guards.leadership import Role
from pool_daemon.store.events import RecentEvents
from pool_daemon.store.pool_counts import PoolCounts
from pool_daemon.telemetry.metric_table import HORIZONS
from pool_daemon.telemetry.observer import Observer

COUNT_SECONDS: Final = 60.0
"""Interval between counts of expiring pools, watched or not. A count reads up to 50,000 index entries, and if those are
not all another million: 0.3 s of server time."""

BACKLOG_SECONDS: Final = 10.0
"""Interval between counts of due pools. A count costs next to nothing, except in a storm or while pools are
held."""

LIST_SECONDS: Final = 2.0
"""Interval between reads of the first pools to run empty while a client watches; each read takes a millisecond."""

RECORDS: Final = 200
"""Number of event records read once after the start: those of the last workloads that any daemon decommissioned."""

UPCOMING: Final = 20
"""Number of pools on the timeline."""


class Forecast:
    """Reads upcoming expirations until it is cancelled; a failed read is repeated after its interval.

    `watermark` returns the unix second through which everything due has been settled, None before the first pass.
    """

    def __init__(
        self,
        *,
        pool_counts: PoolCounts,
        recent_events: RecentEvents,
        observer: Observer,
        clock: Clock,
        watermark: Callable[[], int | None],
        sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep,
    ) -> None:
        self._pool_counts = pool_counts
        self._recent_events = recent_events
        self._observer = observer
        self._clock = clock
        self._watermark = watermark
        self._sleep = sleep
        self._has_records = False
        self._read_monotonic: dict[str, float] = {}

    async def run(self) -> None:
        """Check every second which reads are due."""
        while True:
            try:
                await self.look()
            except StoreError as error:
                self._observer.tell(FORECAST_READ_FAILED, reason=str(error))
            await self._sleep(1)

    async def look(self) -> None:
        """Repeat the reads whose interval has passed.

        Raises StoreUnavailableError or StoreRefusedError; a failed read is not tried again before its interval has
        passed.
        """
        now = int(self._clock.now())
        if not self._has_records and self._is_old("records", COUNT_SECONDS):
            self._observer.recorded_events_seen(await self._recent_events.last(records=RECORDS))
            self._has_records = True
        if self._is_old("upcoming", LIST_SECONDS if self._observer.status.wanted() else COUNT_SECONDS):
            self._observer.upcoming_seen(await self._pool_counts.upcoming(now, limit=UPCOMING))
        if self._observer.status.snapshot.role is not Role.LEADER:
            self._observer.backlog_counted(None)  # only a leader knows which due pools it has settled
        elif self._is_old("backlog", BACKLOG_SECONDS):
            due = 0
            if not self._is_idle(now):
                due = await self._pool_counts.due_count(after=self._watermark(), until=now)
            self._observer.backlog_counted(due)
        if self._is_old("expiring", COUNT_SECONDS):
            density = await self._pool_counts.density(now)
            counts = density.within(HORIZONS)
            if counts is None:
                counts = await self._pool_counts.expiring_counts(now, HORIZONS)
            self._observer.expiring_counted(counts, density=density)

    def _is_idle(self, now: int) -> bool:
        """Return whether the next deadline lies in the future, nothing is on hold, and the last pass did not fail."""
        snapshot = self._observer.status.snapshot
        return snapshot.next_at is not None and snapshot.next_at > now and not snapshot.holds and not snapshot.failures

    def _is_old(self, what: str, seconds: float) -> bool:
        """Return whether a read is due. If it is, count it as done, even if it then fails."""
        tick = self._clock.monotonic()
        if tick - self._read_monotonic.get(what, -math.inf) < seconds:
            return False
        self._read_monotonic[what] = tick
        return True
