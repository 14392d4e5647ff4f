"""The throttle: work orders leave at no more than a set rate, for the sake of the nodes that carry them out."""

from pool_daemon.clock import Clock
from pool_daemon.settings import sections


class Throttle:
    """Says how long to wait before more orders may be given: whoever gives some, pays with the time they take.

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

    def most_at_once(self, workloads: int) -> int:
        """Return how many of so many workloads may go together: no more than a second's worth of orders, but one."""
        return min(workloads, max(1, int(self._settings.orders_per_second))) if self.engaged else workloads

    def wait_seconds(self) -> float:
        """Return how long it is until more orders may be given; 0 if they may now."""
        return max(0.0, self._free_at - self._clock.monotonic()) if self.engaged else 0.0

    def gave(self, orders: int) -> None:
        """Hear that so many orders were given."""
        if self.engaged:
            now = self._clock.monotonic()
            self._free_at = max(now, self._free_at) + orders / self._settings.orders_per_second
