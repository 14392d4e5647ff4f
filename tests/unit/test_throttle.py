import pytest
from virtual_clock import VirtualClock

from pool_daemon.expiry.throttle import Throttle
from pool_daemon.settings.sections import Expiry


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(1_800_000_000)


def throttle_of(clock: VirtualClock, orders_per_second: float) -> Throttle:
    return Throttle(
        clock=clock, settings=Expiry(orders_per_second=orders_per_second, batch_workloads=500, concurrency=3)
    )


def test_without_a_rate_nothing_waits(clock: VirtualClock) -> None:
    throttle = throttle_of(clock, 0)
    throttle.record(1_000_000)
    assert (throttle.enabled, throttle.wait_seconds(), throttle.limits.workloads) == (False, 0, 500)


def test_whoever_gives_orders_pays_with_the_time_they_take(clock: VirtualClock) -> None:
    throttle = throttle_of(clock, 20)
    assert throttle.wait_seconds() == 0
    throttle.record(30)
    assert throttle.wait_seconds() == pytest.approx(1.5)
    clock.pass_time(1.0)
    throttle.record(10)
    assert throttle.wait_seconds() == pytest.approx(1.0)


def test_idle_time_is_not_saved_up(clock: VirtualClock) -> None:
    throttle = throttle_of(clock, 20)
    clock.pass_time(3600)
    throttle.record(20)
    assert throttle.wait_seconds() == pytest.approx(1.0)


def test_a_wall_clock_that_steps_changes_nothing(clock: VirtualClock) -> None:
    throttle = throttle_of(clock, 20)
    throttle.record(20)
    clock.step(3600)
    assert throttle.wait_seconds() == pytest.approx(1.0)


@pytest.mark.parametrize(("rate", "most"), [(20, 20), (0.1, 1), (10_000, 500)])
def test_at_most_a_seconds_worth_goes_at_once_but_one_at_least(clock: VirtualClock, rate: float, most: int) -> None:
    assert throttle_of(clock, rate).limits.workloads == most


def test_batches_go_one_after_the_other_only_while_there_is_a_rate(clock: VirtualClock) -> None:
    assert (throttle_of(clock, 0).concurrency, throttle_of(clock, 20).concurrency) == (3, 1)
