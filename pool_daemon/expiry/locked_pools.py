"""Pools with another writer's uncommitted transaction: each waits by itself, and delays no other.

Trying a locked pool costs a command, so thousands of them are not tried every few seconds. As one transaction may have
locked them all, the others are tried at once when one of them is settled.
"""

import math
import random
from collections.abc import Iterable
from typing import Final

from pool_daemon.clock import Clock
from pool_daemon.events import POOL_LOCKED, Teller

LONGEST_WAIT_SECONDS: Final = 4
"""The longest interval between tries of a locked pool, unless there are many. The first wait is a second."""

TRIES_PER_SECOND: Final = 50
"""Tries a second of all locked pools together; if there are too many of them for this, they wait longer."""

REMEMBERED: Final = 10_000
"""Locked pools whose tries are counted; the wait of any further one does not grow with its tries."""


class LockedPools:
    """Counts the tries of each locked pool, over all passes."""

    def __init__(self, observer: Teller, *, clock: Clock) -> None:
        self._observer = observer
        self._clock = clock
        self._waits: dict[int, int] = {}
        self._hurried_monotonic = -math.inf

    def __contains__(self, pool_id: int) -> bool:
        """Return whether a pool is waiting for a lock."""
        return pool_id in self._waits

    def __len__(self) -> int:
        """Return how many pools wait for a lock."""
        return len(self._waits)

    def put_aside(self, pool_id: int) -> int:
        """Record that a pool is locked; return how many seconds it waits."""
        waits = self._waits.pop(pool_id, 0)
        if not waits:
            reason = "another transaction has written it and is still open"
            self._observer.tell(POOL_LOCKED, pool=pool_id, reason=reason)
        if len(self._waits) < REMEMBERED:
            self._waits[pool_id] = waits + 1
        spread_seconds = random.uniform(0, 2 * len(self._waits) / TRIES_PER_SECOND)  # noqa: S311 - jitter
        return max(min(LONGEST_WAIT_SECONDS, 1 << min(waits, 2)), math.floor(spread_seconds))

    def forget(self, pool_ids: Iterable[int]) -> None:
        """Forget pools that are no longer due."""
        if self._waits:
            for pool_id in pool_ids:
                self._waits.pop(pool_id, None)

    def clear(self) -> None:
        """Forget all pools."""
        self._waits.clear()

    def settled(self, pool_ids: Iterable[int]) -> list[int]:
        """Record settled pools; if one of them was locked, return all that wait, to be tried at once.

        Once in four seconds at most: with many writers, locks come and go all the time.
        """
        before, now = len(self._waits), self._clock.monotonic()
        self.forget(pool_ids)
        if len(self._waits) == before or now - self._hurried_monotonic < LONGEST_WAIT_SECONDS:
            return []
        self._hurried_monotonic = now
        return list(self._waits)
