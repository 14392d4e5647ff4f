"""The jobs of APScheduler: each rings when it should, and a dead scheduler is replaced."""

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio
from deadline import soonest_of

from pool_daemon.clock import SystemClock
from pool_daemon.expiry.timer import Timer


class Bell:
    """Counts how often it is rung, and waits for it."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()
        self.times = 0

    def ring(self) -> None:
        self.times += 1
        self._rung.set()

    async def rings(self, *, within_seconds: float = 10) -> float:
        """Wait for a ring and return when it came, in unix seconds."""
        async with asyncio.timeout(within_seconds):
            await self._rung.wait()
        self._rung.clear()
        return SystemClock().now()


@pytest_asyncio.fixture
async def timer() -> AsyncIterator[Timer]:
    timer = Timer(clock=SystemClock())
    timer.start()
    yield timer
    timer.stop()


def set_deadline(timer: Timer, instant: float | None, bell: Bell) -> None:
    timer.at("deadline", instant, ring=bell.ring)


async def test_it_rings_at_the_instant_and_not_before(timer: Timer) -> None:
    async def late() -> float:
        bell, deadline = Bell(), SystemClock().now() + 0.2
        set_deadline(timer, deadline, bell)
        rang_at = await bell.rings()
        assert deadline <= rang_at
        return rang_at - deadline

    await soonest_of(late, within_seconds=0.25, what="a ring at the instant")


async def test_a_ring_that_is_replaced_in_the_moment_before_it_comes_does_not_come(timer: Timer) -> None:
    """The loop has acted on the deadline by its own clock and set the next one: a late ring would cost a pass."""
    former, latter = Bell(), Bell()
    set_deadline(timer, SystemClock().now() + 60, former)
    due = timer._scheduler.get_job("deadline").func
    set_deadline(timer, SystemClock().now() + 60, latter)
    await due()
    assert (former.times, latter.times) == (0, 0)
    await timer._scheduler.get_job("deadline").func()
    assert latter.times == 1


async def test_an_instant_long_past_rings_at_once(timer: Timer) -> None:
    bell = Bell()
    set_deadline(timer, 1_000.0, bell)
    await bell.rings()


async def test_an_instant_that_no_date_can_hold_is_not_set(timer: Timer) -> None:
    set_deadline(timer, 2.0**63, Bell())
    assert timer.next_runs() == {}


async def test_setting_it_again_replaces_it_and_none_takes_it_back(timer: Timer) -> None:
    replaced, bell, now = Bell(), Bell(), SystemClock().now()
    set_deadline(timer, now + 0.05, replaced)
    set_deadline(timer, now + 0.2, bell)
    await bell.rings()
    assert replaced.times == 0
    set_deadline(timer, now + 60, bell)
    set_deadline(timer, None, bell)
    assert timer.next_runs() == {}


async def test_intervals_ring_again_and_again_and_each_job_tells_when() -> None:
    timer, often, seldom = Timer(clock=SystemClock()), Bell(), Bell()
    timer.every("often", seconds=0.05, ring=often.ring)
    timer.every("seldom", seconds=600, ring=seldom.ring)
    began_at = SystemClock().now()
    timer.start()
    set_deadline(timer, began_at + 60, seldom)
    for _ in range(3):
        await often.rings()
    runs = timer.next_runs()
    assert runs.keys() == {"often", "seldom", "deadline"}
    assert abs(runs["seldom"] - began_at - 600) < 1
    assert abs(runs["deadline"] - began_at - 60) < 0.001
    timer.stop()
    assert seldom.times == 0


async def test_a_scheduler_that_died_is_replaced_with_its_intervals() -> None:
    timer, bell = Timer(clock=SystemClock()), Bell()
    timer.every("often", seconds=0.05, ring=bell.ring)
    timer.start()
    timer.stop()
    bell.times = 0
    timer.restart()
    await bell.rings()
    timer.stop()


async def test_a_sleep_is_a_job_that_tells_when_it_ends(timer: Timer) -> None:
    async def late() -> float:
        began_at = SystemClock().now()
        sleeping = asyncio.create_task(timer.sleep("reconciliation", 0.3))
        await asyncio.sleep(0)
        told = timer.next_runs()["reconciliation"] - began_at
        await sleeping
        took = SystemClock().now() - began_at
        assert told >= 0.3
        assert took > 0.25
        return max(told, took) - 0.3

    await soonest_of(late, within_seconds=0.25, what="the end of a sleep, told and kept")


async def test_a_scheduler_that_died_makes_no_sleep_longer(timer: Timer) -> None:
    async def took() -> float:
        began_at = SystemClock().now()
        await timer.sleep("reconciliation", 0.1)
        assert timer.next_runs() == {}
        return SystemClock().now() - began_at

    timer.stop()
    await asyncio.sleep(0)  # it shuts down with the loop's next round
    await soonest_of(took, within_seconds=1, what="the end of a sleep")
