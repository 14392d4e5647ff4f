"""Pools and reservations in the database; the functions named after the explorer's own are for other programs."""

import math
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from bson import Int64
from bson.raw_bson import RawBSONDocument
from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from pool_daemon.capacity import fields
from pool_daemon.capacity.pool import NEVER, Pool
from pool_daemon.capacity.reservation import Reservation
from pool_daemon.errors import PoolNotFoundError, ReservationNotFoundError, StoreConflictError, UnreadableDocumentError
from pool_daemon.store.client import PAGE, Collection, Database, pages
from pool_daemon.store.codec import (
    RAW,
    changed_fields,
    decoded,
    document_id,
    pool_from_document,
    pool_to_document,
    reservation_from_document,
    reservation_to_document,
    unchanged,
)
from pool_daemon.store.error_mapping import translated

CAPACITY_POOLS: Final = "capacity-pools"
CAPACITY_RESERVATIONS: Final = "capacity-reservations"
COUNTERS: Final = "counters"

DUE_FIELDS: Final = {
    "customer_tid": 1,
    "empty_at": 1,
    "workloads": {"$size": {"$cond": [{"$isArray": "$active_workload_ids"}, "$active_workload_ids", []]}},
    "synced": {"$and": [{"$isNumber": "$last_updated"}, {"$gte": ["$last_updated", "$empty_at"]}]},
}
"""The fields of a due pool that are read. The server counts and compares, so that no workload id is sent."""


DEADLINE: Final = ("_id", "empty_at")
"""The fields of the pool that runs empty next that are read."""


@dataclass(frozen=True, slots=True)
class PoolResult:
    """One document of a stream of pools: the pool, or the reason why it is unreadable."""

    document_id: Any
    pool: Pool | None = None
    error: UnreadableDocumentError | None = None


@dataclass(frozen=True, slots=True)
class Deadline:
    """The pool that runs empty next, and its `empty_at` (unix seconds)."""

    pool_id: int
    empty_at: int


@dataclass(frozen=True, slots=True)
class DuePool:
    """A pool that is due, with its owner (None if unreadable) and the number of workloads that its document lists.

    `empty_at` is the unix second at which it ran empty. If it was synced since then, there is nothing to do unless it
    has a deployed workload. If it is `protected`, it is settled only if it loses no workload.
    """

    pool_id: int
    owner: int | None = None
    workloads: int = 0
    synced: bool = False
    empty_at: int = 0
    protected: bool = False

    @property
    def weight(self) -> int:
        """The pool's size in workloads; at least 1, because a pool without workloads has to be read, too."""
        return max(1, self.workloads)


@dataclass(frozen=True, slots=True)
class DuePage:
    """Some of the pools that are due, and the documents whose id is invalid."""

    pools: list[DuePool]
    unreadable: list[PoolResult]


