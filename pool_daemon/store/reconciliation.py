"""Reconciliation: every pool, page by page, compared with its workloads' documents.

Customers decide how long most of these documents are, so the server cuts them down to what is compared: numbers, and a
few ids at a time. Nothing here holds a lock or a cursor between two calls. A pool is read before its workloads, and
written only if it is still as it was read, so no change of another writer is overwritten.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from bson import Int64
from bson.raw_bson import RawBSONDocument

from pool_daemon.capacity.drift import Drift, PoolComparison, WorkloadState, is_deleted, repaired
from pool_daemon.capacity.pool import Pool
from pool_daemon.capacity.workload import cloud_units
from pool_daemon.errors import StoreConflictError, UnitsError, UnreadableDocumentError
from pool_daemon.store.cases import Unreadable
from pool_daemon.store.client import Database
from pool_daemon.store.codec import RAW, changed_fields, decoded, document_id, integer, pool_from_document, unchanged
from pool_daemon.store.error_mapping import translated
from pool_daemon.store.events import EventStore
from pool_daemon.store.excerpts import ARRAYS, IDS, NUMBERS, WORKLOAD_FIELDS, pool_fields
from pool_daemon.store.grace_decisions import GraceReader
from pool_daemon.store.missing_orders import MissingOrders
from pool_daemon.store.overdue import OverduePools, unhurried
from pool_daemon.store.pools import CAPACITY_POOLS
from pool_daemon.store.records import Actor
from pool_daemon.store.sessions import Session
from pool_daemon.store.workloads import WORKLOADS

BEGINNING: Final = -math.inf
"""The position before the first pool: every number lies behind it, and a document whose id is no number is no pool."""

IDS_INLINE: Final = 100
"""Workload ids that are read along with a pool; a pool that lists more is read in slices."""

IDS_AT_ONCE: Final = 10_000
"""Workload ids that are compared at once: a slice of one large pool, or those of several small pools."""

MOST_UNREADABLE: Final = 1000
"""Unreadable documents that a page reports; one pool may list hundreds of thousands."""

PAGE_WORKLOADS: Final = 50_000
"""Listed workloads after which a page ends, however few pools that is."""

WORKLOADS_AT_ONCE: Final = 2000
"""Workloads a query."""

STATES_KEPT: Final = 1000
"""Distinct workloads, apart from their ids, whose decoded state is cached: most are alike."""

INT64_ID: Final = b"\x12_id\0"
"""The beginning of a document, behind its length, whose id is an int64; the id takes the next eight bytes."""

TEXTS_ONLY: Final = {"$not": {"$elemMatch": {"$not": {"$type": "string"}}}}
"""Matches pools whose node ids are all strings; other pools are left alone. The server checks them, and sends none."""

UNKNOWN: Final = WorkloadState(deleted=False, units=None)
"""The state of a workload whose document is unreadable."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ListedPool:
    """A pool as it was read: with the first of its workload ids, the length of their list, and no node ids."""

    pool: Pool
    listed: int

    def is_same(self, other: "ListedPool") -> bool:
        """Return whether the other is the same pool, unchanged; the ids that were read of it may differ."""
        mine, theirs = (replace(each.pool, active_workload_ids=None) for each in (self, other))
        return (mine, mine.missing, self.listed) == (theirs, theirs.missing, other.listed)


@dataclass(frozen=True, slots=True)
class DriftedPool:
    """A pool as it was read, and its drift."""

    read: ListedPool
    drift: Drift

    @property
    def pool_id(self) -> int:
        """The id of the pool."""
        return self.read.pool.pool_id


@dataclass(slots=True)
class Page:
    """The result of comparing some pools.

    `pools` is how many there were, 0 behind the last one; `last_id` is where the next page begins. `missing` maps the
    pools that list workloads without a document to the number of these. `overdue` holds the ids of the pools that
    should have lost a workload by now.
    """

    pools: int
    last_id: Any
    drifted: list[DriftedPool] = field(default_factory=list)
    missing: dict[int, int] = field(default_factory=dict)
    overdue: list[int] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)

    def report(self, kind: str, document_id: Any, error: Exception) -> None:
        """Report an unreadable document, unless the page reports enough of them."""
        if len(self.unreadable) < MOST_UNREADABLE:
            self.unreadable.append(Unreadable(kind, document_id, str(error)))


