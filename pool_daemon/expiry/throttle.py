"""The throttle: how much goes at once, by the settings and by what the server copes with.

Work orders leave at no more than a set rate, for the sake of the nodes that carry them out.
"""

from typing import Final

from pool_daemon.clock import Clock
from pool_daemon.settings import sections
from pool_daemon.store.cases import Limits
from pool_daemon.store.decommissions import MOST_BYTES

MOST_HALVINGS: Final = 11
"""So often the batches are halved at most if the server takes too long for them: 2,000 workloads become one."""


class Throttle:
    """Bounds batches, and the rate of orders: each order takes up its share of a second.

    The clock is the monotonic one. Time in which no order was given is not saved up.
    """

    def __init__(self, *, clock: Clock, settings: sections.Expiry) -> None:
        self._clock = clock
        self._settings = settings
        self._free_at = 0.0
        self._halvings = 0

    @property
    def enabled(self) -> bool:
        """Whether the rate of orders is bounded."""
        return self._settings.orders_per_second > 0

    @property
    def batch_workloads(self) -> int:
        """How many workloads may go together: as set, but no more than a second's worth of orders, and one at least."""
        most = self._settings.batch_workloads
        return min(most, max(1, int(self._settings.orders_per_second))) if self.enabled else most

    @property
    def concurrency(self) -> int:
        """How many batches may be at work at once: as set, but one after the other while there is a bound."""
        return 1 if self.enabled else self._settings.concurrency

    def wait_seconds(self) -> float:
        """Return how long it is until more orders may be given; 0 if they may now."""
        return max(0.0, self._free_at - self._clock.monotonic()) if self.enabled else 0.0

    @property
    def limits(self) -> Limits:
        """How much one batch may take: less while the server takes too long for as much as that."""
        return Limits(max(1, self.batch_workloads >> self._halvings), MOST_BYTES >> self._halvings)

    def took_too_long(self) -> None:
        """Have batches take half as much."""
        self._halvings = min(MOST_HALVINGS, self._halvings + 1)

    def went_through(self) -> None:
        """Have batches take twice as much, if they took less than they may."""
        self._halvings = max(0, self._halvings - 1)

    def record(self, orders: int) -> None:
        """Record that so many orders were given."""
        if self.enabled:
            now = self._clock.monotonic()
            self._free_at = max(now, self._free_at) + orders / self._settings.orders_per_second
