"""The source of time for the daemon; passed to each part, so that tests can replace it."""

import time
from typing import Protocol


class Clock(Protocol):
    """The wall clock and the monotonic clock."""

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
