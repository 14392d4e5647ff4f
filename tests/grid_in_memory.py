"""Pools in memory, as far as a pass asks the store for them; what it settles is remembered."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pool_daemon.capacity.exhaustion import Resource
from pool_daemon.capacity.pool import Pool, new_pool
from pool_daemon.errors import StoreConflictError
from pool_daemon.store.cases import Case, Decommissioned, Limits, Settlement
from pool_daemon.store.pools import Deadline, DuePage, DuePool, PoolResult
from pool_daemon.store.store import ExpiryStore, PoolLocks, Pools, PoolsInGrace, Settler, Workloads

PAGE = 1000
LIMITS = Limits(PAGE, PAGE)


@dataclass
class Grid:
    """Pools that run empty, of one workload each unless said otherwise.

    `on_settle` is called with the ids of each batch before it goes, and raises what is to fail. Another transaction has
    `locked` some. `read_by_id` pools were read by id, and `on_read_by_id` is called each time.
    """

    pools: dict[int, DuePool] = field(default_factory=dict)
    deploying_ids: set[int] = field(default_factory=set)
    resting_ids: set[int] | None = None
    attempts: list[list[int]] = field(default_factory=list)
    settled: list[int] = field(default_factory=list)
    locked: set[int] = field(default_factory=set)
    probed: list[list[int]] = field(default_factory=list)
    on_settle: Callable[[Sequence[int]], None] = lambda _: None
    read_by_id: int = 0
    on_read_by_id: Callable[[], None] = lambda: None

    def add(self, count: int, *, empty_at: int, owner: int = 1, workloads: int = 1, synced: bool = False) -> list[int]:
        pool_ids = list(range(len(self.pools) + 1, len(self.pools) + count + 1))
        self.pools |= {
            pool_id: DuePool(pool_id, owner, workloads, synced=synced, empty_at=empty_at) for pool_id in pool_ids
        }
        return pool_ids

    def move(self, pool_id: int, *, empty_at: int) -> None:
        self.pools[pool_id] = replace(self.pools[pool_id], empty_at=empty_at)

    @property
    def store(self) -> ExpiryStore:
        """The grid in the place of a store."""
        graces = None if self.resting_ids is None else self
        return GridStore(pools=self, workloads=self, decommissions=self, graces=graces, locks=self)

    async def due(self, *, after: int | None, until: int, besides: Sequence[int] = ()) -> AsyncGenerator[DuePage, None]:
        due = sorted(
            (
                pool
                for pool in self.pools.values()
                if (after is None or pool.empty_at > after) and pool.empty_at <= until and pool.owner not in besides
            ),
            key=lambda pool: (pool.empty_at, pool.pool_id),
        )
        for start in range(0, len(due), PAGE):
            yield DuePage(due[start : start + PAGE], [])

    async def due_among(self, pool_ids: Iterable[int], *, until: int) -> list[DuePool]:
        wanted = sorted(pool_ids)
        self.on_read_by_id()
        await asyncio.sleep(0)  # other tasks run meanwhile
        self.read_by_id += len(wanted)
        found = [self.pools[pool_id] for pool_id in wanted if pool_id in self.pools]
        return [pool for pool in found if pool.empty_at <= until]

    async def unreadable_deadlines(self) -> list[PoolResult]:
        return []

    async def next_deadline(self, ts: int) -> Deadline | None:
        upcoming = [Deadline(pool.pool_id, pool.empty_at) for pool in self.pools.values() if pool.empty_at > ts]
        return min(upcoming, key=lambda deadline: deadline.empty_at, default=None)

    async def pools_of(self, workload_ids: Sequence[Any]) -> list[int]:
        return [int(workload_id) // 100 for workload_id in workload_ids]

    async def deploying(self, pool_ids: Sequence[int]) -> set[int]:
        return self.deploying_ids & set(pool_ids)

    async def resting(self, pool_ids: Collection[int]) -> set[int]:
        return (self.resting_ids or set()).intersection(pool_ids)

    async def settle(
        self,
        pool_ids: Sequence[int],
        *,
        now: int,
        limits: Limits = LIMITS,
        after: Any = None,
    ) -> Settlement:
        del now, limits, after
        self.attempts.append(list(pool_ids))
        self.on_settle(pool_ids)
        if not self.locked.isdisjoint(pool_ids):
            raise StoreConflictError("locked")
        self.settled += pool_ids
        return Settlement(cases=[self._case(self.pools[pool_id]) for pool_id in pool_ids])

    async def locked_among(self, pool_ids: Sequence[int]) -> set[int]:
        self.probed.append(list(pool_ids))
        return self.locked.intersection(pool_ids)

    def _case(self, pool: DuePool) -> Case:
        gone = Decommissioned(pool.pool_id * 100, pool.pool_id, 1, 1, "node", (Resource.COMPUTE,), pool.empty_at)
        state = self._pool(pool)
        return Case(state, state, (gone,), (None,), (1000,))

    def _pool(self, pool: DuePool) -> Pool:
        return replace(new_pool(pool.pool_id, pool.owner or 0, 0, None, now=0), empty_at=pool.empty_at)


@dataclass(frozen=True, slots=True)
class GridStore:
    """The collections of a store, all of them one grid."""

    pools: Pools
    workloads: Workloads
    decommissions: Settler
    graces: PoolsInGrace | None
    locks: PoolLocks
