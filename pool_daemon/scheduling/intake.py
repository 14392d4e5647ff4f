"""What a pass works through, cut into batches: what was due when it began, and what falls due while it lasts.

All that is due is read once, longest due first, and that alone makes the pass complete. Lanes beside it only decide
who waits for whom: what was asked for by id, what has fallen due since, the rest of a pool too large for one
transaction, and everybody who would otherwise wait behind one owner's crowd. The lanes take turns, a batch each.
"""

import math
from collections import Counter, deque
from collections.abc import AsyncGenerator, Collection, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from pool_daemon.clock import Clock
from pool_daemon.errors import ConfigurationError, StoreError, StoreRefusedError, StoreUnavailableError
from pool_daemon.scheduling.agenda import Agenda, Work
from pool_daemon.scheduling.reports import Reports
from pool_daemon.scheduling.restraints import Origin, Restraints
from pool_daemon.scheduling.throttle import Throttle
from pool_daemon.store.pools import DuePool
from pool_daemon.store.store import Store

FIRST_WORKLOADS: Final = 50
"""Workloads in the first batch of a pass; each batch after it may take twice as many, up to the setting. The first
are settled while a full batch would still be read, and in a storm nothing is lost by it."""

CROWD_SHARE: Final = 0.2
"""An owner with more than this share of the workloads on one page of what is due is overtaken by everybody else."""

MOST_CROWDS: Final = 8
"""So many owners are overtaken in one pass at most: each costs the server a scan of what is due."""

MOST_OVERTAKING: Final = 10_000
"""Pools that overtake one crowd at most. Their ids are kept until the pass ends, so this bounds its memory."""

NOBODYS_FAULT: Final = (StoreUnavailableError, StoreRefusedError, ConfigurationError)
"""Errors that say nothing about the batch they came with: the whole pass fails, and no pool is blamed."""

log = structlog.get_logger("pool_daemon.expirer")


@dataclass(frozen=True, slots=True)
class Batch:
    """Pools to be settled together as of the unix second `now`.

    `most` workloads may go in one transaction. A single pool that holds more than fits is continued behind the workload
    id `after`.
    """

    pool_ids: Sequence[int]
    now: int
    most: int
    origin: Origin
    after: Any = None


@dataclass(slots=True)
class _Overtaking:
    """Who is overtaken while some of what is due is worked through, and the pools that have overtaken them.

    Those overtaken are handed out page by page; `handed_out` are the pools of the present page that have been.
    """

    owners: set[int] = field(default_factory=set)
    pool_ids: set[int] = field(default_factory=set)
    handed_out: set[int] = field(default_factory=set)

    def waiting(self, pools: Iterable[DuePool]) -> list[DuePool]:
        """Return those of some pools whose turn has not come yet."""
        return [pool for pool in pools if pool.pool_id not in self.pool_ids and pool.pool_id not in self.handed_out]

    def hand_out(self, page: Iterable[DuePool]) -> Iterator[DuePool]:
        """Yield the pools of a page, but those that have overtaken by the time their turn comes."""
        self.handed_out.clear()
        for pool in page:
            if pool.pool_id not in self.pool_ids:
                self.handed_out.add(pool.pool_id)
                yield pool


