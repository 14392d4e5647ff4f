"""Upcoming expirations: how many pools run empty, whose, and which come first. Only indexes are counted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bson import Int64

from pool_daemon.capacity import fields
from pool_daemon.capacity.pool import NEVER
from pool_daemon.errors import UnreadableDocumentError
from pool_daemon.store import density
from pool_daemon.store.client import Database
from pool_daemon.store.density import Density
from pool_daemon.store.error_mapping import translated
from pool_daemon.store.pools import CAPACITY_POOLS, PoolStore
from pool_daemon.store.workloads import BATCH, WorkloadStore

MOST: Final = 1_000_000
"""Counting stops here. The server counts 5 million index entries a second, so that many take 0.2 s."""


@dataclass(frozen=True, slots=True)
class Upcoming:
    """A pool that runs empty at the unix second `empty_at`, as far as a timeline shows it."""

    pool_id: int
    customer_tid: int
    empty_at: int


class PoolCounts:
    """Reads upcoming expirations in `capacity-pools`, at a bounded cost however many pools there are.

    Every method raises StoreUnavailableError when MongoDB is away, and StoreRefusedError when it refuses.
    """

    def __init__(self, *, database: Database) -> None:
        self._database = database
        self._pools = database.collection(CAPACITY_POOLS)
        self._pool_store = PoolStore(database=database)
        self._workloads = WorkloadStore(database=database)

    async def expiring_counts(self, now: int, horizons: Mapping[str, int]) -> dict[str, int]:
        """Count the pools that run empty after the unix second `now` and within each horizon (seconds), by its name.

        Each count includes the nearer horizons; none exceeds `MOST`.
        """
        counts = {}
        total, start = 0, now
        for name, seconds in sorted(horizons.items(), key=lambda horizon: horizon[1]):
            total += await self.count(after=start, until=now + seconds, most=MOST - total)
            counts[name] = total
            start = now + seconds
        return counts

    async def density(self, now: int) -> Density:
        """Count the pools that run empty after the unix second `now` by intervals, in one query of bounded length."""
        with translated("counting pools by intervals"):
            groups = await self._pools.aggregate(density.pipeline(now, most=density.MOST)).to_list(None)
        return density.density(groups, now=now, most=density.MOST)

    async def due_count(self, *, after: int | None, until: int) -> int:
        """Count the pools whose `empty_at` lies in (after, until], up to `MOST`; no lower bound if None."""
        return await self.count(after=after, until=until, most=MOST)

    async def upcoming(self, now: int, *, limit: int) -> list[Upcoming]:
        """Return the first pools to run empty after the unix second `now`; unreadable ones are left out."""
        query = {"empty_at": {"$gt": Int64(now), "$lt": Int64(NEVER)}}
        cursor = self._pools.find(query, {"customer_tid": 1, "empty_at": 1}, sort=[("empty_at", 1)], limit=limit)
        with translated("looking at what runs empty next"):
            documents = await cursor.to_list(limit)
        return [pool for document in documents if (pool := _upcoming(document)) is not None]

    async def due_owners(self, pool_ids: Sequence[int], *, now: int) -> dict[int, int]:
        """Return, by id, the owners of those pools that are due and have a deployed workload; 0 if unreadable."""
        found: dict[int, int] = {}
        for start in range(0, len(pool_ids), BATCH):
            deploying = await self._workloads.deploying(pool_ids[start : start + BATCH])
            due = await self._pool_store.due_among(deploying, until=now)
            found |= {pool.pool_id: pool.owner or 0 for pool in due}
        return found

    async def count(self, *, after: int | None, until: int, most: int) -> int:
        """Count the pools whose `empty_at` lies in (after, until], up to `most`; no lower bound if None."""
        if most <= 0:
            return 0
        bounds = {"$lte": Int64(until)} | ({} if after is None else {"$gt": Int64(after)})
        with translated("counting pools"):
            # The plain command, because the driver's count_documents aggregates, which takes 50 % longer.
            answer = await self._database.motor.command(
                {"count": CAPACITY_POOLS, "query": {"empty_at": bounds}, "limit": most}
            )
        return int(answer["n"])


def _upcoming(document: Mapping[str, Any]) -> Upcoming | None:
    try:
        pool_id, customer_tid, empty_at = (
            fields.whole(document, name, UnreadableDocumentError) for name in ("_id", "customer_tid", "empty_at")
        )
    except UnreadableDocumentError:
        return None
    return Upcoming(pool_id, customer_tid, empty_at)
