"""What it takes to be sure."""

from virtual_clock import VirtualClock

from pool_daemon.scheduling.suspicions import REMEMBERED, Suspicions
from pool_daemon.settings.sections import Reconcile

GRACE_SECONDS = 60.0


def suspicions() -> tuple[Suspicions[int], VirtualClock]:
    clock = VirtualClock(0.0)
    return Suspicions(clock=clock, settings=Reconcile(order_grace_seconds=GRACE_SECONDS)), clock


def test_what_is_found_once_is_not_confirmed() -> None:
    found, clock = suspicions()
    assert not found.confirmed(1)
    found.end_walk()
    clock.pass_time(GRACE_SECONDS - 1)
    assert not found.confirmed(1)


def test_the_same_long_enough_afterwards_is_confirmed_once() -> None:
    found, clock = suspicions()
    found.confirmed(1, "gone")
    found.end_walk()
    clock.pass_time(GRACE_SECONDS)
    assert found.confirmed(1, "gone")
    assert not found.confirmed(1, "gone")


def test_looks_too_close_together_do_not_put_off_the_confirmation() -> None:
    found, clock = suspicions()
    found.confirmed(1)
    for _ in range(5):
        found.end_walk()
        clock.pass_time(GRACE_SECONDS / 6)
        assert not found.confirmed(1)
    found.end_walk()
    clock.pass_time(GRACE_SECONDS / 6)
    assert found.confirmed(1)


def test_what_has_changed_is_found_for_the_first_time() -> None:
    found, clock = suspicions()
    found.confirmed(1, "gone")
    clock.pass_time(GRACE_SECONDS)
    assert not found.confirmed(1, "other")
    clock.pass_time(GRACE_SECONDS)
    assert found.confirmed(1, "other")


def test_what_a_whole_walk_did_not_find_again_is_forgotten() -> None:
    found, clock = suspicions()
    found.confirmed(1)
    found.end_walk()
    found.end_walk()
    clock.pass_time(GRACE_SECONDS)
    assert not found.confirmed(1)


def test_only_so_much_is_remembered_and_the_rest_has_its_turn_later() -> None:
    found, clock = suspicions()
    everything = range(REMEMBERED + 10)
    for key in everything:
        found.confirmed(key)
    found.end_walk()
    clock.pass_time(GRACE_SECONDS)
    assert sum(found.confirmed(key) for key in everything) == REMEMBERED
    found.end_walk()
    clock.pass_time(GRACE_SECONDS)
    assert sum(found.confirmed(key) for key in everything) == 10


def test_everything_can_be_forgotten() -> None:
    found, clock = suspicions()
    found.confirmed(1)
    found.clear()
    clock.pass_time(GRACE_SECONDS)
    assert not found.confirmed(1)
