"""Keeps in the status how the receivers of notices stand."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, Protocol

from pool_daemon.clock import Clock
from pool_daemon.events import NOTICES_FAILED, Teller
from pool_daemon.guards.gate import Gate
from pool_daemon.notices.receiver import reason_of
from pool_daemon.store.receivers import ReceiverStore, Standing

COUNT_SECONDS: Final = 30.0
"""Interval between two readings."""


class StandingsObserver(Teller, Protocol):
    """The receiver of how the receivers of notices stand."""

    def receivers_seen(self, standings: Mapping[str, Standing]) -> None:
        """Record how each stands."""


class ReceiverWatch:
    """Reads how the receivers stand while the gate is open; a failed reading is repeated at its next time."""

    def __init__(
        self,
        *,
        store: ReceiverStore,
        digests: Mapping[str, str],
        gate: Gate,
        clock: Clock,
        observer: StandingsObserver,
        sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._digests = dict(digests)
        self._gate = gate
        self._clock = clock
        self._observer = observer
        self._sleep = sleep

    async def run(self) -> None:
        """Read them for ever."""
        while True:
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001 - a task that dies ends the daemon, and with it all expiry
                self._observer.tell(NOTICES_FAILED, reason=reason_of(error))
            await self._sleep(COUNT_SECONDS)

    async def look(self) -> None:
        """Read how the receivers stand; raises StoreError."""
        is_open = self._gate.closed_by() is None
        standings = await self._store.standings(self._digests, now=self._clock.now()) if is_open else {}
        self._observer.receivers_seen(standings)
