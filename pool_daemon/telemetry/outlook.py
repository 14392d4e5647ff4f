"""Keeps what lies ahead in the status: rarely for the metrics, every other second while somebody looks."""

import asyncio
import math
from typing import Final

import structlog

from pool_daemon.clock import Clock
from pool_daemon.errors import StoreError
from pool_daemon.store.horizon import Horizon
from pool_daemon.telemetry.metric_table import HORIZONS
from pool_daemon.telemetry.observer import Observer

COUNT_SECONDS: Final = 60.0
"""Between two counts. Each reads up to a million index entries, 0.2 s of the server's time."""

LIST_SECONDS: Final = 2.0
"""Between two looks at the first pools to run empty while somebody watches them; each takes a millisecond."""

UPCOMING: Final = 20
"""Pools on the timeline."""

log = structlog.get_logger("pool_daemon.outlook")


class Outlook:
    """Looks ahead until it is cancelled; what it could not read this time it reads another time."""

    def __init__(self, *, horizon: Horizon, observer: Observer, clock: Clock) -> None:
        self._horizon = horizon
        self._observer = observer
        self._clock = clock
        self._counted_tick = self._listed_tick = -math.inf

    async def run(self) -> None:
        """Look every second whether it is time to look."""
        while True:
            try:
                await self.look()
            except StoreError as error:
                log.debug("outlook_unknown", reason=str(error))
            await asyncio.sleep(1)

    async def look(self) -> None:
        """Read what has become old.

        Raises StoreUnavailableError or StoreRefusedError; it is not tried again before its time.
        """
        tick = self._clock.monotonic()
        now = int(self._clock.now())
        if tick - self._listed_tick >= (LIST_SECONDS if self._observer.status.wanted() else COUNT_SECONDS):
            self._listed_tick = tick
            self._observer.upcoming_seen(await self._horizon.upcoming(now, limit=UPCOMING))
        if tick - self._counted_tick >= COUNT_SECONDS:
            self._counted_tick = tick
            self._observer.expiring_counted(await self._horizon.expiring_counts(now, HORIZONS))
