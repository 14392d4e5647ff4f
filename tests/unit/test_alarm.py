import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio
from structlog.testing import capture_logs

from pool_daemon.clock import SystemClock
from pool_daemon.scheduling.alarm import Alarm

LONG = 60.0


@pytest_asyncio.fixture
async def alarm() -> AsyncIterator[Alarm]:
    alarm = Alarm(clock=SystemClock(), safety_seconds=LONG)
    alarm.start()
    alarm.disarm()
    yield alarm
    alarm.stop()


async def rings(alarm: Alarm) -> bool:
    """Whether the alarm has rung already: the event is set, so the wait does not even reach the timeout of nothing."""
    try:
        async with asyncio.timeout(0):
            await alarm.wait()
    except TimeoutError:
        return False
    return True


async def test_it_rings_at_the_deadline_and_not_before(alarm: Alarm) -> None:
    deadline = SystemClock().now() + 0.2
    alarm.arm(deadline)
    with capture_logs() as logs:
        await alarm.wait()
    assert deadline <= SystemClock().now() < deadline + 0.2
    assert logs == []


async def test_a_deadline_long_past_rings_at_once(alarm: Alarm) -> None:
    alarm.arm(SystemClock().now() - 10_000)
    async with asyncio.timeout(1):
        await alarm.wait()


async def test_a_deadline_beyond_what_a_date_can_hold_leaves_it_to_the_safety_interval(alarm: Alarm) -> None:
    alarm.arm(2.0**63)
    assert not await rings(alarm)


async def test_arming_again_replaces_the_deadline(alarm: Alarm) -> None:
    alarm.arm(SystemClock().now() + 0.05)
    alarm.arm(SystemClock().now() + LONG)
    try:
        async with asyncio.timeout(0.15):
            await alarm.wait()
    except TimeoutError:
        return
    raise AssertionError("the deadline that was replaced rang")


async def test_a_wake_between_arming_and_waiting_is_not_lost(alarm: Alarm) -> None:
    alarm.arm(None)
    alarm.wake()
    assert await rings(alarm)


async def test_a_wake_between_disarming_and_arming_is_not_lost(alarm: Alarm) -> None:
    alarm.disarm()
    alarm.wake()
    alarm.arm(SystemClock().now() + LONG)
    assert await rings(alarm)


async def test_what_falls_due_before_the_deadline_rings(alarm: Alarm) -> None:
    now = SystemClock().now()
    alarm.arm(now + 30)
    alarm.expect(now + 29)
    assert await rings(alarm)


async def test_what_falls_due_at_the_deadline_or_later_does_not_ring(alarm: Alarm) -> None:
    now = SystemClock().now()
    alarm.arm(now + 30)
    alarm.expect(now + 30)
    alarm.expect(now + 31)
    assert not await rings(alarm)


async def test_anything_expected_rings_while_nothing_is_known_to_fall_due(alarm: Alarm) -> None:
    alarm.arm(None)
    alarm.expect(SystemClock().now() + 1_000_000)
    assert await rings(alarm)


async def test_what_was_expected_while_disarmed_rings_if_it_comes_before_the_deadline_then_armed(alarm: Alarm) -> None:
    now = SystemClock().now()
    alarm.expect(now + 30)
    alarm.expect(now + 20)
    alarm.expect(now + 40)
    alarm.arm(now + 25)
    assert await rings(alarm)


async def test_what_was_expected_while_disarmed_is_silent_if_the_deadline_then_armed_comes_first(alarm: Alarm) -> None:
    now = SystemClock().now()
    alarm.expect(now + 30)
    alarm.arm(now + 25)
    assert not await rings(alarm)


async def test_it_rings_after_the_safety_interval_when_nothing_else_happens() -> None:
    alarm = Alarm(clock=SystemClock(), safety_seconds=0.1)
    alarm.start()
    alarm.arm(None)
    async with asyncio.timeout(1):
        await alarm.wait()
    alarm.stop()


async def test_a_scheduler_that_died_delays_the_ring_by_a_moment_and_is_replaced() -> None:
    alarm = Alarm(clock=SystemClock(), safety_seconds=LONG)
    alarm.start()
    deadline = SystemClock().now() + 0.1
    alarm.arm(deadline)
    alarm.stop()
    with capture_logs() as logs:
        await alarm.wait()
    assert 0.2 < SystemClock().now() - deadline < 1
    assert [entry["event"] for entry in logs] == ["alarm_overslept"]
    alarm.disarm()
    alarm.arm(SystemClock().now() + 0.1)
    with capture_logs() as logs:
        await alarm.wait()
    assert logs == []
    alarm.stop()
