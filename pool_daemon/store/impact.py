"""Dry-run evaluation: which due pools would lose workloads. Used by the brake."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bson import Int64

from pool_daemon.capacity.pool import NEVER
from pool_daemon.store.cases import CaseReader, Limits
from pool_daemon.store.client import Database
from pool_daemon.store.error_mapping import translated
from pool_daemon.store.excerpts import number_only
from pool_daemon.store.pool_counts import MOST, PoolCounts
from pool_daemon.store.pools import CAPACITY_POOLS
from pool_daemon.store.workloads import WorkloadStore

IDS: Final = 10_000
"""Ids that one query asks for."""

PORTION: Final = Limits(workloads=500, size=sys.maxsize)
"""Pools, and workloads, that are evaluated at once. Nothing is copied; the documents read along are at most four
megabytes."""


@dataclass(frozen=True, slots=True)
class AffectedPool:
    """A pool that would lose so many workloads if it were settled now; `empty_at` in unix seconds."""

    pool_id: int
    owner: int
    empty_at: int
    workloads: int


class ImpactReader:
    """Evaluates due pools as a settlement does, without writing to them.

    A pool whose workloads are decommissioned already, are free, or use only resources that still last, loses nothing:
    it may stay due for years. Every method raises StoreUnavailableError when MongoDB is away, and StoreRefusedError
    when it refuses.
    """

    def __init__(self, *, database: Database) -> None:
        self._pools = database.collection(CAPACITY_POOLS)
        self._workloads = WorkloadStore(database=database)
        self._cases = CaseReader(database=database)
        self._pool_counts = PoolCounts(database=database)

    async def count_lasting(self, *, now: int, most: int) -> int:
        """Count, up to `most`, the pools that have a drain and end after the unix second `now`."""
        return await self._pool_counts.count(after=now, until=NEVER - 1, most=min(most, MOST))

    async def owners(self, pool_ids: Sequence[int], *, now: int) -> dict[int, int]:
        """Return, by id, the owners of those pools that are due and have a deployed workload; 0 if unreadable."""
        found: dict[int, int] = {}
        for start in range(0, len(pool_ids), IDS):
            deploying = await self._workloads.deploying(pool_ids[start : start + IDS])
            ids = [Int64(pool_id) for pool_id in deploying]
            due = {"_id": {"$in": ids}, "empty_at": {"$lte": Int64(now)}}
            with translated("reading the owners of pools"):
                for pool in await self._pools.find(due, {"customer_tid": number_only("customer_tid")}).to_list(None):
                    owner = pool.get("customer_tid")
                    found[pool["_id"]] = owner if isinstance(owner, int) else 0
        return found

    async def of(self, pool_ids: Sequence[int], *, now: int) -> dict[int, AffectedPool]:
        """Return, by id, those of the pools that would lose something if they were settled at the unix second `now`."""
        affected: dict[int, AffectedPool] = {}
        most = PORTION.workloads
        portions = [(pool_ids[start : start + most], None) for start in range(0, len(pool_ids), most)]
        while portions:
            ids, after = portions.pop()
            found = await self._cases.read(ids, now=now, due_by=now, limits=PORTION, after=after, session=None)
            for case in found.cases:
                pool, number = case.as_read, len(case.gone)
                if pool.pool_id in affected:
                    number += affected[pool.pool_id].workloads
                if number:
                    affected[pool.pool_id] = AffectedPool(pool.pool_id, pool.customer_tid, pool.empty_at, number)
            if found.left_over:
                portions.append((found.left_over, None))
            if found.rest is not None:
                portions.append(([found.rest.pool_id], found.rest.after))
        return affected
