"""What a count by intervals says, and where it ends."""

from collections import Counter
from typing import Any

import pytest

from pool_daemon.store.density import HORIZON, RESOLUTION, Density, Interval, density

NOW = 1_700_000_000


def groups(*ahead: int) -> list[dict[str, Any]]:
    """Group pools by the seconds until they run empty, as the database does."""
    begins = Counter()  # type: Counter[int]
    for seconds in ahead:
        length = next(length for until, length in RESOLUTION if seconds - 1 < until)
        begins[(seconds - 1) // length * length] += 1
    return [{"_id": begin, "pools": pools} for begin, pools in sorted(begins.items())]


@pytest.mark.parametrize("ahead", [1, 10, 11, 300, 301, 3600, 3601, 86_400, 86_401, HORIZON])
def test_each_pool_lies_in_an_interval_that_widens_with_its_distance(ahead: int) -> None:
    (interval,) = density(groups(ahead), now=NOW, most=100).intervals
    assert interval.after < NOW + ahead <= interval.until
    assert interval.until - interval.after == next(length for until, length in RESOLUTION if ahead <= until)


def test_the_horizons_are_sums_of_whole_intervals() -> None:
    counted = density(groups(1, 3600, 3601, 86_400, HORIZON), now=NOW, most=100)
    assert counted.within({"7d": 604_800, "1h": 3600, "1d": 86_400}) == {"1h": 2, "1d": 4, "7d": 5}


def test_a_count_that_stopped_at_its_limit_is_complete_only_up_to_its_last_interval() -> None:
    counted = density(groups(1, 2, 95, 96), now=NOW, most=4)
    assert counted.until == NOW + 90
    assert counted.within({"1h": 3600}) is None
    assert density(groups(1, 2, 95, 96), now=NOW, most=5).until == NOW + HORIZON


def test_nothing_ahead_is_a_complete_count() -> None:
    assert density([], now=NOW, most=4) == Density(NOW, NOW + HORIZON)
    assert Density(NOW, NOW + HORIZON).within({"1h": 3600}) == {"1h": 0}


def test_the_intervals_are_told_in_their_order() -> None:
    assert density(groups(700, 5), now=NOW, most=4).intervals == (
        Interval(NOW, NOW + 10, 1),
        Interval(NOW + 660, NOW + 720, 1),
    )
