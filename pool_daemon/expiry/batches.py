"""Cuts what is due into batches: by workloads, in turns, past heavy owners.

All that is due is read once, longest due first, and that alone makes a pass complete. Lanes beside it only decide who
waits for whom: what was asked for by id, what has fallen due since, the rest of a pool too large for one transaction,
pools that were locked lately, and every other owner's pools behind those of a heavy one. The lanes take turns, a batch
each.
"""

import math
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pool_daemon.store.cases import Limits, Settlement
from pool_daemon.store.client import TRANSACTION_ATTEMPTS
from pool_daemon.store.pools import DuePool, PoolResult
from pool_daemon.store.rooms import Rooms

FIRST_WORKLOADS: Final = 50
"""Workloads in the first batch of a pass; each batch after it may take twice as many, up to the setting. The first
are settled while a full batch would still be read, and in a storm nothing is lost by it."""

HEAVY_SHARE: Final = 0.2
"""An owner with more than this share of the workloads on one page of what is due is overtaken by all others."""

MOST_HEAVY_OWNERS: Final = 8
"""So many owners are overtaken in one pass at most: each costs the server a scan of what is due."""

PIECES: Final = 8
"""A batch that conflicts or fails is cut into so many pieces: more at once find one pool among two thousand in four
rounds, and fewer rounds are less waiting for the pools that share the batch."""

