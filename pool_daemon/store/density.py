"""How many pools run empty when: counts by intervals that widen with their distance, as a timeline shows them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from bson import Int64

RESOLUTION: Final = ((300, 10), (3600, 60), (86_400, 900), (604_800, 21_600))
"""Up to each distance from now, in seconds, the length of an interval; some 200 intervals in all."""

HORIZON: Final = RESOLUTION[-1][0]
"""Pools that run empty later are not counted."""

MOST: Final = 50_000
"""Index entries that one query reads, the nearest first; that takes the server a tenth of a second."""


@dataclass(frozen=True, slots=True)
class Interval:
    """`pools` run empty after the unix second `after`, and by `until`."""

    after: int
    until: int
    pools: int


@dataclass(frozen=True, slots=True)
class Density:
    """The intervals in which pools run empty, in their order; those in which none does are left out.

    It begins after the unix second `after`. It is complete through `until`: of the pools that run empty later some or
    all are not counted.
    """

    after: int
    until: int
    intervals: tuple[Interval, ...] = ()

    def within(self, horizons: Mapping[str, int]) -> dict[str, int] | None:
        """Return how many pools run empty within each horizon (seconds), by its name; None if not all are counted.

        A horizon ends with an interval.
        """
        if self.until < self.after + max(horizons.values()):
            return None
        return {
            name: sum(each.pools for each in self.intervals if each.until <= self.after + seconds)
            for name, seconds in sorted(horizons.items(), key=lambda horizon: horizon[1])
        }


def pipeline(now: int, *, most: int) -> list[dict[str, Any]]:
    """Return the aggregation that counts pools by intervals after the unix second `now`; only the index is read."""
    seconds = {"$subtract": ["$empty_at", Int64(now + 1)]}
    branches = [{"case": {"$lt": ["$$seconds", until]}, "then": length} for until, length in RESOLUTION[:-1]]
    length = {"$switch": {"branches": branches, "default": RESOLUTION[-1][1]}}
    begin = {"$subtract": ["$$seconds", {"$mod": ["$$seconds", length]}]}
    return [
        {"$match": {"empty_at": {"$gt": Int64(now), "$lte": Int64(now + HORIZON)}}},
        {"$sort": {"empty_at": 1}},
        {"$limit": most},
        {"$group": {"_id": {"$let": {"vars": {"seconds": seconds}, "in": begin}}, "pools": {"$sum": 1}}},
        {"$sort": {"_id": 1}},
    ]


def density(groups: Iterable[Mapping[str, Any]], *, now: int, most: int) -> Density:
    """Return what the aggregation has counted. If it stopped at its limit, the last interval is incomplete."""
    intervals = [_interval(int(group["_id"]), group["pools"], now) for group in groups]
    until = now + HORIZON
    if sum(each.pools for each in intervals) >= most:
        until = intervals[-1].after
    return Density(now, until, tuple(intervals))


def _interval(begin: int, pools: int, now: int) -> Interval:
    _, length = next(each for each in RESOLUTION if begin < each[0])
    return Interval(now + begin, now + begin + length, pools)
