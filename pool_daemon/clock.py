"""Where the daemon reads the time; given to whoever needs it, so that tests can give another."""

import time
from typing import Protocol


class Clock(Protocol):
    """Two readings of one flow of time."""

    def now(self) -> float:
        """Return the wall clock, in unix seconds with their fraction."""

    def monotonic(self) -> float:
        """Return seconds since some fixed moment; never steps, whatever happens to the wall clock."""


class SystemClock:
    """This machine's clocks."""

    def now(self) -> float:
        """Return the wall clock, in unix seconds with their fraction."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds since the machine started; never steps."""
        return time.monotonic()
