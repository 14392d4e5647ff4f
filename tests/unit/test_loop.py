"""The loop around the pass: whatever a pass does, the timer is armed after it."""

import asyncio
import math
from collections.abc import Callable, Mapping
from itertools import pairwise

import pytest
from deadline import soonest_of
from structlog.testing import capture_logs

from pool_daemon.clock import SystemClock
from pool_daemon.errors import StoreUnavailableError
from pool_daemon.expiry.loop import ExpiryLoop
from pool_daemon.expiry.pass_report import PassOutcome, PassReport
from pool_daemon.expiry.timer import Timer
from pool_daemon.expiry.work_queue import Cause, WorkQueue
from pool_daemon.guards.gate import Closed
from pool_daemon.settings.sections import Expiry
from pool_daemon.telemetry.observer import Observer


class Passes:
    """Stands in for the expirer: each pass does the next thing it was given, and the last of them stops the loop."""

    def __init__(self, *outcomes: PassReport | Exception, meanwhile: Callable[[WorkQueue], None] | None = None) -> None:
        self.stop = asyncio.Event()
        self.made = 0
        self.began_at: list[float] = []
        self.checks: list[bool] = []
        self.checked = 0
        self.clock = SystemClock()
        self.queue = WorkQueue()
        self.observer = Observer(identity="me", version="0", clock=self.clock)
        self.timer = Timer(clock=self.clock, on_set=self._timers_set)
        self.when_armed: list[Callable[[], None]] = []
        """What happens once, as soon as the timer is armed."""
        self._outcomes = outcomes
        self._meanwhile = meanwhile

    def _timers_set(self, next_runs: Mapping[str, float]) -> None:
        self.observer.timers_set(next_runs)
        while self.when_armed:
            self.when_armed.pop()()

    async def any_due(self, now: int) -> bool:
        self.checked += 1
        self.queue.take_more(now, after=None)
        return self.checks.pop(0) if self.checks else False

    async def run_pass(self, _now: int) -> PassReport:
        outcome = self._outcomes[self.made]
        self.made += 1
        self.began_at.append(self.clock.monotonic())
        if self._meanwhile is not None and self.made == 1:
            self._meanwhile(self.queue)
        if self.made == len(self._outcomes):
            self.stop.set()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def loop(self, settings: Expiry) -> ExpiryLoop:
        return ExpiryLoop(
            expirer=self,  # type: ignore[arg-type] # it has the two methods that are called
            queue=self.queue,
            timer=self.timer,
            clock=self.clock,
            settings=settings,
            observer=self.observer,
        )


NO_INTERVAL = Expiry(max_sleep_seconds=60)


async def run(passes: Passes, *, within_seconds: float = 5, settings: Expiry = NO_INTERVAL) -> WorkQueue:
    """Run the loop until the last pass was made."""
    loop = passes.loop(settings)
    passes.timer.start()
    running = asyncio.create_task(loop.run(passes.stop))
    stopped = asyncio.create_task(passes.stop.wait())
    async with asyncio.timeout(within_seconds):
        await stopped
        passes.queue.ring()
        await running
    passes.timer.stop()
    return passes.queue


@pytest.mark.parametrize("error", [StoreUnavailableError("away"), ValueError("a bug")])
async def test_after_a_pass_that_failed_the_next_comes_soon_and_by_itself(error: Exception) -> None:
    passes = Passes(error, error, PassReport())
    with capture_logs() as logs:
        await run(passes)
    assert passes.made == 3
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["pass_failed", "pass_failed"]


async def test_the_timer_is_armed_for_what_the_pass_found_next() -> None:
    later = int(SystemClock().now()) + 40
    passes = Passes(PassReport(next_at=later, next_pool_id=7))
    queue = await run(passes)
    assert (queue.deadline, queue.armed_pool_id) == (later, 7)
    shown = passes.observer.status.snapshot
    assert (shown.next_at, shown.next_pool_id) == (later, 7)
    assert shown.timers.keys() == {"deadline", "longest sleep", "full scan"}
    assert shown.timers["deadline"] == later


async def test_a_deadline_reached_meanwhile_brings_the_next_pass_at_once() -> None:
    passes = Passes(PassReport(next_at=int(SystemClock().now())), PassReport())
    await run(passes)
    assert passes.made == 2


