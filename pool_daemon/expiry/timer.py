"""The dates and intervals of the daemon, each a named job of APScheduler that rings and does nothing else.

So the known weaknesses of APScheduler (a late job dropped, a dead scheduler that still says it runs, a wall clock that
jumps) can only delay a ring. Every wait for a ring is bounded by a monotonic time-out, after which the timer is
restarted.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from pool_daemon.clock import Clock

Ring = Callable[[], None]

FARTHEST_SECONDS: Final = 86_400
"""A later date is not set: a job cannot be centuries ahead, and no wait is that long."""


class Timer:
    """Rings at dates and in intervals, between `start` and `stop`.

    Whenever a date is set, `on_set` is called with the unix seconds at which each job rings next.
    """

    def __init__(self, *, clock: Clock, on_set: Callable[[Mapping[str, float]], None] = lambda _: None) -> None:
        self._clock = clock
        self._on_set = on_set
        self._scheduler = AsyncIOScheduler(timezone=UTC)
        self._intervals: dict[str, tuple[float, Ring]] = {}
        self._latest: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {}

    def every(self, name: str, *, seconds: float, ring: Ring) -> None:
        """Ring in an interval, from the start on; call it before `start`."""
        self._intervals[name] = (seconds, ring)

    def at(self, name: str, instant: float | None, *, ring: Ring) -> None:
        """Ring at an instant (unix seconds), in place of the one set before; None removes it."""
        if self._scheduler.get_job(name):
            self._scheduler.remove_job(name)
        if instant is not None and instant - self._clock.now() <= FARTHEST_SECONDS:
            self._add(name, "date", ring, run_date=datetime.fromtimestamp(instant, UTC))
        self._on_set(self.next_runs())

    async def sleep(self, name: str, seconds: float) -> None:
        """Sleep as a job of that name, and no longer than `seconds` of the monotonic clock."""
        rung = asyncio.Event()
        self.at(name, self._clock.now() + seconds, ring=rung.set)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await rung.wait()

    def start(self) -> None:
        """Start the scheduler with its intervals."""
        self._scheduler.start()
        for name, (seconds, ring) in self._intervals.items():
            self._add(name, "interval", ring, seconds=seconds)

    def stop(self) -> None:
        """Stop the scheduler."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    def restart(self) -> None:
        """Replace a scheduler that has died; the dates have to be set again."""
        self.stop()
        self._scheduler = AsyncIOScheduler(timezone=UTC)
        self.start()

    def next_runs(self) -> dict[str, float]:
        """Return when each job rings next, in unix seconds."""
        return {
            job.id: next_run.timestamp()
            for job in self._scheduler.get_jobs()
            # While the scheduler is stopped, a job has no such attribute.
            if (next_run := getattr(job, "next_run_time", None)) is not None
        }

    def _add(self, name: str, trigger: str, ring: Ring, **when: Any) -> None:
        async def job() -> None:  # a coroutine runs on the loop; a function would run in a thread
            if self._latest[name] is job:  # else it was replaced in the moment before it ran
                ring()

        self._latest[name] = job
        self._scheduler.add_job(job, trigger, id=name, misfire_grace_time=None, coalesce=True, **when)
