"""A clock that stands still until it is told to go on, or to step as no clock should."""

NOW = 1_700_000_000.0
"""The instant that the clock of most tests shows at their beginning."""


class VirtualClock:
    """Two readings of one flow of time that only a test moves."""

    def __init__(self, now: float) -> None:
        self._now = now
        self._monotonic = 5000.0

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def pass_time(self, seconds: float) -> None:
        """Let time go by, awake or asleep."""
        self._now += seconds
        self._monotonic += seconds

    def step(self, seconds: float) -> None:
        """Set the wall clock, forward or back, while no time goes by."""
        self._now += seconds
