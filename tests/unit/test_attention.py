"""What was decommissioned lately, as an operator is told of it."""

from telemetry_scene import gone
from virtual_clock import NOW, VirtualClock

from pool_daemon.clock import Clock
from pool_daemon.telemetry.attention import RECENT_SECONDS, UNDER_WAY_SECONDS, Destruction, destruction
from pool_daemon.telemetry.observer import Observer


def commit(observer: Observer, *, pools: int, workloads: int) -> None:
    lost = [gone(number, number % pools, empty_at=NOW) for number in range(workloads)]
    observer.batch_committed(lost, pools=pools, seconds=0.1, at=NOW)


def told(observer: Observer, clock: Clock) -> Destruction | None:
    return destruction(observer.status.snapshot, clock.monotonic())


def test_calm_is_told_as_nothing(observer: Observer, clock: VirtualClock) -> None:
    assert told(observer, clock) is None
    observer.batch_committed([], pools=5, seconds=0.1, at=NOW)  # settled, and nothing was lost
    assert told(observer, clock) is None


def test_what_goes_now_is_told_with_its_rate(observer: Observer, clock: VirtualClock) -> None:
    for _ in range(5):
        commit(observer, pools=10, workloads=40)
        clock.pass_time(2)
    found = told(observer, clock)
    assert found == Destruction(pools=50, workloads=200, last_age_seconds=2.0, per_second=25.0)
    assert str(found) == "200 workloads of 50 pools decommissioned in the last 5 minutes"


def test_what_is_over_has_no_rate_and_what_is_long_over_is_not_told(observer: Observer, clock: VirtualClock) -> None:
    commit(observer, pools=1, workloads=1)
    clock.pass_time(UNDER_WAY_SECONDS + 1)
    found = told(observer, clock)
    assert found == Destruction(1, 1, UNDER_WAY_SECONDS + 1, None)
    assert str(found) == "1 workload of 1 pool decommissioned in the last 5 minutes"
    clock.pass_time(RECENT_SECONDS)
    assert told(observer, clock) is None


def test_only_the_last_five_minutes_count(observer: Observer, clock: VirtualClock) -> None:
    for _ in range(100):
        commit(observer, pools=1, workloads=2)
        clock.pass_time(10)
    found = told(observer, clock)
    assert found is not None
    assert 26 <= found.pools <= 30
    assert found.workloads == 2 * found.pools


def test_a_dry_run_destroys_nothing(clock: VirtualClock) -> None:
    observer = Observer(identity="me", version="0", clock=clock, dry_run=True)
    commit(observer, pools=3, workloads=9)
    assert told(observer, clock) is None
