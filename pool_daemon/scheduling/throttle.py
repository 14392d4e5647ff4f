"""The throttle: work orders leave at no more than a set rate, for the sake of the nodes that carry them out."""

from pool_daemon.clock import Clock
from pool_daemon.settings import sections


class Throttle:
    """Says how much may be done at once, and how long to wait before more: orders are paid for with the time they take.

    The clock is the monotonic one. Time in which no order was given is not saved up.
    """

    def __init__(self, *, clock: Clock, settings: sections.Expiry) -> None:
        self._clock = clock
        self._settings = settings
        self._free_at = 0.0

    @property
    def engaged(self) -> bool:
        """Whether there is a bound at all."""
        return self._settings.orders_per_second > 0

    @property
    def batch_workloads(self) -> int:
        """How many workloads may go together: as set, but no more than a second's worth of orders, and one at least."""
        most = self._settings.batch_workloads
        return min(most, max(1, int(self._settings.orders_per_second))) if self.engaged else most

    @property
    def concurrency(self) -> int:
        """How many batches may be at work at once: as set, but one after the other while there is a bound."""
        return 1 if self.engaged else self._settings.concurrency

    def wait_seconds(self) -> float:
        """Return how long it is until more orders may be given; 0 if they may now."""
        return max(0.0, self._free_at - self._clock.monotonic()) if self.engaged else 0.0

    def gave(self, orders: int) -> None:
        """Hear that so many orders were given."""
        if self.engaged:
            now = self._clock.monotonic()
            self._free_at = max(now, self._free_at) + orders / self._settings.orders_per_second