class Intake:
    """The batches of one pass that began at the unix second `now`, and everything it took off the agenda.

    The throttle says how many workloads one batch may take. While it is engaged, nobody overtakes anybody: what is due
    longest goes first.
    """

    def __init__(
        self,
        *,
        agenda: Agenda,
        store: Store,
        restraints: Restraints,
        reports: Reports,
        clock: Clock,
        throttle: Throttle,
    ) -> None:
        self._agenda = agenda
        self._store = store
        self._restraints = restraints
        self._reports = reports
        self._clock = clock
        self._batch_workloads = throttle.batch_workloads
        self._in_order = throttle.engaged
        self._budget = min(FIRST_WORKLOADS, self._batch_workloads)
        self._taken: list[Work] = []
        self._began_at = 0
        self._until = 0
        self._lanes: deque[AsyncGenerator[Batch, None]] = deque()

    @property
    def until(self) -> int:
        """The unix second up to which everything due has been taken up."""
        return self._until

    async def begin(self, now: int) -> None:
        """Take what is due by the unix second `now` off the agenda.

        Raises StoreUnavailableError or StoreRefusedError; call `put_back` then.
        """
        self._began_at = now
        await self._take(self._agenda.take(now), now)

    async def next(self) -> Batch | None:
        """Return the next batch; None if there is none now, but what is at work may yet leave a rest.

        Whatever has fallen due or was asked for since is taken up, once a second, but not while a rescan is wanted:
        that is for the pass after this one, which must not be put off. Raises StoreUnavailableError or
        StoreRefusedError; call `put_back` then.
        """
        now = math.floor(self._clock.now())
        # The gate knows whether this very reading of the clock can be trusted; after an await it speaks of another.
        if now > self._until and self._takes_more():
            await self._take(self._agenda.take_more(now, after=self._until), now)
        while self._lanes:
            lane = self._lanes.popleft()
            batch = await anext(lane, None)
            if batch is not None:
                self._take_turns(lane)
                return batch
        return None

    def go_on(self, batch: Batch, *, after: Any) -> None:
        """Have the rest of a single pool, behind the workload id `after`, settled in its turn."""
        self._take_turns(_alone(Batch(batch.pool_ids, batch.now, self._next_budget(), batch.origin, after)))

    def seconds_to_fresh(self) -> float | None:
        """Return how long it is until something else can have fallen due; None if that is not taken up any more."""
        return max(0.0, self._until + 1 - self._clock.now()) if self._takes_more() else None

    def finished(self) -> None:
        """Note on the agenda that everything taken has been looked at."""
        self._agenda.finished(self._until)
        if self._taken[0].after is None:
            self._agenda.rescanned(self._began_at)

    def put_back(self) -> None:
        """Put everything that was taken back on the agenda."""
        for work in self._taken:
            self._agenda.put_back(work)

    async def close(self) -> None:
        """Let go of what was being read."""
        for lane in self._lanes:
            await lane.aclose()

    def _takes_more(self) -> bool:
        return self._restraints.gate.closed_by() is None and not self._agenda.rescan_wanted

    async def _take(self, work: Work, now: int) -> None:
        """Open the lanes of some work; the brake looks at it before any of it is settled."""
        self._taken.append(work)
        self._until = now
        if work.after is None:
            await self._store.decommissions.make_up()
            await self._report_unreadable_deadlines()
        self._reports.asked_for(work.asked_for)
        written = await self._pools_written(work)
        await self._restraints.brake.inspect(work.after, now, written)
        lanes = (
            self._by_id(written, now, Origin.WRITTEN),
            self._by_id(work.asked_for.keys() - written, now, Origin.DUE),
            self._due(work.after, now, _Overtaking()),
        )
        if self._in_order:
            self._lanes.extend(lanes)
        else:
            self._lanes.extendleft(reversed(lanes))

    def _take_turns(self, lane: AsyncGenerator[Batch, None]) -> None:
        """Put a lane that may hold more behind all others; in order, it goes on until it is empty."""
        if self._in_order:
            self._lanes.appendleft(lane)
        else:
            self._lanes.append(lane)

    async def _report_unreadable_deadlines(self) -> None:
        """Tell which pools will never be found due; if that cannot be found out now, what is due comes first."""
        try:
            self._reports.unreadable_pools(await self._store.pools.unreadable_deadlines())
        except NOBODYS_FAULT:
            raise
        except StoreError as error:
            log.debug("unreadable_deadlines_unknown", reason=str(error))

    async def _pools_written(self, work: Work) -> set[int]:
        """Return the ids of the pools that somebody has changed, or whose workloads."""
        pool_ids = set(work.written)
        if work.workload_ids:
            pool_ids.update(await self._store.workloads.pools_of(list(work.workload_ids)))
        return pool_ids

    async def _by_id(self, pool_ids: Collection[int], now: int, origin: Origin) -> AsyncGenerator[Batch, None]:
        for batch in self._cut([DuePool(pool_id) for pool_id in sorted(pool_ids)], now, origin):
            yield batch

    async def _due(self, after: int | None, now: int, overtaking: _Overtaking) -> AsyncGenerator[Batch, None]:
        """Yield everything that ran empty in (after, now], longest due first; crowds are overtaken meanwhile."""
        async with aclosing(self._waiting(after, now, overtaking)) as pages:
            async for pools in pages:
                for batch in self._cut(overtaking.hand_out(pools), now, _origin(after)):
                    yield batch

    async def _worth_settling(self, pools: Sequence[DuePool]) -> list[DuePool]:
        """Leave out those of some pools that were settled before: nodes may have been silent about them for long."""
        synced = [pool.pool_id for pool in pools if pool.synced]
        deploying = await self._store.workloads.deploying(synced) if synced else set()
        return [pool for pool in pools if not pool.synced or pool.pool_id in deploying]

    async def _besides(self, after: int | None, now: int, overtaking: _Overtaking) -> AsyncGenerator[Batch, None]:
        """Yield the first that are due of everybody who is not overtaken; among them there may be another crowd."""
        left = MOST_OVERTAKING
        async with aclosing(self._waiting(after, now, overtaking, besides=sorted(overtaking.owners))) as pages:
            async for pools in pages:
                overtaking.pool_ids.update(pool.pool_id for pool in pools)
                for batch in self._cut(pools, now, _origin(after)):
                    yield batch
                left -= len(pools)
                if left <= 0:
                    return

    async def _waiting(
        self, after: int | None, now: int, overtaking: _Overtaking, *, besides: Sequence[int] = ()
    ) -> AsyncGenerator[list[DuePool], None]:
        """Yield page by page what is due and has not overtaken yet; who crowds a page is overtaken from then on."""
        async with aclosing(self._store.pools.due(after=after, until=now, besides=besides)) as pages:
            async for page in pages:
                self._reports.unreadable_pools(page.unreadable)
                pools = overtaking.waiting(page.pools)
                if after is None:
                    pools = await self._worth_settling(pools)
                self._let_overtake(pools, after, now, overtaking)
                yield pools

    def _let_overtake(self, pools: Sequence[DuePool], after: int | None, now: int, overtaking: _Overtaking) -> None:
        """Open a lane past the owners that crowd a page, if there are such and they are not overtaken already."""
        crowds = _crowds(pools, at_least=self._batch_workloads) - overtaking.owners
        if crowds and not self._in_order and len(overtaking.owners) < MOST_CROWDS:
            overtaking.owners |= crowds
            self._lanes.appendleft(self._besides(after, now, overtaking))

    def _cut(self, pools: Iterable[DuePool], now: int, origin: Origin) -> Iterator[Batch]:
        """Cut pools into batches of as many workloads as are to be settled at once, but a pool at least."""
        batch: list[int] = []
        workloads = 0
        for pool in pools:
            if batch and workloads + pool.weight > self._budget:
                yield self._batch(batch, now, origin)
                batch, workloads = [], 0
            batch.append(pool.pool_id)
            workloads += pool.weight
        if batch:
            yield self._batch(batch, now, origin)

    def _batch(self, pool_ids: Sequence[int], now: int, origin: Origin) -> Batch:
        """Return a batch; several pools may hold a few workloads more than their documents said, so there is room."""
        budget = self._next_budget()
        return Batch(pool_ids, now, budget if len(pool_ids) == 1 else self._batch_workloads, origin)

    def _next_budget(self) -> int:
        budget, self._budget = self._budget, min(self._budget * 2, self._batch_workloads)
        return budget


def _crowds(pools: Sequence[DuePool], *, at_least: int) -> set[int]:
    """Name the owners who hold a large share of the workloads of some pools; none while there are few."""
    workloads: Counter[int] = Counter()
    for pool in pools:
        if pool.owner is not None:
            workloads[pool.owner] += pool.weight
    total = sum(pool.weight for pool in pools)
    return {owner for owner, number in workloads.items() if total > at_least and number > total * CROWD_SHARE}


def _origin(after: int | None) -> Origin:
    """Say why that is looked at which ran empty after a unix second, or at any time."""
    return Origin.OVERDUE if after is None else Origin.DUE


async def _alone(batch: Batch) -> AsyncGenerator[Batch, None]:
    yield batch
