"""The daemon's loop: wait, pass, arm. After every pass, a failed one included, the timer is armed."""

import asyncio
import math
from typing import Final, Protocol

from pool_daemon.backoff import Backoff
from pool_daemon.clock import Clock
from pool_daemon.events import PASS_BEGAN, TIMER_LATE, Teller
from pool_daemon.expiry.expirer import Expirer
from pool_daemon.expiry.pass_report import PassReport
from pool_daemon.expiry.timer import Timer
from pool_daemon.expiry.work_queue import WorkQueue
from pool_daemon.settings import sections

LONGEST_RETRY_SECONDS: Final = 5.0
"""The longest wait after a failed pass: once the cause is gone, everything due is settled soon."""

STALL_SECONDS: Final = 0.05
"""After an event loop that stood still, a ring that was due comes this soon if the scheduler lives."""

LATE_SECONDS: Final = 0.25
"""Lateness of a ring after which the wait ends by itself. That is far more than the scheduler takes on a busy machine,
so that it only happens when the scheduler is dead, and far less than a farmer would notice."""


class LoopObserver(Teller, Protocol):
    """The receiver of the results of passes."""

    def armed(self, at: float | None, *, pool_id: int | None = None) -> None:
        """Record the timer's deadline (unix seconds), and which pool runs empty then, if any."""

    def pass_finished(self, report: PassReport, *, seconds: float) -> None:
        """Record a pass that did not fail."""

    def pass_failed(self, error: Exception, *, seconds: float, retry_seconds: float) -> None:
        """Record that a pass failed as a whole, and when another follows."""


class ExpiryLoop:
    """Runs pass after pass until `stop` is set; its setter has to ring the queue, too."""

    def __init__(
        self,
        *,
        expirer: Expirer,
        queue: WorkQueue,
        timer: Timer,
        clock: Clock,
        settings: sections.Expiry,
        observer: LoopObserver,
    ) -> None:
        self._expirer = expirer
        self._queue = queue
        self._timer = timer
        self._clock = clock
        self._longest_sleep_seconds = settings.max_sleep_seconds
        self._full_scan_seconds = settings.full_scan_seconds
        self._full_scan_monotonic = clock.monotonic() + settings.full_scan_seconds
        self._pass_monotonic = clock.monotonic()
        self._is_failing = False
        self._observer = observer
        self._backoff = Backoff(longest_seconds=LONGEST_RETRY_SECONDS)
        self._next: tuple[float | None, int | None] = (None, None)
        self._armed: tuple[float | None, int | None] | None = None
        timer.every("longest sleep", seconds=settings.max_sleep_seconds, ring=queue.ring)
        timer.every("full scan", seconds=settings.full_scan_seconds, ring=queue.ring)

    async def run(self, stop: asyncio.Event) -> None:
        """Make a pass whenever the queue rings, until `stop` is set."""
        while not stop.is_set():
            await self._round()
            await self._wait()

    async def _round(self) -> None:
        """Make a pass, unless pools were only added by id and none of them is due; then arm the timer.

        While passes fail, a pool that is added waits for the retry.
        """
        began_monotonic = self._clock.monotonic()
        # By age, and not by the job alone: that depends on a scheduler and on the wall clock.
        if began_monotonic >= self._full_scan_monotonic:
            self._full_scan_monotonic = began_monotonic + self._full_scan_seconds
            self._queue.request_full_scan()
        is_pass_due = self._queue.disarm() or self._is_pass_due(began_monotonic)
        try:
            if is_pass_due or (not self._is_failing and await self._expirer.any_due(math.floor(self._clock.now()))):
                await self._pass(began_monotonic)
            elif not self._is_failing:
                self._come_back_by(self._queue.next_at())
        except Exception as error:  # noqa: BLE001 - a bug in one pass must not leave the timer unarmed
            self._next = (self._failed(error, seconds=self._clock.monotonic() - began_monotonic), None)
        finally:
            self._arm()

    def _is_pass_due(self, now_monotonic: float) -> bool:
        """Return whether the deadline has come or the longest sleep is over, though only additions have rung."""
        deadline = self._next[0]
        has_come = deadline is not None and self._clock.now() >= deadline
        return has_come or now_monotonic - self._pass_monotonic >= self._longest_sleep_seconds

    async def _pass(self, began_monotonic: float) -> None:
        self._observer.tell(PASS_BEGAN)
        self._armed = None
        self._pass_monotonic = began_monotonic
        report = await self._expirer.run_pass(math.floor(self._clock.now()))
        self._next = (report.next_at, report.next_pool_id)
        seconds = self._clock.monotonic() - began_monotonic
        if report.failure is None:
            self._backoff.reset()
            self._is_failing = False
            self._observer.pass_finished(report, seconds=seconds)
            return
        retry_at = self._failed(report.failure, seconds=seconds)
        self._come_back_by(retry_at)

    def _come_back_by(self, instant: float | None) -> None:
        deadline = self._next[0]
        if instant is not None and (deadline is None or instant < deadline):
            self._next = (instant, None)

    def _arm(self) -> None:
        deadline, pool_id = self._next
        self._queue.arm(deadline, pool_id=pool_id)
        armed = deadline, pool_id = self._queue.deadline, self._queue.armed_pool_id
        self._timer.at("deadline", deadline, ring=self._queue.ring)
        if armed != self._armed:  # with each deployment into a pool that lasts, the timer is as it was
            self._armed = armed
            self._observer.armed(deadline, pool_id=pool_id)

    async def _wait(self) -> None:
        """Wait for a ring; a scheduler that sends none in time is dead, unless the wall clock has stepped back."""
        deadline, now = self._queue.deadline, self._clock.now()
        until_deadline = math.inf if deadline is None else max(0.0, deadline - now)
        bound_seconds = min(self._longest_sleep_seconds, until_deadline) + LATE_SECONDS
        if await self._queue.wait(within_seconds=bound_seconds) or await self._queue.wait(within_seconds=STALL_SECONDS):
            return
        self._queue.ring()
        if until_deadline > self._longest_sleep_seconds or self._clock.now() >= now + until_deadline:
            self._observer.tell(TIMER_LATE, deadline=deadline)
            self._timer.restart()

    def _failed(self, error: Exception, *, seconds: float) -> float:
        """Report a failed pass; return when to retry (unix seconds)."""
        wait_seconds = self._backoff.next_seconds()
        self._is_failing = True
        self._observer.pass_failed(error, seconds=seconds, retry_seconds=wait_seconds)
        return self._clock.now() + wait_seconds
