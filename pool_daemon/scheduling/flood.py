"""Pools that lose something although nobody could expect it: how many within a minute."""

from collections.abc import Collection, Iterable, Sequence
from typing import Final

from pool_daemon.scheduling.restraints import Origin

FLOOD_SECONDS: Final = 60
"""How far back they are counted: what a restore writes in that time is unmistakable."""


class Flood:
    """Counts the pools that nobody could expect: those in hand, and those that have lost something lately.

    Nobody could expect a pool that somebody wrote when it was empty already; nor one that is met by a look at
    everything overdue beyond as many as were counted when it began.
    """

    def __init__(self) -> None:
        self._counted = 0  # how many of those that were counted are yet to be met
        self._in_hand: set[int] = set()
        self._lost: dict[int, int] = {}  # by the unix second of that

    def expect(self, pools: int) -> None:
        """Hear that a look at everything overdue begins, which may meet so many pools."""
        self._counted = pools

    def unexpected(self, pool_ids: Sequence[int], origin: Origin) -> set[int]:
        """Return those of some pools that nobody could expect, but for those in hand; the others have been met then."""
        if origin is Origin.DUE:
            return set()
        counted = 0
        if origin is Origin.OVERDUE:
            counted, self._counted = self._counted, max(0, self._counted - len(pool_ids))
        return set(pool_ids[counted:]) - self._in_hand

    def with_them(self, pool_ids: Iterable[int], *, now: int) -> int:
        """Return how many there would be within a minute of the unix second `now` if these lost something, too."""
        self._lost = {pool_id: at for pool_id, at in self._lost.items() if now - FLOOD_SECONDS < at <= now}
        return len(self._lost.keys() | self._in_hand | set(pool_ids))

    def take_in_hand(self, pool_ids: Collection[int]) -> None:
        """Count some that nobody could expect, until it is known whether they lose anything."""
        self._in_hand.update(pool_ids)

    def settled(self, pool_ids: Collection[int], *, lost: Collection[int], now: int) -> None:
        """Hear that some pools are in hand no more, and which of them have lost something."""
        self._lost |= dict.fromkeys(self._in_hand.intersection(lost), now)
        self._in_hand.difference_update(pool_ids)

    def passed(self) -> None:
        """Hear that nothing is in hand."""
        self._in_hand.clear()

    def held(self, pool_ids: Iterable[int], *, now: int) -> None:
        """Count some that would have lost something at the unix second `now`, had they not been held."""
        self._lost |= dict.fromkeys(pool_ids, now)

    def released(self, pool_ids: Collection[int]) -> None:
        """Count some no more."""
        self._lost = {pool_id: at for pool_id, at in self._lost.items() if pool_id not in pool_ids}
