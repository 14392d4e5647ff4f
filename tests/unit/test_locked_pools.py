from collections import Counter

from virtual_clock import VirtualClock

from pool_daemon.expiry.locked_pools import LONGEST_WAIT_SECONDS, REMEMBERED, TRIES_PER_SECOND, LockedPools
from pool_daemon.settings.sections import Log
from pool_daemon.telemetry.observer import Observer
from pool_daemon.telemetry.reports import Reports

NOW = 1_800_000_000


CLOCK = VirtualClock(NOW)


def locked_pools(clock: VirtualClock = CLOCK) -> LockedPools:
    observer = Observer(identity="me", version="0", clock=clock)
    return LockedPools(Reports(observer=observer, settings=Log()), clock=clock)


def test_where_very_many_are_locked_they_wait_so_long_that_the_tries_a_second_are_bounded() -> None:
    locked = locked_pools()
    count = 20 * TRIES_PER_SECOND
    assert count < REMEMBERED
    for _ in range(4):
        waits = [locked.put_aside(pool_id) for pool_id in range(count)]
    assert 18 < sum(waits) / count < 22
    assert max(Counter(wait for wait in waits if wait > LONGEST_WAIT_SECONDS).values()) < TRIES_PER_SECOND


def test_when_one_of_them_goes_the_others_are_tried_at_once_but_not_time_and_again() -> None:
    clock = VirtualClock(NOW)
    locked = locked_pools(clock)
    for pool_id in range(100):
        locked.put_aside(pool_id)
    assert locked.settled([4711]) == []
    assert set(locked.settled([99, 4711])) == set(range(99))
    clock.pass_time(LONGEST_WAIT_SECONDS - 1)
    assert locked.settled([98]) == []
    clock.pass_time(1)
    assert len(locked.settled([97])) == 97 == len(locked)
    locked.clear()
    assert len(locked) == 0


def test_a_pool_that_is_not_due_any_more_is_forgotten() -> None:
    locked = locked_pools()
    locked.put_aside(7)
    assert 7 in locked
    locked.forget([7, 8])
    assert 7 not in locked
