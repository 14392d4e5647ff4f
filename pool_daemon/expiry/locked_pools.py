"""Pools that another transaction has written and not committed: each waits by itself, and delays no other.

To try a locked pool costs milliseconds, so a thousand of them are not tried every few seconds. As one transaction may
have locked them all, the others are tried at once when one of them goes.
"""

import math
import random
from collections import Counter
from collections.abc import Iterable
from typing import Final

from pool_daemon.telemetry.reports import Reports

TRIES_AT_ONCE: Final = 3
"""So often a pool that another writer was faster at is tried in one pass, each time in its turn: a writer who commits
is out of the way by then."""

FEW: Final = 50
"""Where more pools than that conflict in one pass, each is tried once: they are locked by something that lasts."""

LONGEST_WAIT_SECONDS: Final = 4
"""A locked pool is tried again this often. The first wait is a second."""

TRIES_PER_SECOND: Final = 50
"""Where so many pools are locked that this would be more tries than that, they wait longer."""

REMEMBERED: Final = 10_000
"""Locked pools whose tries are counted; one more waits a second each time."""


class LockedPools:
    """Counts the tries of each locked pool, over all passes."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports
        self._waits: dict[int, int] = {}
        self._conflicts: Counter[int] = Counter()
        self._hurried_at = 0

    def __contains__(self, pool_id: int) -> bool:
        """Return whether a pool has waited for a lock and not been settled since."""
        return pool_id in self._waits

    def begin_pass(self) -> None:
        """Forget which pools conflicted in the pass before."""
        self._conflicts.clear()

    def wait_seconds(self, pool_id: int) -> int:
        """Record that a pool conflicted when it was tried alone; return how long it waits, 0 to be tried at once."""
        self._conflicts[pool_id] += 1
        if pool_id not in self._waits and self._conflicts[pool_id] < TRIES_AT_ONCE and len(self._conflicts) <= FEW:
            return 0
        waits = self._waits.pop(pool_id, 0)
        if not waits:
            self._reports.locked(pool_id)
        if len(self._waits) < REMEMBERED:
            self._waits[pool_id] = waits + 1
        spread_seconds = random.uniform(0, 2 * len(self._waits) / TRIES_PER_SECOND)  # noqa: S311 - jitter
        return max(min(LONGEST_WAIT_SECONDS, 1 << min(waits, 8)), math.floor(spread_seconds))

    def forget(self, pool_ids: Iterable[int]) -> None:
        """Forget pools that are not due any more."""
        if self._waits:
            for pool_id in pool_ids:
                self._waits.pop(pool_id, None)

    def settled(self, pool_ids: Iterable[int], *, now: int) -> dict[int, int]:
        """Record that pools were settled; return those to be tried at once since one of them was locked, with `now`.

        Once in four seconds at most: locks come and go all the time where many write.
        """
        before = len(self._waits)
        self.forget(pool_ids)
        if len(self._waits) == before or now - self._hurried_at < LONGEST_WAIT_SECONDS:
            return {}
        self._hurried_at = now
        return dict.fromkeys(self._waits, now)
