"""Pools with another writer's uncommitted transaction: each waits by itself, and delays no other.

Trying a locked pool costs milliseconds, so a thousand of them are not tried every few seconds. As one transaction may
have locked them all, the others are tried at once when one of them is settled.
"""

import math
import random
from collections import Counter
from collections.abc import Iterable
from typing import Final

from pool_daemon.clock import Clock
from pool_daemon.events import POOL_LOCKED, Teller

TRIES_AT_ONCE: Final = 3
"""Tries of a locked pool in one pass, each in its turn: a writer that commits is done by then."""

FEW: Final = 50
"""If more pools conflict in one pass, each is tried once: their lock lasts."""

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
        self._conflicts: Counter[int] = Counter()
        self._hurried_monotonic = -math.inf

    def __contains__(self, pool_id: int) -> bool:
        """Return whether a pool is waiting for a lock."""
        return pool_id in self._waits

    def __len__(self) -> int:
        """Return how many pools wait for a lock."""
        return len(self._waits)

    def begin_pass(self) -> None:
        """Begin a pass: forget the conflicts of the pass before."""
        self._conflicts.clear()

    def conflicted(self, pool_id: int) -> int:
        """Record that a pool conflicted when it was tried alone; return its wait in seconds, 0 for a retry at once."""
        self._conflicts[pool_id] += 1
        if pool_id not in self._waits and self._conflicts[pool_id] < TRIES_AT_ONCE and len(self._conflicts) <= FEW:
            return 0
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
