"""Where the daemon reads the time; given to whoever needs it, so that tests can give another."""

import time
from typing import Protocol


class Clock(Protocol):
    """Two readings of one flow of time."""

    def now(self) -> float:
        """Return the wall clock, in unix seconds with their fraction."""

    def monotonic(self) -> float:
        """Return seconds since some fixed moment; never steps, and counts on while the machine sleeps."""


class SystemClock:
    """This machine's clocks."""

    def now(self) -> float:
        """Return the wall clock, in unix seconds with their fraction."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds since the machine started, asleep or awake; never steps.

        `time.monotonic` stands still while the machine is suspended: a lease trusted by it would still be trusted
        after a night's sleep.
        """
        return time.clock_gettime(time.CLOCK_BOOTTIME)
