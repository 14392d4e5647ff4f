"""Reconciliation: every pool, page by page, with what its workloads say of it.

Nothing here holds a lock or a cursor between two calls. A pool is read before its workloads, and written only if it
is still as it was read: whatever else happened in between, no change of another writer is undone.
"""

import asyncio
import math
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from bson import Int64
from bson.raw_bson import RawBSONDocument

from pool_daemon.capacity import fields
from pool_daemon.capacity.cloud_units import UNIT_FIELDS, CloudUnits, cloud_units
from pool_daemon.capacity.drift import Drift, counts, find_drift, mended
from pool_daemon.capacity.pool import Pool
from pool_daemon.capacity.verdict import judge
from pool_daemon.errors import NotFiniteError, UnitsError, UnreadableDocumentError
from pool_daemon.store.cases import Unreadable
from pool_daemon.store.client import Database
from pool_daemon.store.documents import RAW, decoded, document_id, pool_from_document
from pool_daemon.store.failures import translated
from pool_daemon.store.pools import CAPACITY_POOLS, PoolStore
from pool_daemon.store.vanished_orders import VanishedOrders
from pool_daemon.store.workloads import DEPLOYED, WORKLOADS

BEGINNING: Final = -math.inf
"""The place before the first pool: every number lies behind it, and a document whose id is none is no pool."""

WORKLOADS_AT_ONCE: Final = 2000
"""Workloads a query, so that a page of crowded pools needs no more memory than any other."""

SLICE: Final = 200
"""Documents worked through at a stretch: about two milliseconds."""

PAUSE_SECONDS: Final = 0.0005
"""Between two slices. Yielding to the loop alone is not enough: each answer of the database comes through another
thread, which gets its turn within 5 ms while this one computes, and at once while it sleeps. Ten queries in a row, as
in a pass, take 17 ms beside a walk with this pause, and 50 ms without."""

WORKLOAD_FIELDS: Final[Mapping[str, int]] = dict.fromkeys(("pool_id", "next_action", *UNIT_FIELDS), 1)
"""All that is read of a workload."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Drifted:
    """A pool as it was read, and what is wrong with it."""

    pool: Pool
    drift: Drift


@dataclass(slots=True)
class Page:
    """What a look at some pools came to.

    `pools` is how many there were, 0 behind the last one; `last_id` is where the next page begins. `overdue` holds the
    ids of those that should have lost a workload by now.
    """

    pools: int
    last_id: Any
    drifted: list[Drifted] = field(default_factory=list)
    overdue: list[int] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)


class Reconciliation:
    """Looks at pools and mends them; `orders` does the same for delete orders.

    Every method raises StoreUnavailableError when MongoDB is away, and StoreRefusedError when it says no.
    """

    def __init__(self, *, database: Database) -> None:
        self.orders = VanishedOrders(database=database)
        self._pools = database.collection(CAPACITY_POOLS, RAW)
        self._pool_store = PoolStore(database=database)
        self._workloads = database.collection(WORKLOADS, RAW)

    async def look(self, *, after: Any, limit: int, overdue_at: int | None) -> Page:
        """Look at the next pools behind the id `after`, at most `limit` of them.

        A pool that ran empty by the unix second `overdue_at` is overdue if a deployed workload of it uses what is
        exhausted; if that is None, none is. Takes two queries, and a third if a pool ran empty.
        """
        query = {"_id": {"$gt": after}}
        with translated("reading pools to reconcile"):
            raws = await self._pools.find(query, sort=[("_id", 1)], limit=limit, batch_size=limit + 1).to_list(None)
        page = Page(pools=len(raws), last_id=document_id(raws[-1]) if raws else after)
        pools = [pool async for pool in self._readable(raws, page)]
        known = await self._known({each for pool in pools for each in pool.active_workload_ids or ()}, page)
        async for pool in _unhurried(pools):
            if drift := find_drift(pool, known):
                page.drifted.append(Drifted(pool, drift))
        if overdue_at is not None:
            page.overdue = await self._overdue([pool for pool in pools if pool.empty_at <= overdue_at], overdue_at)
        return page

    async def mend(self, drifted: Drifted, *, now: int) -> bool:
        """Put a pool's books right at the unix second `now`; False, and nothing is done, if it has changed since.

        Raises NotFiniteError if what is right could not be held in a double.
        """
        after = mended(drifted.pool, drifted.drift, now=now)
        return await self._pool_store.update_pool(after, as_read=drifted.pool)

    async def _readable(self, raws: Sequence[RawBSONDocument], page: Page) -> AsyncIterator[Pool]:
        async for raw in _unhurried(raws):
            try:
                yield pool_from_document(decoded(raw))
            except UnreadableDocumentError as error:
                page.unreadable.append(Unreadable("pool", document_id(raw), str(error)))

    async def _known(self, workload_ids: Iterable[int], page: Page) -> dict[int, CloudUnits | None]:
        """Return what those of the workloads drain that still count."""
        known: dict[int, CloudUnits | None] = {}
        wanted = [Int64(workload_id) for workload_id in workload_ids]
        for start in range(0, len(wanted), WORKLOADS_AT_ONCE):
            raws = await self._found({"_id": {"$in": wanted[start : start + WORKLOADS_AT_ONCE]}})
            async for raw in _unhurried(raws):
                _weigh(raw, known, page)
        return known

    async def _overdue(self, empty: Sequence[Pool], now: int) -> list[int]:
        """Return the ids of those empty pools whose deployed workloads, listed or not, use what is exhausted."""
        if not empty:
            return []
        deployed: dict[int, list[dict[str, Any]]] = defaultdict(list)
        pool_ids = [Int64(pool.pool_id) for pool in empty]
        raws = await self._found({"pool_id": {"$in": pool_ids}, "next_action": DEPLOYED})
        async for raw in _unhurried(raws):
            try:
                workload = decoded(raw)
                deployed[fields.whole(workload, "pool_id", UnreadableDocumentError)].append(workload)
            except UnreadableDocumentError:
                continue  # the pass that settles the pool reports it
        return [pool.pool_id async for pool in _unhurried(empty) if _must_lose(pool, deployed[pool.pool_id], now)]

    async def _found(self, query: Mapping[str, Any]) -> list[RawBSONDocument]:
        with translated("reading workloads to reconcile"):
            cursor = self._workloads.find(query, WORKLOAD_FIELDS, batch_size=WORKLOADS_AT_ONCE + 1)
            return await cursor.to_list(None)


def _weigh(raw: RawBSONDocument, known: dict[int, CloudUnits | None], page: Page) -> None:
    """Enter what a workload drains if it counts."""
    try:
        workload = decoded(raw)
        if counts(workload):
            known[workload["_id"]] = cloud_units(workload)
    except (UnreadableDocumentError, UnitsError) as error:
        workload_id = document_id(raw)
        known[workload_id] = None
        page.unreadable.append(Unreadable("workload", workload_id, str(error)))


def _must_lose(pool: Pool, deployed: Sequence[Mapping[str, Any]], now: int) -> bool:
    synced = replace(pool)
    try:
        synced.sync_current_capacity(now)
    except NotFiniteError:
        return False
    return bool(judge(synced, deployed, now=now).going)


async def _unhurried(items: Sequence[T]) -> AsyncIterator[T]:
    """Yield item by item, and let everybody else run every now and then, other threads included."""
    for number, item in enumerate(items, start=1):
        yield item
        if number % SLICE == 0:
            await asyncio.sleep(PAUSE_SECONDS)
