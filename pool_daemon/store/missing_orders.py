"""Missing delete orders: the explorer sometimes removes orders from the queue that should have stayed there.

An order is owed only while its pool lists the workload. When a node reports that a deployment failed, the explorer
removes the order, removes the workload from its pool and sets it to be deleted, for good: nothing runs there.
"""

from collections import defaultdict
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, Final

from bson import Int64
from bson.raw_bson import RawBSONDocument
from pymongo import UpdateOne

from pool_daemon.capacity import fields
from pool_daemon.capacity.workload import NextAction
from pool_daemon.errors import UnreadableDocumentError
from pool_daemon.store.client import PAGE, Database, pages
from pool_daemon.store.codec import RAW, integer
from pool_daemon.store.error_mapping import translated
from pool_daemon.store.events import EventStore
from pool_daemon.store.excerpts import number_only
from pool_daemon.store.pool_workloads import SHORT_NODE_ID
from pool_daemon.store.pools import CAPACITY_POOLS
from pool_daemon.store.records import Actor, EventKind, Subject, Why, envelope
from pool_daemon.store.sessions import Session
from pool_daemon.store.workloads import WORKLOADS, WORKQUEUE, WorkloadStore

DELETE: Final = int(NextAction.DELETE)

TO_BE_DELETED: Final = {"$eq": DELETE, "$not": {"$type": ["array", "decimal"]}}
"""The next action of a workload that is to be deleted: a plain comparison would match arrays that contain it, too."""

HEAD: Final[Mapping[str, Any]] = {"pool_id": number_only("pool_id"), "next_action": 1}
"""The fields of a workload that are read beside the copy that is its order. TO_BE_DELETED matches numbers alone."""

DESCRIBED: Final[Mapping[str, Any]] = {
    **HEAD,
    "customer_tid": number_only("customer_tid"),
    "workload_type": number_only("workload_type"),
    "node_id": SHORT_NODE_ID,
}
"""The fields of a workload that its claim and the record of its order need."""

CLAIMED: Final[Mapping[str, Any]] = {name: number_only(name) for name in ("last_updated", "empty_at")}
"""Numbers of a pool with which to make a transaction conflict; the first one present is used."""


@dataclass(frozen=True, slots=True)
class OwedOrders:
    """One page of workloads that are to be deleted: their number, and the ids of those that are owed an order."""

    looked_at: int
    workload_ids: list[int]


@dataclass(frozen=True, slots=True)
class RestoredOrder:
    """A workload whose delete order was restored."""

    workload_id: int
    pool_id: int