MOST_OVERTAKING: Final = 10_000
"""Pools that overtake the heavy owners at most. Their ids are kept until the pass ends, so this bounds its memory."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Pools to be settled together as of the unix second `now`, by one transaction that is begun `attempts` times.

    So much of them goes in it as `limits` allow. A single pool of which only a part fitted is continued behind the
    workload id `after`. `full_scan` says that the pools were found by a full scan.
    """

    pools: Sequence[DuePool]
    now: int
    limits: Limits
    full_scan: bool = False
    after: Any = None
    attempts: int = TRANSACTION_ATTEMPTS

    @property
    def pool_ids(self) -> list[int]:
        """The ids of the pools."""
        return [pool.pool_id for pool in self.pools]

    @property
    def sparing_limits(self) -> Limits:
        """How much of it goes in one transaction, and of which pools nothing may go."""
        return replace(self.limits, spared=frozenset(pool.pool_id for pool in self.pools if pool.spared))

    def split(self) -> "list[Batch]":
        """Return the batch in pieces of several pools, or of one with half the limits; none if it has the least."""
        if len(self.pools) > 1:
            size = math.ceil(len(self.pools) / PIECES)
            starts = range(0, len(self.pools), size)
            return [replace(self, pools=self.pools[start : start + size]) for start in starts]
        if self.limits.workloads <= 1:
            return []
        return [replace(self, limits=Limits(self.limits.workloads // 2, self.limits.size // 2))]

    def of(self, pool_ids: Collection[int]) -> "Batch":
        """Return the batch with only some of its pools."""
        return replace(self, pools=[pool for pool in self.pools if pool.pool_id in pool_ids])

    def left_by(self, settlement: Settlement, *, most: int) -> "list[Batch]":
        """Return what a settlement has left of the batch: of one pool the workloads behind those that fitted.

        What does not fit is read all the same. So where documents are large, at most twice as many workloads are read
        the next time as fitted this time, and where they are not, twice as many as before, up to `most`.
        """
        workloads = 2 * (len(settlement.decommissioned) if settlement.is_full else self.limits.workloads)
        smaller = replace(self, limits=replace(self.limits, workloads=min(max(1, workloads), most)))
        left = [smaller.of(set(settlement.left_over))] if settlement.left_over else []
        if settlement.rest is not None:
            left.append(replace(smaller.of({settlement.rest.pool_id}), after=settlement.rest.after))
        return left


@dataclass(slots=True)
class _Overtaking:
    """The heavy owners of what is worked through, and the pools of others that have overtaken theirs.

    Those overtaken are handed out page by page; `handed_out` are the pools of the present page that have been.
    """

    owners: set[int] = field(default_factory=set)
    pool_ids: set[int] = field(default_factory=set)
    handed_out: set[int] = field(default_factory=set)

    def waiting(self, pools: Iterable[DuePool]) -> list[DuePool]:
        """Return those of some pools whose turn has not come yet."""
        return [pool for pool in pools if pool.pool_id not in self.pool_ids and pool.pool_id not in self.handed_out]

    def hand_out(self, page: Iterable[DuePool]) -> Iterator[DuePool]:
        """Yield the pools of a page, except those that have overtaken by the time their turn comes."""
        self.handed_out.clear()
        for pool in page:
            if pool.pool_id not in self.pool_ids:
                self.handed_out.add(pool.pool_id)
                yield pool


class Batches:
    """The batches of one pass.

    `limits` returns how much one takes at most, at the moment. If they are taken `in_order`, what is due longest goes
    first, and nobody overtakes. `on_unreadable` is called with documents that are no pools.
    """

    def __init__(
        self,
        *,
        store: Rooms,
        limits: Callable[[], Limits],
        in_order: bool,
        on_unreadable: Callable[[Iterable[PoolResult]], None],
    ) -> None:
        self._store = store
        self._limits = limits
        self._in_order = in_order
        self._on_unreadable = on_unreadable
        self._growing = FIRST_WORKLOADS
        self._lanes: deque[AsyncGenerator[Batch, None]] = deque()

    def add_work(self, pools: Sequence[DuePool], *, alone: Sequence[DuePool], after: int | None, now: int) -> None:
        """Open a lane for pools that are due and were asked for by id, and one for what ran empty.

        Those that go `alone` are a batch each, begun once. What ran empty is read from the store, from the unix second
        `after` on; all that is overdue if that is None.
        """
        lanes = [self._by_id(pools, now), self._one_by_one(alone, now), self._due(after, now, _Overtaking())]
        if self._in_order:
            self._lanes.extend(lanes)
        else:
            self._lanes.extendleft(reversed(lanes))

    def add(self, *batches: Batch) -> None:
        """Have batches settled in their turn."""
        for batch in reversed(batches) if self._in_order else batches:
            self._take_turns(_alone(batch))

    async def take(self) -> Batch | None:
        """Return the next batch; None if there is none, unless one is added.

        Raises StoreUnavailableError or StoreRefusedError.
        """
        while self._lanes:
            lane = self._lanes.popleft()
            batch = await anext(lane, None)
            if batch is not None:
                self._take_turns(lane)
                return batch
        return None

    async def close(self) -> None:
        """Let go of what was being read."""
        for lane in self._lanes:
            await lane.aclose()

    def _take_turns(self, lane: AsyncGenerator[Batch, None]) -> None:
        """Put a lane that may hold more behind all others; in order, it goes on until it is empty."""
        if self._in_order:
            self._lanes.appendleft(lane)
        else:
            self._lanes.append(lane)

    async def _by_id(self, pools: Sequence[DuePool], now: int) -> AsyncGenerator[Batch, None]:
        for batch in self._cut(pools, now, full_scan=False):
            yield batch

    async def _one_by_one(self, pools: Sequence[DuePool], now: int) -> AsyncGenerator[Batch, None]:
        for pool in pools:
            yield Batch([pool], now, self._limits(), attempts=1)

    async def _due(self, after: int | None, now: int, overtaking: _Overtaking) -> AsyncGenerator[Batch, None]:
        """Yield everything that ran empty in (after, now], longest due first; heavy owners are overtaken meanwhile."""
        async with aclosing(self._waiting(after, now, overtaking)) as pages:
            async for pools in pages:
                for batch in self._cut(overtaking.hand_out(pools), now, full_scan=after is None):
                    yield batch

    async def _besides(self, after: int | None, now: int, overtaking: _Overtaking) -> AsyncGenerator[Batch, None]:
        """Yield the first that are due of those who are not overtaken; among them there may be another heavy owner."""
        left = MOST_OVERTAKING
        async with aclosing(self._waiting(after, now, overtaking, besides=sorted(overtaking.owners))) as pages:
            async for pools in pages:
                overtaking.pool_ids.update(pool.pool_id for pool in pools)
                for batch in self._cut(pools, now, full_scan=after is None):
                    yield batch
                left -= len(pools)
                if left <= 0:
                    return

    async def _waiting(
        self, after: int | None, now: int, overtaking: _Overtaking, *, besides: Collection[int] = ()
    ) -> AsyncGenerator[list[DuePool], None]:
        """Yield page by page what is due and has not overtaken yet; an owner who is heavy on one is overtaken then."""
        async with aclosing(self._store.pools.due(after=after, until=now, besides=list(besides))) as pages:
            async for page in pages:
                self._on_unreadable(page.unreadable)
                pools = overtaking.waiting(page.pools)
                if after is None:
                    pools = await self._worth_settling(pools)
                self._let_overtake(pools, after, now, overtaking)
                yield pools

    async def _worth_settling(self, pools: Sequence[DuePool]) -> list[DuePool]:
        """Leave out the pools that were settled before: their nodes may have been silent for long."""
        synced = [pool.pool_id for pool in pools if pool.synced]
        deploying = await self._store.workloads.deploying(synced) if synced else set()
        return [pool for pool in pools if not pool.synced or pool.pool_id in deploying]

    def _let_overtake(self, pools: Sequence[DuePool], after: int | None, now: int, overtaking: _Overtaking) -> None:
        """Open a lane past the owners that are heavy on a page, if there are such and they are not overtaken yet."""
        heavy = heavy_owners(pools, at_least=self._limits().workloads) - overtaking.owners
        if heavy and not self._in_order and len(overtaking.owners) < MOST_HEAVY_OWNERS:
            overtaking.owners |= heavy
            self._lanes.appendleft(self._besides(after, now, overtaking))

    def _cut(self, pools: Iterable[DuePool], now: int, *, full_scan: bool) -> Iterator[Batch]:
        """Cut pools into batches of as many workloads as are to be settled at once, but a pool at least."""
        batch: list[DuePool] = []
        workloads = 0
        for pool in pools:
            if batch and workloads + pool.weight > self._budget():
                yield self._batch(batch, now, full_scan=full_scan)
                batch, workloads = [], 0
            batch.append(pool)
            workloads += pool.weight
        if batch:
            yield self._batch(batch, now, full_scan=full_scan)

    def _batch(self, pools: Sequence[DuePool], now: int, *, full_scan: bool) -> Batch:
        """Return a batch; several pools may hold a few workloads more than their documents said, so there is room."""
        budget, limits = self._budget(), self._limits()
        self._growing = budget * 2
        return Batch(pools, now, limits if len(pools) > 1 else replace(limits, workloads=budget), full_scan)

    def _budget(self) -> int:
        return min(self._growing, self._limits().workloads)


def heavy_owners(pools: Sequence[DuePool], *, at_least: int) -> set[int]:
    """Name the owners who hold a large share of the workloads of some pools; none while there are few."""
    workloads: Counter[int] = Counter()
    for pool in pools:
        if pool.owner is not None:
            workloads[pool.owner] += pool.weight
    total = sum(pool.weight for pool in pools)
    return {owner for owner, number in workloads.items() if total > at_least and number > total * HEAVY_SHARE}


async def _alone(batch: Batch) -> AsyncGenerator[Batch, None]:
    yield batch
