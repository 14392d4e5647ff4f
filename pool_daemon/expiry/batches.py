"""Cuts due pools into batches: by workloads, in turns, past heavy owners.

Everything due is read once, longest due first, and that alone makes a pass complete. Lanes beside it only change the
order. There is one for pools added by id, for pools that have fallen due since, for the rest of a pool too large for
one transaction, and for all other owners' pools behind those of a heavy one. The lanes take turns, a batch each. Each
reads a page when it is needed, and gives up its turn after one in which there is nothing to settle, so that no number
of pools delays those of another lane.
"""

import math
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pool_daemon.store.cases import Limits, Settlement
from pool_daemon.store.pools import DuePool, PoolResult
from pool_daemon.store.store import ExpiryStore

FIRST_WORKLOADS: Final = 50
"""Workloads in the first batch of a pass; each batch after it may take twice as many, up to the setting. So the first
batch commits while a full batch would still be read, and a storm takes no longer."""

HEAVY_SHARE: Final = 0.2
"""An owner with more than this share of the workloads on one page of due pools is heavy: all other owners overtake
it."""

MOST_HEAVY_OWNERS: Final = 8
"""Heavy owners that are overtaken in one pass; each costs the server another read of what is due."""

PIECES: Final = 8
"""Pieces into which a batch that conflicts or fails is cut: eight at once find one pool among two thousand in four
rounds, and with fewer rounds the other pools of the batch wait less."""

MOST_OVERTAKING: Final = 10_000
"""Pools that may overtake the heavy owners. Their ids are kept until the pass ends, so this bounds its memory."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Pools to be settled together as of the unix second `now`, by one transaction.

    `limits` bounds how much of them it takes. A single pool of which only a part fitted is continued behind the
    workload id `after`. `full_scan` says that a full scan found the pools. There are none if there was nothing to
    settle on a page of due pools.
    """

    pools: Sequence[DuePool]
    now: int
    limits: Limits
    full_scan: bool = False
    after: Any = None

    @property
    def pool_ids(self) -> list[int]:
        """The ids of the pools."""
        return [pool.pool_id for pool in self.pools]

    @property
    def protecting_limits(self) -> Limits:
        """The limits of one transaction, with the pools that must not lose a workload."""
        return replace(self.limits, protected=frozenset(pool.pool_id for pool in self.pools if pool.protected))

    def split(self) -> "list[Batch]":
        """Return the batch in pieces: of several pools, or of one with half the limits; none at the smallest limits."""
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
        """Return what a settlement has left of the batch: other pools, and the workloads behind those that fitted.

        Workloads that do not fit are read all the same. So where documents are large, the next read takes at most twice
        as many workloads as fitted this time; where they are not, twice as many as before, up to `most`.
        """
        workloads = 2 * (len(settlement.decommissioned) if settlement.is_full else self.limits.workloads)
        smaller = replace(self, limits=replace(self.limits, workloads=min(max(1, workloads), most)))
        left = [smaller.of(set(settlement.left_over))] if settlement.left_over else []
        if settlement.rest is not None:
            left.append(replace(smaller.of({settlement.rest.pool_id}), after=settlement.rest.after))
        return left


@dataclass(slots=True)
class _Overtaking:
    """The heavy owners of a lane, and the pools of other owners that have overtaken theirs.

    Pages are handed out pool by pool; `handed_out` are the pools of the current page that have been.
    """

    owners: set[int] = field(default_factory=set)
    pool_ids: set[int] = field(default_factory=set)
    handed_out: set[int] = field(default_factory=set)

    def waiting(self, pools: Iterable[DuePool]) -> list[DuePool]:
        """Return those of some pools whose turn has not come yet."""
        return [pool for pool in pools if pool.pool_id not in self.pool_ids and pool.pool_id not in self.handed_out]

    def hand_out(self, page: Iterable[DuePool]) -> Iterator[DuePool]:
        """Yield the pools of a page, except those that have overtaken before their turn."""
        self.handed_out.clear()
        for pool in page:
            if pool.pool_id not in self.pool_ids:
                self.handed_out.add(pool.pool_id)
                yield pool