class MissingOrders:
    """Finds listed workloads at next action "delete" without an order in `workqueue`, and restores it.

    `actor` is written into the record of each. Whether the daemon or the customer deleted the workload is not known any
    more. Every method raises StoreUnavailableError when MongoDB is away, and StoreRefusedError when it refuses.
    """

    def __init__(self, *, database: Database, actor: Actor) -> None:
        self._database = database
        self._workloads = database.collection(WORKLOADS)
        self._raw = database.collection(WORKLOADS, RAW)
        self._orders = database.collection(WORKQUEUE)
        self._pools = database.collection(CAPACITY_POOLS)
        self._workload_store = WorkloadStore(database=database)
        self._events = EventStore(database=database, actor=actor)

    async def scan(self) -> AsyncGenerator[OwedOrders, None]:
        """Stream all workloads that are to be deleted, in pages; close the iterator when leaving it early.

        The cost is proportional to the number of such workloads, given an index on `next_action`. Order, workload and
        pool are not read at the same instant, so an order that seems missing may be one that is just being written or
        just done.
        """
        query = {"next_action": TO_BE_DELETED, "_id": {"$type": "number"}}
        cursor = self._workloads.find(query, HEAD, batch_size=PAGE)
        async with aclosing(pages(cursor, doing="looking for workloads to be deleted")) as found:
            async for documents in found:
                yield OwedOrders(len(documents), await self._owed(documents))

    async def restore(self, workload_id: int, *, now: float) -> RestoredOrder | None:
        """Write a workload's delete order, if it is still missing and still owed; else do nothing and return None.

        The order is the workload's document, byte for byte; its record says that it was restored at the unix instant
        `now`. Raises StoreConflictError if other writers were faster each time, and UnreadableDocumentError if the
        pool's document is broken.
        """

        async def transaction(session: Session) -> RestoredOrder | None:
            query = {"_id": Int64(workload_id), "next_action": TO_BE_DELETED}
            with translated(f"reading workload {workload_id}"):
                workload = await self._workloads.find_one(query, DESCRIBED, session=session)
                if workload is None or await self._orders.find_one(
                    {"_id": Int64(workload_id)}, {"_id": 1}, session=session
                ):
                    return None
            pool_id = _pool_id(workload)
            if pool_id is None or not await self._claim_pool(pool_id, workload_id, session):
                return None
            await self._claim_workload(workload, session)
            with translated(f"copying workload {workload_id}"):
                copy: RawBSONDocument | None = await self._raw.find_one(query, session=session)
            if copy is None:
                return None
            await self._workload_store.order_first([(workload_id, copy)], session=session)
            await self._events.add([self._record(workload, pool_id, now)], session=session)
            return RestoredOrder(workload_id, pool_id)

        return await self._database.transact(transaction, doing=f"restoring the order of workload {workload_id}")

    def _record(self, workload: Mapping[str, Any], pool_id: int, now: float) -> dict[str, Any]:
        return envelope(
            EventKind.DELETE_ORDER_RESTORED,
            at=now,
            actor=self._events.actor,
            subject=Subject(
                pool_id,
                _whole(workload, "customer_tid"),
                workload["_id"],
                _whole(workload, "workload_type"),
                workload["node_id"],
            ),
            why=Why("its order had vanished"),
        )

    async def _owed(self, documents: Sequence[Mapping[str, Any]]) -> list[int]:
        """Return the ids of those workloads that have no order, and are listed by their pool."""
        pool_of = {_whole(each, "_id"): _pool_id(each) for each in documents}
        wanted = sorted(workload_id for workload_id in pool_of if workload_id is not None)
        with translated("reading work orders"):
            orders = await self._orders.find({"_id": {"$in": [Int64(each) for each in wanted]}}, {"_id": 1}).to_list(
                None
            )
        ordered = {integer(order["_id"]) for order in orders}
        missing = [workload_id for workload_id in wanted if workload_id not in ordered]
        listed = await self._listed(missing, {pool_id for each in missing if (pool_id := pool_of[each]) is not None})
        return [workload_id for workload_id in missing if workload_id in listed[pool_of[workload_id]]]

    async def _listed(self, workload_ids: Sequence[int], pool_ids: Iterable[int]) -> Mapping[int | None, set[int]]:
        """Return which of the workloads each pool lists; the server compares, so that no long list is sent."""
        listed: dict[int | None, set[int]] = defaultdict(set)
        wanted = [Int64(workload_id) for workload_id in workload_ids]
        query = {
            "_id": {"$in": [Int64(pool_id) for pool_id in pool_ids]},
            "active_workload_ids": {"$type": "array", "$in": wanted},
        }
        found = {"listed": {"$setIntersection": [{"$literal": wanted}, "$active_workload_ids"]}}
        if wanted:
            with translated("reading which pools list the workloads"):
                async for pool in self._pools.find(query, found):
                    listed[integer(pool["_id"])] = {each for each in map(integer, pool["listed"]) if each is not None}
        return listed

    async def _claim_pool(self, pool_id: int, workload_id: int, session: Session) -> bool:
        """Make the transaction conflict with other writers of the pool; False if the pool does not list the workload.

        A transaction conflicts only over what it writes, and an update to the same value writes nothing. So a number is
        set to another value and back, which no other reader sees.
        """
        query = {"_id": Int64(pool_id), "active_workload_ids": {"$elemMatch": {"$eq": Int64(workload_id)}}}
        with translated(f"claiming pool {pool_id}"):
            pool = await self._pools.find_one(query, CLAIMED, session=session)
            if pool is None:
                return False
            name = next((name for name in CLAIMED if isinstance(pool.get(name), int | float)), None)
            if name is None:
                raise UnreadableDocumentError(f"pool {pool_id} has neither last_updated nor empty_at")
            own = pool[name]
            other = Int64(1) if own == 0 else Int64(0)
            await self._pools.bulk_write(
                [UpdateOne({"_id": pool["_id"]}, {"$set": {name: value}}) for value in (other, own)], session=session
            )
        return True

    async def _claim_workload(self, workload: Mapping[str, Any], session: Session) -> None:
        """Make the transaction conflict with other writers of the workload, too.

        `next_action` is set to "delete" in another of BSON's types and back: its meaning never changes.
        """
        own = workload["next_action"]
        other = DELETE if isinstance(own, Int64) else Int64(DELETE)
        query = {"_id": workload["_id"]}
        with translated("claiming a workload"):
            await self._workloads.bulk_write(
                [UpdateOne(query, {"$set": {"next_action": value}}) for value in (other, own)], session=session
            )


def _pool_id(workload: Mapping[str, Any]) -> int | None:
    return _whole(workload, "pool_id")


def _whole(document: Mapping[str, Any], name: str) -> int | None:
    with suppress(UnreadableDocumentError):
        return fields.whole(document, name, UnreadableDocumentError)
    return None
