"""The alarm knows when, not what: it rings at the armed deadline, when woken, and never later than a bound.

APScheduler keeps the dates. Its jobs do nothing but set the event that this module waits for, so its known
weaknesses (a late job dropped, a dead scheduler that still says it runs, a wall clock that jumps) can delay a ring
by no more than `OVERSLEPT_SECONDS` past the deadline, and never by more than the safety interval.
"""

import asyncio
from datetime import UTC, datetime
from typing import Final

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from pool_daemon.clock import Clock

OVERSLEPT_SECONDS: Final = 0.25
"""So long after the deadline the wait ends by itself. Far above what the scheduler takes on a busy machine, so that
it only ever speaks when the scheduler is dead, and far below what a farmer would notice."""

log = structlog.get_logger("pool_daemon.alarm")


class Alarm:
    """One wake event, set by a date, by an interval, or by whoever calls `wake`.

    `safety_seconds` bounds every wait. A wake carries no data: merged or repeated wakes cost nothing. Disarm it
    *before* reading the database, so that a change that comes after the read still ends the next wait.
    """

    def __init__(self, *, clock: Clock, safety_seconds: float) -> None:
        self._clock = clock
        self._safety_seconds = safety_seconds
        self._event = asyncio.Event()
        self._scheduler = AsyncIOScheduler(timezone=UTC)
        self._deadline: float | None = None
        self._pool_id: int | None = None
        self._armed = False
        self._expected: float | None = None

    @property
    def deadline(self) -> float | None:
        """The armed instant (unix seconds); None if nothing is known to fall due."""
        return self._deadline

    @property
    def pool_id(self) -> int | None:
        """The pool whose end the alarm is armed for, if it is armed for one."""
        return self._pool_id

    def start(self) -> None:
        """Start the scheduler and the interval that rings for the safety rescan."""
        self._scheduler.start()
        self._scheduler.add_job(
            self._ring,
            "interval",
            seconds=self._safety_seconds,
            id="safety",
            misfire_grace_time=None,
            coalesce=True,
        )

    def stop(self) -> None:
        """Stop the scheduler; nothing rings any more except `wake`."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    def wake(self) -> None:
        """Ring now."""
        self._event.set()

    def expect(self, at: float) -> None:
        """Hear that something falls due at `at` (unix seconds): ring if that is before what the alarm is armed for.

        While it is disarmed nobody knows yet what it will be armed for, so it is remembered until then.
        """
        if not self._armed:
            self._expected = at if self._expected is None else min(at, self._expected)
        elif self._deadline is None or at < self._deadline:
            self.wake()

    def disarm(self) -> None:
        """Forget every ring and every deadline so far: from here on it all counts for the next wait."""
        self._event.clear()
        self._armed = False
        self._deadline = self._pool_id = self._expected = None

    def arm(self, deadline: float | None, *, pool_id: int | None = None) -> None:
        """Ring at `deadline` (unix seconds), in place of whatever was armed before.

        None, or an instant beyond the safety interval, leaves it to that interval to ring. Rings at once if
        something was expected earlier than that since the alarm was disarmed: `deadline` was read before it came.
        """
        self._armed = True
        self._deadline = deadline
        self._pool_id = pool_id
        if self._expected is not None:
            self.expect(self._expected)
        if self._scheduler.get_job("deadline"):
            self._scheduler.remove_job("deadline")
        if deadline is not None and deadline - self._clock.now() <= self._safety_seconds:
            self._scheduler.add_job(
                self._ring,
                "date",
                run_date=datetime.fromtimestamp(deadline, UTC),
                id="deadline",
                misfire_grace_time=None,
            )

    async def wait(self) -> None:
        """Return when the alarm rings, at once if it has rung since it was disarmed."""
        try:
            async with asyncio.timeout(self._longest_wait_seconds()):
                await self._event.wait()
        except TimeoutError:
            if self._deadline is not None and self._clock.now() >= self._deadline + OVERSLEPT_SECONDS:
                self._restart_scheduler()

    def _longest_wait_seconds(self) -> float:
        if self._deadline is None:
            return self._safety_seconds
        until_overslept = self._deadline + OVERSLEPT_SECONDS - self._clock.now()
        return min(self._safety_seconds, max(0.0, until_overslept))

    def _restart_scheduler(self) -> None:
        log.warning("alarm_overslept", deadline=self._deadline)
        self.stop()
        self._scheduler = AsyncIOScheduler(timezone=UTC)
        self.start()

    async def _ring(self) -> None:
        self._event.set()