class Batches:
    """The batches of one pass.

    `limits` returns the current limits of one batch. With `in_order`, pools go longest due first, and none overtakes.
    `on_unreadable` is called with documents whose id is invalid. `is_entered` returns whether a check by id is ahead.
    """

    def __init__(
        self,
        *,
        store: ExpiryStore,
        limits: Callable[[], Limits],
        in_order: bool,
        on_unreadable: Callable[[Iterable[PoolResult]], None],
        is_entered: Callable[[int], bool] = lambda _: False,
    ) -> None:
        self._store = store
        self._limits = limits
        self._in_order = in_order
        self._on_unreadable = on_unreadable
        self._is_entered = is_entered
        self._growing = FIRST_WORKLOADS
        self._lanes: deque[AsyncGenerator[Batch, None]] = deque()
        self._fresh = 0

    def add_due(self, *, after: int | None, now: int) -> None:
        """Open a lane for pools that ran empty after the unix second `after`, or for all due ones if that is None."""
        self._open(self._due(after, now, _Overtaking()))

    def add_by_id(self, pages: AsyncGenerator[list[DuePool], None], *, now: int) -> None:
        """Open a lane for due pools that were added by id, which `pages` yields.

        It is opened before that of the pools that have just run empty, which so goes first: of those by id there may be
        thousands that are tried in vain.
        """
        self._open(self._by_id(pages, now))

    def add(self, *batches: Batch) -> None:
        """Add batches, to be settled in their turn."""
        for batch in reversed(batches) if self._in_order else batches:
            self._take_turns(_alone(batch))

    def start_small(self) -> None:
        """Make the next batches small again: where pools are locked, whole batches are read in vain."""
        self._growing = FIRST_WORKLOADS

    async def take(self, *, fresh_only: bool = False) -> Batch | None:
        """Return the next batch; None if there is none, until one is added.

        At most one page is read for it. With `fresh_only` it is the first of pools that were added or ran empty only
        just now, or None. Raises StoreUnavailableError or StoreRefusedError.
        """
        while self._lanes and (self._fresh or not fresh_only):
            lane = self._lanes.popleft()
            self._fresh = max(0, self._fresh - 1)
            batch = await anext(lane, None)
            if batch is not None:
                self._take_turns(lane)
                return batch
        return None

    async def close(self) -> None:
        """Close the reads in progress."""
        for lane in self._lanes:
            await lane.aclose()

    def _open(self, lane: AsyncGenerator[Batch, None]) -> None:
        """Open a lane of pools that have just come, in front of all others; with `in_order`, behind them."""
        if self._in_order:
            self._lanes.append(lane)
        else:
            self._lanes.appendleft(lane)
            self._fresh += 1

    def _take_turns(self, lane: AsyncGenerator[Batch, None]) -> None:
        """Put a lane behind all others, since it may hold more; with `in_order`, in front, until it is empty."""
        if self._in_order:
            self._lanes.appendleft(lane)
        else:
            self._lanes.append(lane)

    async def _by_id(self, pages: AsyncGenerator[list[DuePool], None], now: int) -> AsyncGenerator[Batch, None]:
        async with aclosing(pages):
            async for pools in pages:
                for batch in self.cut(pools, now):
                    yield batch

    async def _due(self, after: int | None, now: int, overtaking: _Overtaking) -> AsyncGenerator[Batch, None]:
        """Yield all pools that ran empty in (after, now], longest due first, without those that overtake meanwhile."""
        async with aclosing(self._waiting(after, now, overtaking)) as pages:
            async for pools in pages:
                for batch in self.cut(overtaking.hand_out(pools), now, full_scan=after is None):
                    yield batch

    async def _besides(self, after: int | None, now: int, overtaking: _Overtaking) -> AsyncGenerator[Batch, None]:
        """Yield the first due pools of owners that are not overtaken; another heavy one may be among them."""
        left = MOST_OVERTAKING
        async with aclosing(self._waiting(after, now, overtaking, besides=sorted(overtaking.owners))) as pages:
            async for pools in pages:
                overtaking.pool_ids.update(pool.pool_id for pool in pools)
                for batch in self.cut(pools, now, full_scan=after is None):
                    yield batch
                left -= len(pools)
                if left <= 0:
                    return

    async def _waiting(
        self, after: int | None, now: int, overtaking: _Overtaking, *, besides: Collection[int] = ()
    ) -> AsyncGenerator[list[DuePool], None]:
        """Yield due pools that have not overtaken, page by page; an owner heavy on a page is overtaken from then on."""
        async with aclosing(self._store.pools.due(after=after, until=now, besides=list(besides))) as pages:
            async for page in pages:
                self._on_unreadable(page.unreadable)
                pools = overtaking.waiting(page.pools)
                if after is None:
                    pools = await self._worth_settling(pools)
                self._let_overtake(pools, after, now, overtaking)
                yield pools

    async def _worth_settling(self, pools: Sequence[DuePool]) -> list[DuePool]:
        """Leave out pools that were settled before and have no deployed workload: their nodes may never answer.

        Likewise those in grace that are checked by id when it ends.
        """
        synced = [pool.pool_id for pool in pools if pool.synced]
        deploying = await self._store.workloads.deploying(synced) if synced else set()
        if self._store.graces is not None:
            awaited = [pool_id for pool_id in deploying if self._is_entered(pool_id)]
            deploying -= await self._store.graces.resting(awaited)
        return [pool for pool in pools if not pool.synced or pool.pool_id in deploying]

    def _let_overtake(self, pools: Sequence[DuePool], after: int | None, now: int, overtaking: _Overtaking) -> None:
        """Open a lane past the heavy owners of a page that are not overtaken yet, if there are any."""
        heavy = heavy_owners(pools, at_least=self._limits().workloads) - overtaking.owners
        if heavy and not self._in_order and len(overtaking.owners) < MOST_HEAVY_OWNERS:
            overtaking.owners |= heavy
            self._lanes.appendleft(self._besides(after, now, overtaking))

    def cut(self, pools: Iterable[DuePool], now: int, *, full_scan: bool = False) -> Iterator[Batch]:
        """Cut a page of pools into batches within the budget of workloads, but of at least one pool if there is any."""
        batch: list[DuePool] = []
        workloads = 0
        for pool in pools:
            if batch and workloads + pool.weight > self._budget():
                yield self._batch(batch, now, full_scan=full_scan)
                batch, workloads = [], 0
            batch.append(pool)
            workloads += pool.weight
        yield self._batch(batch, now, full_scan=full_scan)

    def _batch(self, pools: Sequence[DuePool], now: int, *, full_scan: bool) -> Batch:
        """Return a batch; with several pools it has room for more workloads than their documents list."""
        budget, limits = self._budget(), self._limits()
        self._growing = budget * 2 if pools else budget
        return Batch(pools, now, limits if len(pools) > 1 else replace(limits, workloads=budget), full_scan)

    def _budget(self) -> int:
        return min(self._growing, self._limits().workloads)


def heavy_owners(pools: Sequence[DuePool], *, at_least: int) -> set[int]:
    """Return the owners of a large share of the workloads of some pools; none while the total is small."""
    total = sum(pool.weight for pool in pools)
    if total <= at_least:
        return set()
    workloads: Counter[int] = Counter()
    for pool in pools:
        if pool.owner is not None:
            workloads[pool.owner] += pool.weight
    return {owner for owner, number in workloads.items() if number > total * HEAVY_SHARE}


async def _alone(batch: Batch) -> AsyncGenerator[Batch, None]:
    yield batch
