"""Keeps in the status how many pools are in grace."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from pool_daemon.errors import StoreError
from pool_daemon.events import GRACE_READ_FAILED
from pool_daemon.guards.leadership import Role
from pool_daemon.telemetry.observer import Observer

COUNT_SECONDS: Final = 10.0
"""Interval between two counts: each reads an index entry for every pool in grace."""

STANDBY_SECONDS: Final = 2.0
"""How soon a daemon that has begun to lead counts."""


class GraceWatch:
    """Counts the pools in grace while this daemon leads, by `count`; a failed count is repeated after the interval."""

    def __init__(
        self,
        *,
        count: Callable[[], Awaitable[int]],
        observer: Observer,
        sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep,
    ) -> None:
        self._count = count
        self._observer = observer
        self._sleep = sleep

    async def run(self) -> None:
        """Count them for ever."""
        while True:
            try:
                await self.look()
            except StoreError as error:
                self._observer.tell(GRACE_READ_FAILED, reason=str(error))
            await self._sleep(COUNT_SECONDS if self._leads() else STANDBY_SECONDS)

    async def look(self) -> None:
        """Count them, if this daemon leads.

        Raises StoreUnavailableError or StoreRefusedError; the former count stays in the status.
        """
        self._observer.in_grace_counted(await self._count() if self._leads() else None)

    def _leads(self) -> bool:
        return self._observer.status.snapshot.role is Role.LEADER
