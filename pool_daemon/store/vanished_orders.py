"""Delete orders that vanished: the explorer takes orders off the queue that it should have left there."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from bson import Int64
from bson.raw_bson import RawBSONDocument
from pymongo import UpdateOne

from pool_daemon.capacity.workload import NextAction
from pool_daemon.store.client import Database, Session
from pool_daemon.store.documents import RAW, decoded, document_id
from pool_daemon.store.failures import translated
from pool_daemon.store.paging import PAGE, pages
from pool_daemon.store.workloads import WORKLOADS, WORKQUEUE, WorkloadStore, wholes

DELETE: Final = int(NextAction.DELETE)

TO_BE_DELETED: Final = {"$eq": DELETE, "$not": {"$type": ["array", "decimal"]}}
"""The next action of a workload that is to be deleted: a plain comparison finds it in an array, too."""


@dataclass(frozen=True, slots=True)
class Missing:
    """What a look at some workloads that are to be deleted came to: how many there were, and who has no order."""

    looked_at: int
    workload_ids: list[int]


@dataclass(frozen=True, slots=True)
class Restored:
    """A workload whose delete order was put back."""

    workload_id: int
    pool_id: Any


class VanishedOrders:
    """Finds workloads at next action "delete" without an order in `workqueue`, whoever set it, and puts that back.

    No event is recorded: whether the daemon or the customer wanted the workload gone cannot be told any more.
    Every method raises StoreUnavailableError when MongoDB is away, and StoreRefusedError when it says no.
    """

    def __init__(self, *, database: Database) -> None:
        self._database = database
        self._workloads = database.collection(WORKLOADS)
        self._raw = database.collection(WORKLOADS, RAW)
        self._orders = database.collection(WORKQUEUE)
        self._workload_store = WorkloadStore(database=database)

    async def look(self) -> AsyncGenerator[Missing, None]:
        """Look at all workloads that are to be deleted, some at a time; close the iterator when leaving it early.

        Costs as much as there are such workloads, given an index on `next_action`. An order and its workload are not
        read at the same instant, so what is missing now may be one that is just being written or just done.
        """
        cursor = self._raw.find({"next_action": TO_BE_DELETED}, {"_id": 1}, batch_size=PAGE)
        async with aclosing(pages(cursor, doing="looking for workloads to be deleted")) as found:
            async for raws in found:
                yield Missing(len(raws), await self._without_order([document_id(raw) for raw in raws]))

    async def put_back(self, workload_id: int) -> Restored | None:
        """Write a workload's delete order, if that is still missing and the workload still to be deleted.

        Returns None, and writes nothing, if not. The order is the workload's document, byte for byte. Raises
        UnreadableDocumentError if that cannot be decoded; StoreConflictError if others were faster each time.
        """

        async def restore(session: Session) -> Restored | None:
            copy = await self._copy_without_order(workload_id, session)
            if copy is None:
                return None
            workload = decoded(copy)
            await self._claim(workload, session)
            await self._workload_store.order([(workload_id, copy)], session=session)
            return Restored(workload_id, workload.get("pool_id"))

        return await self._database.transact(restore)

    async def _without_order(self, workload_ids: list[Any]) -> list[int]:
        wanted = sorted(wholes(workload_ids))
        with translated("reading work orders"):
            orders = await self._orders.find({"_id": {"$in": wanted}}, {"_id": 1}, batch_size=PAGE + 1).to_list(None)
        ordered = {order["_id"] for order in orders}
        return [workload_id for workload_id in wanted if workload_id not in ordered]

    async def _copy_without_order(self, workload_id: int, session: Session | None = None) -> RawBSONDocument | None:
        query = {"_id": Int64(workload_id)}
        with translated(f"reading the order of workload {workload_id}"):
            copy: RawBSONDocument | None = await self._raw.find_one(
                query | {"next_action": TO_BE_DELETED}, session=session
            )
            ordered = await self._orders.find_one(query, {"_id": 1}, session=session)
        return None if ordered else copy

    async def _claim(self, workload: Mapping[str, Any], session: Session) -> None:
        """Have the transaction collide with whoever changes the workload: it does so over what it writes alone.

        An update to the same value writes nothing, so `next_action` takes another of BSON's types for "delete" and
        its own again. At no moment does it mean anything else.
        """
        own = workload["next_action"]
        other = DELETE if isinstance(own, Int64) else Int64(DELETE)
        query = {"_id": workload["_id"]}
        with translated("claiming a workload"):
            await self._workloads.bulk_write(
                [UpdateOne(query, {"$set": {"next_action": value}}) for value in (other, own)], session=session
            )
