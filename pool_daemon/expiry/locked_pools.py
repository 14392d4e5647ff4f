"""Pools with another writer's uncommitted transaction: each waits by itself, and delays no other.

A pass searches each batch that conflicts for locked pools. A few of them are looked for again within moments, for most
writers commit soon. Those that stay locked wait in the work queue for seconds, and a later pass searches them again.

Trying a locked pool costs a command, so thousands of them are not tried every few seconds. As one transaction may have
locked them all, the others are tried at once when one of them is settled.
"""

import asyncio
import math
import random
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

from pool_daemon.clock import Clock
from pool_daemon.events import POOL_LOCKED, Teller
from pool_daemon.expiry.batches import Batch, Batches
from pool_daemon.expiry.work_queue import WorkQueue
from pool_daemon.store.sessions import SEARCHES
from pool_daemon.store.store import PoolLocks

LOOKS: Final = 3
"""How often locked pools are looked for before they wait in the queue: a writer that commits is done by then."""

FEW: Final = 50
"""If more pools are locked, they wait in the queue at once: their lock lasts."""

BETWEEN_LOOKS_SECONDS: Final = 0.1

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


class LockSearch:
    """Searches batches of one pass for locked pools, beside the places for batches.

    Locked pools come back by `queue`; the others are added to `batches` again. `running` counts the searches.
    """

    def __init__(
        self, *, locks: PoolLocks, locked: LockedPools, batches: Batches, queue: WorkQueue, clock: Clock
    ) -> None:
        self._locks = locks
        self._locked = locked
        self._batches = batches
        self._queue = queue
        self._clock = clock
        self._conflicting: deque[Batch] = deque()
        self._locked_before: deque[Batch] = deque()
        self.running = 0

    def add(self, batches: Iterable[Batch]) -> None:
        """Add batches that have just conflicted; they are searched first, for others may be among their pools."""
        self._conflicting.extend(batches)

    def add_locked_before(self, batches: Iterable[Batch]) -> None:
        """Add batches of pools that were locked when they were tried last."""
        self._locked_before.extend(batches)

    def begin(self) -> Iterator[asyncio.Task[None]]:
        """Yield the searches that are begun now: as many as may run at once."""
        while (waiting := self._conflicting or self._locked_before) and self.running < SEARCHES:
            self.running += 1
            yield asyncio.create_task(self._search(waiting.popleft()), name="search")

    def put_aside(self, pool_ids: Iterable[int]) -> None:
        """Have locked pools tried again later, each after a wait of its own."""
        now = math.floor(self._clock.now())
        self._queue.retry({pool_id: now + self._locked.put_aside(pool_id) for pool_id in pool_ids})

    def settled(self, pool_ids: Iterable[int]) -> None:
        """Record that these pools were settled; if one of them was locked, all that wait are tried at once."""
        if waiting := self._locked.settled(pool_ids):
            self._queue.retry(dict.fromkeys(waiting, math.floor(self._clock.now())))

    async def _search(self, batch: Batch) -> None:
        """Put the locked pools of a batch aside, a few only if they stay locked, and add the others again."""
        locked = set(batch.pool_ids)
        try:
            for looks in range(1, LOOKS + 1):
                found = await self._locks.locked_among(sorted(locked))
                others, locked = batch.of(locked - found), found
                if others.pools:
                    self._batches.add(others)
                if looks == LOOKS or not 0 < len(locked) <= FEW - len(self._locked):
                    break
                await asyncio.sleep(BETWEEN_LOOKS_SECONDS)
        finally:
            self.running -= 1
        self.put_aside(locked)