class PoolStore:
    """The collection `capacity-pools`.

    Every method raises StoreUnavailableError when MongoDB is away, and StoreRefusedError when it refuses.
    """

    def __init__(self, *, database: Database) -> None:
        self._database = database
        self._pools: Collection = database.collection(CAPACITY_POOLS)
        self._raw: Collection = database.collection(CAPACITY_POOLS, RAW)

    async def capacity_pool_create(self, pool: Pool) -> Pool:
        """Save a new pool and return it as saved; id 0 draws the next one from `counters`.

        Raises StoreConflictError if the id is taken.
        """
        if pool.pool_id == 0:
            pool = replace(pool, pool_id=await next_id(self._database))
        try:
            with translated(f"creating pool {pool.pool_id}"):
                await self._pools.insert_one(pool_to_document(pool))
        except StoreConflictError as error:
            if isinstance(error.__cause__, DuplicateKeyError):
                raise StoreConflictError(f"pool {pool.pool_id} exists already") from error
            raise
        return pool

    async def update_pool(self, pool: Pool, *, as_read: Pool) -> bool:
        """Save the difference between `as_read` and `pool`, if the document is still as it was read.

        A field that the document lacks is not added: it keeps its zero value. Returns False, and changes nothing, if
        another writer has changed any field since: read the pool again and decide anew.
        """
        changes = changed_fields(as_read, pool)
        with translated(f"updating pool {pool.pool_id}"):
            if not changes:
                return await self._pools.count_documents(unchanged(as_read), limit=1) == 1
            result = await self._pools.update_one(unchanged(as_read), {"$set": changes})
        return result.matched_count == 1

    async def get_pool(self, pool_id: int) -> Pool:
        """Return the pool with that id.

        Raises PoolNotFoundError or UnreadableDocumentError.
        """
        with translated(f"reading pool {pool_id}"):
            raw = await self._raw.find_one({"_id": Int64(pool_id)})
        if raw is None:
            raise PoolNotFoundError(f"pool {pool_id}: the specified pool could not be found")
        return pool_from_document(decoded(raw))

    def get_pools(self) -> AsyncIterator[PoolResult]:
        """Stream every pool by id; an unreadable one is returned as an error and the stream goes on.

        At most one page is in memory, however many pools there are.
        """
        return self._results({}, [("_id", 1)])

    async def get_pools_by_owner(self, owner_tid: int) -> list[Pool]:
        """Return the readable pools of one owner."""
        return await self._readable({"customer_tid": Int64(owner_tid)}, [("_id", 1)])

    async def get_expired_pools(self, ts: int) -> list[Pool]:
        """Return the readable pools that are empty at the unix second `ts`, longest empty first."""
        return await self._readable({"empty_at": {"$lte": Int64(ts)}}, [("empty_at", 1)])

    async def get_next_expired_pool(self, ts: int) -> Pool:
        """Return the first readable pool to run empty after the unix second `ts`.

        Raises PoolNotFoundError if there is none; a pool that never runs empty does not count.
        """
        upcoming = {"empty_at": {"$gt": Int64(ts), "$lt": Int64(NEVER)}}
        with translated("reading the next pool to run empty"):
            first = await self._raw.find_one(upcoming, sort=[("empty_at", 1)])
        if first is not None and (pool := _result(first).pool) is not None:
            return pool
        if first is not None:  # seldom: it is unreadable, so the first readable one is searched for
            async for result in self._results(upcoming, [("empty_at", 1)]):
                if result.pool is not None:
                    return result.pool
        raise PoolNotFoundError(f"no pool runs empty after {ts}")

    async def next_deadline(self, ts: int) -> Deadline | None:
        """Return the first pool to run empty after the unix second `ts` and when, None if there is none.

        Called after every pass, it reads two numbers, however long the pool's document is; whether the rest is readable
        shows once the pool is due.
        """
        upcoming = {"empty_at": {"$gt": Int64(ts), "$lt": Int64(NEVER)}}
        for limit in (1, PAGE):  # seldom more than the first: its id may be invalid
            with translated("reading the next pool to run empty"):
                found = await self._pools.find(upcoming, {"empty_at": 1}, sort=[("empty_at", 1)], limit=limit).to_list(
                    limit
                )
            for document in found:
                with suppress(UnreadableDocumentError):
                    pool_id, empty_at = (fields.whole(document, name, UnreadableDocumentError) for name in DEADLINE)
                    return Deadline(pool_id, empty_at)
        return None

    async def due(self, *, after: int | None, until: int, besides: Sequence[int] = ()) -> AsyncGenerator[DuePage, None]:
        """Stream, longest due first, the pools whose `empty_at` lies in (after, until]; no lower bound if None.

        Pools of the owners `besides` are left out. Only a few numbers of each pool are sent, a page at a time, so that
        a storm takes no more memory than a quiet hour.
        """
        query: dict[str, Any] = {
            "empty_at": {"$lte": Int64(until)} | ({} if after is None else {"$gt": Int64(after)}),
            **({"customer_tid": {"$nin": [Int64(owner) for owner in besides]}} if besides else {}),
        }
        cursor = self._pools.find(query, DUE_FIELDS, sort=[("empty_at", 1)], batch_size=PAGE)
        async with aclosing(pages(cursor, doing="reading what is due")) as found:
            async for documents in found:
                yield _due_page(documents)

    async def due_among(self, pool_ids: Iterable[int], *, until: int) -> list[DuePool]:
        """Return those of some pools whose `empty_at` is at most `until`, ordered by id."""
        found: list[DuePool] = []
        wanted = sorted(pool_ids)
        for start in range(0, len(wanted), PAGE):
            ids = [Int64(pool_id) for pool_id in wanted[start : start + PAGE]]
            query = {"_id": {"$in": ids}, "empty_at": {"$lte": Int64(until)}}
            with translated("reading which pools are due"):
                found += _due_page(await self._pools.find(query, DUE_FIELDS, batch_size=PAGE + 1).to_list(None)).pools
        return found

    async def unreadable_deadlines(self) -> list[PoolResult]:
        """Return pools, a few batches at most, whose `empty_at` is no number: no query for due pools finds them.

        A missing `empty_at` counts, too: it reads as 0, long past, but would never fall due. Both ends of the index are
        read, around the finite numbers, so the cost depends only on the number found, and no other field is sent.
        Raises StoreError while there is no index on `empty_at` alone.
        """
        found: list[PoolResult] = []
        for bound in ({"max": {"empty_at": -math.inf}}, {"min": {"empty_at": math.inf}}):
            cursor = self._raw.find({}, {"empty_at": 1}, hint=[("empty_at", 1)], limit=PAGE, **bound)
            with translated("looking for unreadable deadlines"):
                documents = await cursor.to_list(PAGE)
            found += [result for result in map(_deadline, documents) if result.error is not None]
        return found

    async def _readable(self, query: Mapping[str, Any], order: list[tuple[str, int]]) -> list[Pool]:
        return [result.pool async for result in self._results(query, order) if result.pool is not None]

    async def _results(self, query: Mapping[str, Any], order: list[tuple[str, int]]) -> AsyncIterator[PoolResult]:
        cursor = self._raw.find(query, sort=order, batch_size=PAGE)
        async with aclosing(pages(cursor, doing="reading pools")) as found:
            async for documents in found:
                for document in documents:
                    yield _result(document)


