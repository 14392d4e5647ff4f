"""Keeps what lies ahead in the status: rarely for the metrics, every other second while somebody looks."""

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any, Final

import structlog

from pool_daemon.clock import Clock
from pool_daemon.errors import StoreError
from pool_daemon.store.horizon import Horizon
from pool_daemon.store.recent_events import RecentEvents
from pool_daemon.telemetry.metric_table import HORIZONS
from pool_daemon.telemetry.observer import Observer
from pool_daemon.telemetry.snapshot import Role

COUNT_SECONDS: Final = 60.0
"""Between two counts of what expires. Each reads up to a million index entries, 0.2 s of the server's time."""

BACKLOG_SECONDS: Final = 10.0
"""Between two counts of what is overdue: next to nothing, but in a storm or while something holds it back."""

LIST_SECONDS: Final = 2.0
"""Between two looks at the first pools to run empty while somebody watches them; each takes a millisecond."""

RECORDS: Final = 200
"""Records of workloads read once, after the start: those of the last pools that any daemon decommissioned."""

UPCOMING: Final = 20
"""Pools on the timeline."""

log = structlog.get_logger("pool_daemon.outlook")


class Outlook:
    """Looks ahead until it is cancelled; what it could not read this time it reads another time.

    `watermark` tells up to which unix second everything due has been looked at, None if nothing has yet.
    """

    def __init__(
        self,
        *,
        horizon: Horizon,
        recent_events: RecentEvents,
        observer: Observer,
        clock: Clock,
        watermark: Callable[[], int | None],
        sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep,
    ) -> None:
        self._horizon = horizon
        self._recent_events = recent_events
        self._observer = observer
        self._clock = clock
        self._watermark = watermark
        self._sleep = sleep
        self._has_records = False
        self._read_tick: dict[str, float] = {}

    async def run(self) -> None:
        """Look every second whether it is time to look."""
        while True:
            try:
                await self.look()
            except StoreError as error:
                log.debug("outlook_unknown", reason=str(error))
            await self._sleep(1)

    async def look(self) -> None:
        """Read what has become old.

        Raises StoreUnavailableError or StoreRefusedError; it is not tried again before its time.
        """
        now = int(self._clock.now())
        if not self._has_records and self._is_old("records", COUNT_SECONDS):
            self._observer.recorded_events_seen(await self._recent_events.last(records=RECORDS))
            self._has_records = True
        if self._is_old("upcoming", LIST_SECONDS if self._observer.status.wanted() else COUNT_SECONDS):
            self._observer.upcoming_seen(await self._horizon.upcoming(now, limit=UPCOMING))
        if self._observer.status.snapshot.role is not Role.LEADER:
            self._observer.backlog_counted(None)  # only a leader knows what of that it has settled
        elif self._is_old("backlog", BACKLOG_SECONDS):
            overdue = 0 if self._is_idle(now) else await self._horizon.overdue_count(after=self._watermark(), until=now)
            self._observer.backlog_counted(overdue)
        if self._is_old("expiring", COUNT_SECONDS):
            self._observer.expiring_counted(await self._horizon.expiring_counts(now, HORIZONS))

    def _is_idle(self, now: int) -> bool:
        """Tell whether the daemon waits for an end yet to come, and nothing keeps it from what came before."""
        snapshot = self._observer.status.snapshot
        return snapshot.next_at is not None and snapshot.next_at > now and not snapshot.holds and not snapshot.failures

    def _is_old(self, what: str, seconds: float) -> bool:
        """Tell whether it is time to read something; if so it counts as read, even if that fails."""
        tick = self._clock.monotonic()
        if tick - self._read_tick.get(what, -math.inf) < seconds:
            return False
        self._read_tick[what] = tick
        return True
