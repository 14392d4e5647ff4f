"""Dry-run evaluation: which due pools would lose workloads. Used by the brake."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from bson import Int64
from bson.raw_bson import RawBSONDocument

from pool_daemon.capacity import fields
from pool_daemon.capacity.cloud_units import FREE_TYPES, UNIT_FIELDS, cloud_units
from pool_daemon.capacity.pool import NEVER, Pool
from pool_daemon.capacity.verdict import Resource, exhausted_resources
from pool_daemon.errors import NotFiniteError, UnitsError, UnreadableDocumentError
from pool_daemon.store.client import Database
from pool_daemon.store.documents import RAW, decoded, pool_from_document
from pool_daemon.store.failures import translated
from pool_daemon.store.horizon import MOST, Horizon
from pool_daemon.store.paging import pages
from pool_daemon.store.pools import CAPACITY_POOLS
from pool_daemon.store.workloads import DEPLOYED, WORKLOADS

BATCH: Final = 250
"""Pools evaluated with one query."""

IDS: Final = 10_000
"""Ids that one query asks for."""

FIELD_BYTES: Final = 256
"""A longer field of a workload is not read: none from which units are computed is."""

POOL_FIELDS: Final = dict.fromkeys(
    ("cus", "sus", "ipv4us", "last_updated", "active_cu", "active_su", "active_ipv4", "empty_at", "customer_tid"), 1
)
WORKLOAD_FIELDS: Final[Mapping[str, Any]] = {
    "pool_id": 1,
    **{
        name: {"$cond": [{"$lte": [{"$bsonSize": {"value": f"${name}"}}, FIELD_BYTES]}, f"${name}", "$$REMOVE"]}
        for name in UNIT_FIELDS
    },
}
"""What is read: numbers alone, however long the documents are, so a page of a thousand is well below a megabyte."""


@dataclass(frozen=True, slots=True)
class AffectedPool:
    """A pool that would lose so many workloads if it were settled now; `empty_at` in unix seconds."""

    pool_id: int
    owner: int
    empty_at: int
    workloads: int


class ImpactReader:
    """Evaluates due pools without writing to them.

    A pool whose workloads are decommissioned already, are free, or use only what still lasts, loses nothing: it may
    stay due for years. Every method raises StoreUnavailableError when MongoDB is away, and StoreRefusedError.
    """

    def __init__(self, *, database: Database) -> None:
        self._pools = database.collection(CAPACITY_POOLS, RAW)
        self._owners = database.collection(CAPACITY_POOLS)
        self._workloads = database.collection(WORKLOADS, RAW)
        self._horizon = Horizon(database=database)

    async def count_lasting(self, *, now: int) -> int:
        """Count, up to a million, the pools that something drains and that end after the unix second `now`."""
        return await self._horizon.count(after=now, until=NEVER - 1, most=MOST)

    async def owners(self, pool_ids: Sequence[int], *, now: int) -> Counter[int]:
        """Count by owner those of some pools that are due, have workloads, and were not synced since."""
        found: Counter[int] = Counter()
        for start in range(0, len(pool_ids), IDS):
            pipeline: list[dict[str, Any]] = [
                {"$match": {"_id": {"$in": _ids(pool_ids[start : start + IDS])}, "empty_at": {"$lte": Int64(now)}}},
                {"$match": {"active_workload_ids.0": {"$exists": True}}},
                {"$match": {"$expr": {"$lte": ["$last_updated", "$empty_at"]}}},
                {"$group": {"_id": "$customer_tid", "pools": {"$sum": 1}}},
            ]
            with translated("counting pools by owner"):
                for group in await self._owners.aggregate(pipeline).to_list(None):
                    found[group["_id"] if isinstance(group["_id"], int) else 0] += group["pools"]
        return found

    async def of(self, pool_ids: Sequence[int], *, now: int) -> list[AffectedPool]:
        """Return those of the pools that would lose something if they were settled at the unix second `now`."""
        affected: list[AffectedPool] = []
        for start in range(0, len(pool_ids), BATCH):
            affected += await self._evaluate(pool_ids[start : start + BATCH], now)
        return affected

    async def _evaluate(self, pool_ids: Sequence[int], now: int) -> list[AffectedPool]:
        query = {"_id": {"$in": _ids(pool_ids)}, "empty_at": {"$lte": Int64(now)}}
        with translated("reading pools that are due"):
            raws = await self._pools.find(query, POOL_FIELDS).to_list(None)
        due = {pool.pool_id: (pool, empty_at) for raw in raws for pool, empty_at in _synced(raw, now)}
        exhausted = {pool_id: exhausted_resources(pool) for pool_id, (pool, _) in due.items()}
        losing: Counter[int] = Counter()
        async with aclosing(pages(self._deployed(list(due)), doing="reading deployed workloads")) as found:
            async for page in found:
                losing.update(pool_id for raw in page for pool_id in _going(raw, exhausted))
        return [
            AffectedPool(pool_id, due[pool_id][0].customer_tid, due[pool_id][1], number)
            for pool_id, number in losing.items()
        ]

    def _deployed(self, pool_ids: Sequence[int]) -> Any:
        query = {
            "pool_id": {"$in": _ids(pool_ids)},
            "next_action": DEPLOYED,
            "workload_type": {"$nin": sorted(FREE_TYPES)},
        }
        return self._workloads.find(query, WORKLOAD_FIELDS, batch_size=1000)


def _ids(pool_ids: Sequence[int]) -> list[Int64]:
    return [Int64(pool_id) for pool_id in pool_ids]


def _synced(raw: RawBSONDocument, now: int) -> Iterator[tuple[Pool, int]]:
    """Yield a pool as it is once synced, and its end as it was read; nothing if it cannot be read."""
    try:
        pool = pool_from_document(decoded(raw))
        empty_at = pool.empty_at
        pool.sync_current_capacity(now)
    except (UnreadableDocumentError, NotFiniteError):
        return
    yield pool, empty_at


def _going(raw: RawBSONDocument, exhausted: Mapping[int, frozenset[Resource]]) -> Iterator[int]:
    """Yield the pool of a workload that uses something exhausted; nothing if it stays, or cannot be read."""
    try:
        document = decoded(raw)
        pool_id = fields.whole(document, "pool_id", UnreadableDocumentError)
        units = cloud_units(document)
    except (UnreadableDocumentError, UnitsError):
        return
    if any(rate > 0 and resource in exhausted[pool_id] for resource, rate in zip(Resource, units, strict=True)):
        yield pool_id