class ReconciliationStore:
    """Compares pools with their workloads, and repairs them; `orders` does the same for delete orders.

    `actor` is written into the record of every repair. Where there is `grace`, what is in grace is not overdue.

    Every method raises StoreUnavailableError when MongoDB is away, and StoreRefusedError when it refuses.
    """

    def __init__(self, *, database: Database, actor: Actor, grace: GraceReader | None = None) -> None:
        self._overdue = OverduePools(database=database, grace=grace)
        self.orders = MissingOrders(database=database, actor=actor)
        self._database = database
        self._events = EventStore(database=database, actor=actor)
        self._pools = database.collection(CAPACITY_POOLS, RAW)
        self._workloads = database.collection(WORKLOADS, RAW)
        self._states: dict[bytes, WorkloadState] = {}

    async def compare(self, *, after: Any, limit: int, overdue_at: int | None) -> Page:
        """Compare the next pools behind the id `after`: at most `limit`, fewer if they list many workloads.

        A pool that ran empty by the unix second `overdue_at` is overdue if one of its deployed workloads uses an
        exhausted resource; if `overdue_at` is None, none is.
        """
        page = Page(pools=0, last_id=after)
        group: list[ListedPool] = []
        listed = in_group = 0
        async for raw in unhurried(await self._read({"_id": {"$gt": after}}, limit=limit)):
            page.pools += 1
            page.last_id = document_id(raw)
            try:
                group.append(_listed_pool(raw))
            except UnreadableDocumentError as error:
                page.report("pool", page.last_id, error)
                continue
            in_group += group[-1].listed
            if in_group >= IDS_AT_ONCE:
                await self._compare_group(group, page, overdue_at)
                listed += in_group
                group, in_group = [], 0
                if listed >= PAGE_WORKLOADS:
                    break
        await self._compare_group(group, page, overdue_at)
        return page

    async def repair(self, drifted: DriftedPool, *, now: int) -> bool:
        """Repair a pool at the unix second `now`, and record that; return False if it has changed since it was read.

        The pool's ids stay on the server: the list counts as unchanged if every number is as it was, its length is as
        it was, and the ids to be dropped are still in it. A swap of other workloads within one second would not show in
        those, but leaves their sum as it is. Raises NotFiniteError if the right rates could not be held in a double.
        """
        pool, drift = drifted.read.pool, drifted.drift
        after = repaired(pool, drift, now=now)
        dropped = [Int64(workload_id) for workload_id in drift.dropped]
        query = {name: value for name, value in unchanged(pool).items() if name not in ARRAYS}
        query |= {
            "node_ids": TEXTS_ONLY,
            "$expr": {
                "$and": [
                    {"$eq": [{"$size": IDS}, drifted.read.listed]},
                    {"$setIsSubset": [{"$literal": dropped}, IDS]},
                ]
            },
        }
        changes = {
            "$set": changed_fields(pool, after, NUMBERS),
            "$pull": {"active_workload_ids": {"$in": dropped}} if dropped else {},
        }

        async def transaction(session: Session) -> bool:
            update = {verb: what for verb, what in changes.items() if what}
            result = await self._pools.update_one(query, update, session=session)
            if result.matched_count:
                await self._events.repaired(pool, after, drift, at=now, session=session)
            return bool(result.matched_count)

        try:
            return await self._database.transact(transaction, doing=f"repairing pool {pool.pool_id}")
        except StoreConflictError:  # another writer is changing the pool
            return False

    async def _read(
        self, query: Mapping[str, Any], *, limit: int, start: int = 0, count: int = IDS_INLINE
    ) -> list[RawBSONDocument]:
        pipeline: list[dict[str, Any]] = [
            {"$match": query},
            {"$sort": {"_id": 1}},
            {"$limit": limit},
            {"$project": pool_fields(start, count)},
        ]
        with translated("reading pools to reconcile"):
            return await self._pools.aggregate(pipeline, batchSize=limit + 1).to_list(None)

    async def _compare_group(self, group: Sequence[ListedPool], page: Page, overdue_at: int | None) -> None:
        listed = {each for read in group for each in read.pool.active_workload_ids or ()}
        known = await self._known(listed, page)
        async for read in unhurried(group):
            await self._compare_pool(read, known, page)
        if overdue_at is not None:
            page.overdue += await self._overdue.among([each.pool for each in group], now=overdue_at)

    async def _compare_pool(self, read: ListedPool, known: Mapping[int, WorkloadState], page: Page) -> None:
        """Compare one pool; `known` has the states of the workloads that were read along with it."""
        comparison = PoolComparison(read.pool)
        comparison.add(read.pool.active_workload_ids or (), known)
        if read.listed > IDS_INLINE and not await self._compare_rest(read, comparison, page):
            return
        if comparison.missing:
            page.missing[read.pool.pool_id] = comparison.missing
        elif drift := comparison.drift():
            page.drifted.append(DriftedPool(read, drift))

    async def _compare_rest(self, first: ListedPool, comparison: PoolComparison, page: Page) -> bool:
        """Compare the other ids of a large pool; False if it has changed meanwhile, or cannot be read."""
        pool_id = first.pool.pool_id
        for start in range(IDS_INLINE, first.listed, IDS_AT_ONCE):
            raws = await self._read({"_id": Int64(pool_id)}, limit=1, start=start, count=IDS_AT_ONCE)
            try:
                read = _listed_pool(raws[0]) if raws else None
            except UnreadableDocumentError as error:
                page.report("pool", pool_id, error)
                return False
            if read is None or not read.is_same(first):
                return False
            workload_ids = read.pool.active_workload_ids or ()
            comparison.add(workload_ids, await self._known(set(workload_ids), page))
        return True

    async def _known(self, workload_ids: Collection[int], page: Page) -> dict[int, WorkloadState]:
        """Return the states of those workloads that have a document."""
        known: dict[int, WorkloadState] = {}
        wanted = [Int64(workload_id) for workload_id in workload_ids]
        for start in range(0, len(wanted), WORKLOADS_AT_ONCE):
            query = {"_id": {"$in": wanted[start : start + WORKLOADS_AT_ONCE]}}
            with translated("reading workloads to reconcile"):
                cursor = self._workloads.find(query, WORKLOAD_FIELDS, batch_size=WORKLOADS_AT_ONCE + 1)
                raws = await cursor.to_list(None)
            async for raw in unhurried(raws):
                workload_id, state = self._state(raw, page)
                if workload_id is not None:
                    known[workload_id] = state
        return known

    def _state(self, raw: RawBSONDocument, page: Page) -> tuple[int | None, WorkloadState]:
        content = bytes(raw.raw)
        if content[4:9] != INT64_ID:
            return integer(document_id(raw)), _decoded_state(raw, page) or UNKNOWN
        like, workload_id = content[17:], int.from_bytes(content[9:17], "little", signed=True)
        state = self._states.get(like)
        if state is None and (state := _decoded_state(raw, page)):
            if len(self._states) >= STATES_KEPT:
                self._states.clear()
            self._states[like] = state
        return workload_id, state or UNKNOWN


def _listed_pool(raw: RawBSONDocument) -> ListedPool:
    document = decoded(raw)
    return ListedPool(pool_from_document(document), document["listed"])


def _decoded_state(raw: RawBSONDocument, page: Page) -> WorkloadState | None:
    """Return the state of a document's workload; None, and a report on the page, if it cannot be read."""
    try:
        workload = decoded(raw)
        if is_deleted(workload):
            return WorkloadState(deleted=True, units=None)
        return WorkloadState(deleted=False, units=cloud_units(workload))
    except (UnreadableDocumentError, UnitsError) as error:
        page.report("workload", document_id(raw), error)
        return None