async def test_a_ring_that_comes_during_a_pass_brings_another_at_once() -> None:
    """What rang may have changed after the pass had read it."""
    passes = Passes(PassReport(), PassReport(), meanwhile=WorkQueue.ring)
    await run(passes)
    assert passes.made == 2


async def test_an_end_heard_of_during_a_pass_is_not_lost_to_a_later_one_that_the_pass_had_read() -> None:
    now = SystemClock().now()
    passes = Passes(PassReport(next_at=int(now) + 50), PassReport(), meanwhile=lambda queue: queue.expect(now + 30))
    await run(passes)
    assert passes.made == 2


async def test_the_longest_sleep_bounds_every_wait() -> None:
    passes = Passes(PassReport(), PassReport(), PassReport())
    await run(passes, settings=Expiry(max_sleep_seconds=0.1))
    assert passes.made == 3


async def test_a_full_scan_is_requested_in_its_interval() -> None:
    passes = Passes(PassReport(), PassReport())
    passes.queue.take(1)
    passes.queue.done(1)
    assert not passes.queue.full_scan_requested
    await run(passes, settings=Expiry(max_sleep_seconds=60, full_scan_seconds=1))
    assert passes.queue.full_scan_requested


async def test_a_scheduler_that_died_delays_a_deadline_by_a_moment_and_is_replaced() -> None:
    async def late() -> float:
        deadline = int(SystemClock().now()) + 1
        passes = Passes(PassReport(next_at=deadline), PassReport(next_at=deadline + 1), PassReport())
        passes.when_armed.append(passes.timer.stop)
        with capture_logs() as logs:
            await run(passes, within_seconds=20)
        seconds = SystemClock().now() - (deadline + 1)
        assert seconds >= 0
        warnings = [entry["event"] for entry in logs if entry["log_level"] == "warning"]
        assert set(warnings) == {"timer_late"}
        return seconds if len(warnings) == 1 else math.inf

    await soonest_of(late, within_seconds=1, what="the deadline after the one that no scheduler rang for")


class TestPoolsAddedById:
    """They cost a pass only if one of them is due."""

    @staticmethod
    def add_after_the_first_pass(passes: Passes, *, at: int) -> None:
        passes.when_armed.append(lambda: passes.queue.add(7, at=at, cause=Cause.CHANGED))

    async def test_where_none_is_due_there_is_no_pass_and_the_deadline_stays(self) -> None:
        now = int(SystemClock().now())
        passes = Passes(PassReport(next_at=now + 2, next_pool_id=8), PassReport())
        passes.checks = [False]
        self.add_after_the_first_pass(passes, at=now)
        with capture_logs() as logs:
            await run(passes)
        assert (passes.checked, passes.made) == (1, 2)
        assert SystemClock().now() >= now + 2
        assert [entry["at"] for entry in logs if entry["event"] == "armed"] == [now + 2, None]

    async def test_where_one_is_due_a_pass_follows(self) -> None:
        now = int(SystemClock().now())
        passes = Passes(PassReport(next_at=now + 60), PassReport())
        passes.checks = [True]
        self.add_after_the_first_pass(passes, at=now)
        await run(passes)
        assert (passes.checked, passes.made) == (1, 2)

    async def test_if_that_cannot_be_read_a_pass_is_tried_soon(self) -> None:
        now = int(SystemClock().now())
        passes = Passes(PassReport(next_at=now + 60), PassReport())

        async def away(now: int) -> bool:
            del now
            raise StoreUnavailableError("away")

        passes.any_due = away  # type: ignore[method-assign] # the database is away for this check alone
        self.add_after_the_first_pass(passes, at=now)
        with capture_logs() as logs:
            await run(passes)
        assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["pass_failed"]
        assert passes.made == 2


