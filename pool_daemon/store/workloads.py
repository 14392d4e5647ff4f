"""Workloads and their work orders in the database."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from bson import Decimal128, Int64
from bson.raw_bson import RawBSONDocument
from pymongo import UpdateOne

from pool_daemon.capacity import fields
from pool_daemon.capacity.workload import NextAction
from pool_daemon.errors import UnreadableDocumentError
from pool_daemon.store.client import Database, Session
from pool_daemon.store.documents import RAW
from pool_daemon.store.failures import translated

WORKLOADS: Final = "workload"
WORKQUEUE: Final = "workqueue"

DEPLOYED: Final = {"$eq": int(NextAction.DEPLOY), "$not": {"$type": ["array", "decimal"]}}
"""The next action of a deployed workload: a plain comparison finds it in an array, too, that merely holds it."""

BATCH: Final = 10_000
"""Ids that one query asks for; a command of any length would be refused."""


class WorkloadStore:
    """The collections `workload` and `workqueue`; each call may be part of a session's transaction."""

    def __init__(self, *, database: Database) -> None:
        self._workloads = database.collection(WORKLOADS, RAW)
        self._orders = database.collection(WORKQUEUE)

    async def deletion_copies(
        self, pool_ids: Sequence[int], *, limit: int, after: Any = None, session: Session | None = None
    ) -> list[RawBSONDocument]:
        """Return the deployed workloads of some pools as their work orders would hold them.

        That is the whole document, byte for byte, with the next action "delete" in its place: the server makes the
        copy, so no field passes through Python's types. At most `limit` of them; of a single pool those behind the
        id `after`, in the order of their ids.
        """
        match: dict[str, Any] = {
            "pool_id": {"$in": [Int64(pool_id) for pool_id in pool_ids]},
            "next_action": DEPLOYED,
        }
        if after is not None:
            # A plain comparison would see ids of the same type only, and lose those that the order puts behind them.
            match["$expr"] = {"$gt": ["$_id", {"$literal": after}]}
        pipeline: list[dict[str, Any]] = [
            {"$match": match},
            *([{"$sort": {"_id": 1}}] if len(pool_ids) == 1 else []),
            {"$limit": limit},
            {"$set": {"next_action": int(NextAction.DELETE)}},
        ]
        cursor = self._workloads.aggregate(pipeline, session=session, batchSize=limit)
        with translated("reading deployed workloads"):
            return await cursor.to_list(limit)

    async def mark(self, workload_id: Any, *, was: NextAction, to: NextAction) -> bool:
        """Change the next action of one workload if it still has `was`; tell whether it had."""
        with translated("setting next_action"):
            result = await self._workloads.update_one(
                {"_id": workload_id, "next_action": int(was)}, {"$set": {"next_action": int(to)}}
            )
        return result.modified_count == 1

    async def set_next_action(
        self, workload_ids: Sequence[Any], *, was: NextAction, to: NextAction, session: Session
    ) -> int:
        """Change the next action of those workloads that still have `was`; return how many changed."""
        with translated("setting next_action"):
            result = await self._workloads.update_many(
                {"_id": {"$in": list(workload_ids)}, "next_action": int(was)},
                {"$set": {"next_action": int(to)}},
                session=session,
            )
        return result.modified_count

    async def order_first(self, copies: Sequence[RawBSONDocument], *, session: Session | None = None) -> None:
        """Put work orders on the queue that the nodes poll; a third of what it costs to look for older ones.

        Raises StoreConflictError, a duplicate, if one of the workloads has an order already.
        """
        with translated("writing work orders"):
            await self._orders.insert_many(copies, ordered=False, session=session)

    async def order(self, copies: Iterable[RawBSONDocument], *, session: Session | None = None) -> None:
        """Put work orders on the queue, each in place of an older one of the same workload if there is one."""
        # A plain replacement refuses a document with a field whose name begins with a dollar, which an insert takes.
        upserts = [
            UpdateOne({"_id": copy["_id"]}, [{"$replaceWith": {"$literal": copy}}], upsert=True) for copy in copies
        ]
        with translated("writing work orders"):
            await self._orders.bulk_write(upserts, ordered=False, session=session)

    async def is_ordered(self, workload_id: Any) -> bool:
        """Tell whether there is a work order for a workload."""
        with translated("looking for a work order"):
            return await self._orders.find_one({"_id": workload_id}, {"_id": 1}) is not None

    async def is_deployed(self, workload_id: Any) -> bool:
        """Tell whether a workload is deployed."""
        query = {"_id": workload_id, "next_action": int(NextAction.DEPLOY)}
        with translated("looking whether a workload is deployed"):
            return await self._workloads.find_one(query, {"_id": 1}) is not None

    async def pools_of(self, workload_ids: Sequence[Any]) -> list[int]:
        """Return the pool ids of those workloads that are deployed; an id that is no number is nobody's."""
        pool_ids: set[int] = set()
        for start in range(0, len(workload_ids), BATCH):
            query = {"_id": {"$in": list(workload_ids[start : start + BATCH])}, "next_action": int(NextAction.DEPLOY)}
            with translated("finding the pools of workloads"):
                pool_ids |= await self._distinct_pool_ids(query)
        return list(pool_ids)

    async def deploying(self, pool_ids: Sequence[int]) -> set[int]:
        """Return those of some pools that have a deployed workload; only the index is read."""
        query = {"pool_id": {"$in": [Int64(pool_id) for pool_id in pool_ids]}, "next_action": int(NextAction.DEPLOY)}
        with translated("finding the pools that have deployed workloads"):
            return (await self._distinct_pool_ids(query)).intersection(pool_ids)

    async def _distinct_pool_ids(self, query: Mapping[str, Any]) -> set[int]:
        found = await self._workloads.distinct("pool_id", query)
        # Of equal numbers the server names one, which may be the decimal of a single broken document. Leaving decimals
        # out in the query would cost a look at every workload, for the index cannot tell.
        return wholes(int(each.to_decimal()) if _is_decimal_number(each) else each for each in found)


def _is_decimal_number(value: Any) -> bool:
    return isinstance(value, Decimal128) and value.to_decimal().is_finite()


def wholes(ids: Iterable[Any]) -> set[int]:
    """Return what is a whole number of some ids, whatever the type it is stored as."""
    found = set()
    for each in ids:
        with suppress(UnreadableDocumentError):
            found.add(fields.whole({"id": each}, "id", UnreadableDocumentError))
    return found
