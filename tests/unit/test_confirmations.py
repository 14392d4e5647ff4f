"""When a finding counts as confirmed."""

from virtual_clock import VirtualClock

from pool_daemon.reconcile.scans import REMEMBERED, Confirmations
from pool_daemon.settings.sections import Reconcile

CONFIRM_SECONDS = 60.0


def confirmations() -> tuple[Confirmations[int], VirtualClock]:
    clock = VirtualClock(0.0)
    return Confirmations(clock=clock, settings=Reconcile(confirm_seconds=CONFIRM_SECONDS)), clock


def test_what_is_found_once_is_not_confirmed() -> None:
    found, clock = confirmations()
    assert not found.confirmed(1)
    found.end_scan()
    clock.pass_time(CONFIRM_SECONDS - 1)
    assert not found.confirmed(1)


def test_the_same_long_enough_afterwards_is_confirmed_until_it_is_dealt_with() -> None:
    found, clock = confirmations()
    found.confirmed(1, "gone")
    found.end_scan()
    clock.pass_time(CONFIRM_SECONDS)
    assert found.confirmed(1, "gone")
    assert found.confirmed(1, "gone")
    found.forget(1)
    assert not found.confirmed(1, "gone")


def test_looks_too_close_together_do_not_put_off_the_confirmation() -> None:
    found, clock = confirmations()
    found.confirmed(1)
    for _ in range(5):
        found.end_scan()
        clock.pass_time(CONFIRM_SECONDS / 6)
        assert not found.confirmed(1)
    found.end_scan()
    clock.pass_time(CONFIRM_SECONDS / 6)
    assert found.confirmed(1)


def test_what_has_changed_is_found_for_the_first_time() -> None:
    found, clock = confirmations()
    found.confirmed(1, "gone")
    clock.pass_time(CONFIRM_SECONDS)
    assert not found.confirmed(1, "other")
    clock.pass_time(CONFIRM_SECONDS)
    assert found.confirmed(1, "other")


def test_what_a_whole_scan_did_not_find_again_is_forgotten() -> None:
    found, clock = confirmations()
    found.confirmed(1)
    found.end_scan()
    found.end_scan()
    clock.pass_time(CONFIRM_SECONDS)
    assert not found.confirmed(1)


def test_only_so_much_is_remembered_and_the_rest_has_its_turn_once_that_is_dealt_with() -> None:
    found, clock = confirmations()
    wrong = list(range(REMEMBERED + 10))
    for rest in (10, 0):
        assert not any(found.confirmed(key) for key in wrong)
        found.end_scan()
        clock.pass_time(CONFIRM_SECONDS)
        for key in [key for key in wrong if found.confirmed(key)]:
            found.forget(key)
            wrong.remove(key)
        assert len(wrong) == rest
