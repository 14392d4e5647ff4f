"""The throttle: bounds batches and orders by the settings and by what the server can handle.

Work orders are written at a bounded rate, to spare the nodes that carry them out.
"""

from typing import Final

from pool_daemon.clock import Clock
from pool_daemon.settings import sections
from pool_daemon.store.cases import Limits
from pool_daemon.store.decommissions import MOST_BYTES

MOST_HALVINGS: Final = 11
"""Halvings of batches, at most, if the server takes too long for them: 2,000 workloads become one."""


class Throttle:
    """Bounds batches, and the rate of orders: each order takes up its share of a second.

    It reads the monotonic clock. Time without orders is not saved up.
    """

    def __init__(self, *, clock: Clock, settings: sections.Expiry) -> None:
        self._clock = clock
        self._settings = settings
        self._free_monotonic = 0.0
        self._halvings = 0

    @property
    def enabled(self) -> bool:
        """Whether the rate of orders is bounded."""
        return self._settings.orders_per_second > 0

    @property
    def concurrency(self) -> int:
        """The number of batches in flight: as set, but one while the rate of orders is bounded."""
        return 1 if self.enabled else self._settings.concurrency

    def wait_seconds(self) -> float:
        """Return the seconds until more orders may be written; 0 if they may be now."""
        return max(0.0, self._free_monotonic - self._clock.monotonic()) if self.enabled else 0.0

    @property
    def limits(self) -> Limits:
        """The limits of one batch: as set, but at most a second's worth of orders, and at least one workload.

        They are halved while the server takes too long for full batches.
        """
        most = self._settings.batch_workloads
        if self.enabled:
            most = min(most, int(self._settings.orders_per_second))
        return Limits(max(1, most >> self._halvings), MOST_BYTES >> self._halvings)

    def took_too_long(self) -> None:
        """Halve the limits of batches."""
        self._halvings = min(MOST_HALVINGS, self._halvings + 1)

    def went_through(self) -> None:
        """Double the limits of batches, up to the settings."""
        self._halvings = max(0, self._halvings - 1)

    def record(self, orders: int) -> None:
        """Record that `orders` orders were written."""
        if self.enabled:
            now = self._clock.monotonic()
            self._free_monotonic = max(now, self._free_monotonic) + orders / self._settings.orders_per_second
