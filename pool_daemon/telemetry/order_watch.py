"""Keeps in the status how many delete orders wait for their nodes, and for how long the oldest has waited."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, Protocol

from pool_daemon.clock import Clock
from pool_daemon.errors import StoreError
from pool_daemon.events import ORDERS_READ_FAILED
from pool_daemon.guards.leadership import Role
from pool_daemon.telemetry.observer import Observer

COUNT_SECONDS: Final = 60.0
"""Interval between two readings; an order is of interest once it has waited for an hour."""

MOST: Final = 20_000
"""Orders that are read at most, a fifth of a second of the server's; a silent node rarely has a hundred."""


class Orders(Protocol):
    """Reads delete orders that wait; see WaitingOrders."""

    async def since(self, known: Mapping[Any, float], *, now: float, most: int) -> dict[Any, float]:
        """Return since when each order waits."""


class OrderWatch:
    """Reads the orders that wait, every minute while this daemon leads; a failed reading is repeated then.

    Since when an order waits is looked up once. If no record says it, as of an order that the explorer gave, it is the
    moment at which this daemon saw the order first.
    """

    def __init__(
        self,
        *,
        orders: Orders,
        observer: Observer,
        clock: Clock,
        sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep,
    ) -> None:
        self._orders = orders
        self._observer = observer
        self._clock = clock
        self._sleep = sleep
        self._known: Mapping[Any, float] = {}

    async def run(self) -> None:
        """Read them for ever."""
        while True:
            try:
                await self.look()
            except StoreError as error:
                self._observer.tell(ORDERS_READ_FAILED, reason=str(error))
            await self._sleep(COUNT_SECONDS)

    async def look(self) -> None:
        """Read the orders that wait, if this daemon leads.

        Raises StoreUnavailableError or StoreRefusedError; what was read before stays in the status.
        """
        if self._observer.status.snapshot.role is not Role.LEADER:
            self._known = {}
            self._observer.waiting_orders_seen(None)
            return
        self._known = await self._orders.since(self._known, now=self._clock.now(), most=MOST)
        self._observer.waiting_orders_seen(len(self._known), since_at=min(self._known.values(), default=None))