class ReservationStore:
    """The collection `capacity-reservations`.

    Every method raises StoreUnavailableError when MongoDB is away, and StoreRefusedError when it refuses.
    """

    def __init__(self, *, database: Database) -> None:
        self._database = database
        self._reservations = database.collection(CAPACITY_RESERVATIONS)
        self._raw = database.collection(CAPACITY_RESERVATIONS, RAW)

    async def capacity_reservation_create(self, reservation: Reservation) -> Reservation:
        """Save a reservation under the next id of the sequence, and return it as saved."""
        saved = replace(reservation, reservation_id=await next_id(self._database))
        with translated(f"creating reservation {saved.reservation_id}"):
            await self._reservations.insert_one(reservation_to_document(saved))
        return saved

    async def capacity_reservation_get(self, reservation_id: int) -> Reservation:
        """Return the reservation with that id.

        Raises ReservationNotFoundError or UnreadableDocumentError.
        """
        with translated(f"reading reservation {reservation_id}"):
            raw = await self._raw.find_one({"_id": Int64(reservation_id)})
        if raw is None:
            raise ReservationNotFoundError(f"reservation {reservation_id}: the specified reservation was not found")
        return reservation_from_document(decoded(raw))


async def next_id(database: Database, collection: str = CAPACITY_RESERVATIONS) -> int:
    """Draw the next id of a collection; pools and reservations share one sequence, that of the reservations."""
    with translated("drawing an id"):
        counter = await database.collection(COUNTERS).find_one_and_update(
            {"_id": collection},
            {"$inc": {"sequence": Int64(1)}},
            upsert=True,
            return_document=ReturnDocument.AFTER,
        )
    return fields.whole(counter, "sequence", UnreadableDocumentError)


def _due_page(documents: list[dict[str, Any]]) -> DuePage:
    page = DuePage([], [])
    for document in documents:
        try:
            pool_id = fields.whole(document, "_id", UnreadableDocumentError)
        except UnreadableDocumentError as error:
            page.unreadable.append(PoolResult(document["_id"], error=error))
            continue
        owner = document.get("customer_tid")
        owner = owner if isinstance(owner, int) else None
        page.pools.append(DuePool(pool_id, owner, document["workloads"], document["synced"], _empty_at(document)))
    return page


def _deadline(raw: RawBSONDocument) -> PoolResult:
    try:
        fields.whole(decoded(raw), "empty_at", UnreadableDocumentError)
    except UnreadableDocumentError as error:
        return PoolResult(document_id(raw), error=error)
    return PoolResult(document_id(raw))


def _empty_at(document: Mapping[str, Any]) -> int:
    """Return when a pool ran empty; 0, long ago, if the value is below every instant."""
    try:
        return fields.whole(document, "empty_at", UnreadableDocumentError)
    except UnreadableDocumentError:
        return 0


def _result(raw: RawBSONDocument) -> PoolResult:
    try:
        return PoolResult(document_id(raw), pool=pool_from_document(decoded(raw)))
    except UnreadableDocumentError as error:
        return PoolResult(document_id(raw), error=error)