class TestASchedulerThatIsDeadBesideAStreamOfAdditions:
    """Each addition ends the wait, and with it the time-out that bounds the wait."""

    @staticmethod
    async def seconds_until_the_second_pass(passes: Passes, settings: Expiry) -> float:
        began_at = passes.clock.monotonic()
        running = asyncio.create_task(passes.loop(settings).run(passes.stop))  # its timer is never started
        async with asyncio.timeout(20):
            while not passes.stop.is_set():
                passes.queue.add_workloads([7])
                await asyncio.sleep(0.02)
            passes.queue.ring()
            await running
        assert passes.made == 2
        assert passes.checked > 0
        return passes.clock.monotonic() - began_at

    async def test_a_deadline_is_noticed(self) -> None:
        async def took() -> float:
            deadline = SystemClock().now() + 0.5
            passes = Passes(PassReport(next_at=deadline), PassReport())  # type: ignore[arg-type] # sooner than a second
            await self.seconds_until_the_second_pass(passes, NO_INTERVAL)
            assert SystemClock().now() >= deadline
            return SystemClock().now() - deadline

        await soonest_of(took, within_seconds=1, what="the deadline to be noticed")

    async def test_the_longest_sleep_is_kept(self) -> None:
        async def took() -> float:
            seconds = await self.seconds_until_the_second_pass(
                Passes(PassReport(), PassReport()), Expiry(max_sleep_seconds=0.5)
            )
            assert seconds > 0.4
            return seconds

        await soonest_of(took, within_seconds=1.5, what="the longest sleep to end")

    async def test_a_full_scan_comes_by_its_age(self) -> None:
        async def took() -> float:
            passes = Passes(PassReport(), PassReport())
            passes.queue.take(1)
            passes.queue.done(1)
            settings = Expiry(max_sleep_seconds=60, full_scan_seconds=1)
            seconds = await self.seconds_until_the_second_pass(passes, settings)
            assert seconds > 0.9
            assert passes.queue.full_scan_requested
            return seconds

        await soonest_of(took, within_seconds=2, what="a full scan to come")


async def test_while_passes_fail_an_addition_waits_for_the_retry() -> None:
    passes = Passes(StoreUnavailableError("away"), StoreUnavailableError("away"), PassReport())
    passes.checks = [True] * 100

    async def add() -> None:
        while True:
            passes.queue.add(7, at=1, cause=Cause.CHANGED)
            await asyncio.sleep(0.01)

    adding = asyncio.create_task(add())
    with capture_logs() as logs:
        await run(passes)
    adding.cancel()
    assert (passes.made, passes.checked) == (3, 0)
    waited = [later - earlier for earlier, later in pairwise(passes.began_at)]
    wanted = [entry["retry_seconds"] for entry in logs if entry["event"] == "pass_failed"]
    assert all(seconds > wanted_seconds - 0.02 for seconds, wanted_seconds in zip(waited, wanted, strict=True))


async def test_it_says_once_that_a_gate_has_closed_and_once_that_it_has_opened() -> None:
    closed = PassReport(cut_short_by=Closed.STANDBY, next_at=1)
    opened = PassReport(next_at=1)
    with capture_logs() as logs:
        await run(Passes(closed, closed, opened, opened))
    said = [entry["event"] for entry in logs if entry["event"] in {"expiry_active", "expiry_paused"}]
    assert said == ["expiry_paused", "expiry_active"]


async def test_the_first_pass_says_that_the_daemon_acts() -> None:
    with capture_logs() as logs:
        await run(Passes(PassReport(next_at=1), PassReport(next_at=1)))
    assert [entry["event"] for entry in logs if entry["event"] in {"expiry_active", "expiry_paused"}] == [
        "expiry_active"
    ]


@pytest.mark.parametrize(
    ("cut_short_by", "outcome"),
    [
        (None, PassOutcome.COMPLETED),
        (Closed.CLOCK_UNKNOWN, PassOutcome.HELD),
        (Closed.CLOCKS_APART, PassOutcome.HELD),
        (Closed.STANDBY, PassOutcome.HELD),
        (Closed.STOPPING, PassOutcome.STOPPED),
    ],
)
async def test_a_pass_that_a_closed_gate_cut_short_has_not_completed(
    cut_short_by: Closed | None, outcome: PassOutcome
) -> None:
    passes = Passes(PassReport(cut_short_by=cut_short_by, next_at=1))
    await run(passes)
    last = passes.observer.status.snapshot.last_pass
    assert last is not None
    assert (last.outcome, last.reason) == (outcome, cut_short_by)
