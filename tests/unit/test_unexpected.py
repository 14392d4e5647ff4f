"""Which pools nobody could expect, and how many of them count as lost within a minute."""

import pytest

from pool_daemon.scheduling.flood import FLOOD_SECONDS, Flood
from pool_daemon.scheduling.restraints import Origin

NOW = 1_800_000_000


@pytest.fixture
def flood() -> Flood:
    return Flood()


def take(flood: Flood, *pool_ids: int, origin: Origin = Origin.WRITTEN) -> set[int]:
    """Do what is done before some pools are settled; return those that nobody could expect."""
    unexpected = flood.unexpected(pool_ids, origin)
    flood.take_in_hand(unexpected)
    return unexpected


def lose(flood: Flood, *pool_ids: int, now: int = NOW) -> None:
    """Have pools lose something that somebody has written."""
    take(flood, *pool_ids)
    flood.settled(pool_ids, lost=pool_ids, now=now)


def test_what_falls_due_is_expected_and_what_somebody_wrote_is_not(flood: Flood) -> None:
    assert take(flood, 1, 2, origin=Origin.DUE) == set()
    assert take(flood, 3, 4) == {3, 4}


def test_a_look_at_everything_may_meet_as_many_as_were_counted_and_no_more(flood: Flood) -> None:
    flood.expect(3)
    assert take(flood, 1, 2, origin=Origin.OVERDUE) == set()
    assert take(flood, 3, 4, 5, origin=Origin.OVERDUE) == {4, 5}
    assert take(flood, 6, origin=Origin.OVERDUE) == {6}


def test_the_next_look_counts_for_itself(flood: Flood) -> None:
    flood.expect(100)
    flood.expect(1)
    assert take(flood, 1, 2, origin=Origin.OVERDUE) == {2}


def test_what_is_in_hand_counts_before_it_is_known_whether_it_loses_anything(flood: Flood) -> None:
    take(flood, 1, 2)
    assert flood.with_them([3], now=NOW) == 3


def test_what_has_lost_nothing_counts_no_more(flood: Flood) -> None:
    take(flood, 1, 2)
    flood.settled([1, 2], lost=[2], now=NOW)
    assert flood.with_them([], now=NOW) == 1


def test_what_is_lost_that_was_expected_does_not_count(flood: Flood) -> None:
    take(flood, 1, origin=Origin.DUE)
    flood.settled([1], lost=[1], now=NOW)
    assert flood.with_them([], now=NOW) == 0


def test_a_pass_that_fails_leaves_nothing_in_hand(flood: Flood) -> None:
    take(flood, 1, 2)
    flood.passed()
    assert flood.with_them([], now=NOW) == 0


def test_a_pool_counts_once_however_often_it_is_written(flood: Flood) -> None:
    lose(flood, 1)
    lose(flood, 1)
    take(flood, 1)
    assert flood.with_them([1], now=NOW) == 1


def test_a_pool_in_hand_is_not_asked_about_again(flood: Flood) -> None:
    """It may have lost everything when the answer comes, and what is held then would be held for nothing."""
    take(flood, 1)
    assert flood.unexpected([1, 2], Origin.WRITTEN) == {2}


def test_after_a_minute_it_is_forgotten_and_so_it_is_if_the_clock_steps_back(flood: Flood) -> None:
    lose(flood, 1)
    assert flood.with_them([], now=NOW + FLOOD_SECONDS - 1) == 1
    assert flood.with_them([], now=NOW + FLOOD_SECONDS) == 0
    lose(flood, 2, now=NOW)
    assert flood.with_them([], now=NOW - 1) == 0


def test_what_was_held_counts_until_it_is_released(flood: Flood) -> None:
    flood.held([1, 2], now=NOW)
    assert flood.with_them([], now=NOW) == 2
    flood.released({1})
    assert flood.with_them([], now=NOW) == 1
