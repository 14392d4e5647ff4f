"""Workloads and their work orders in the database.

A customer decides how long a workload's document is, up to 16 MB. So decisions are made on a few numbers of each. The
document itself is read along only if it is small; a large one is copied later, if it is decommissioned.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bson import Int64
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument
from pymongo import UpdateOne

from pool_daemon.capacity.workload import FREE_TYPES, UNIT_FIELDS, NextAction
from pool_daemon.errors import StoreConflictError, UnreadableDocumentError
from pool_daemon.store.client import Database
from pool_daemon.store.codec import RAW, decoded, integer
from pool_daemon.store.error_mapping import one_line, translated
from pool_daemon.store.sessions import Session

WORKLOADS: Final = "workload"
WORKQUEUE: Final = "workqueue"

DEPLOYED: Final = {"$eq": int(NextAction.DEPLOY), "$not": {"$type": ["array", "decimal"]}}
"""The next action of a deployed workload: a plain comparison would match arrays that contain it, too."""

NO_ARRAY: Final = {"$not": {"$type": "array"}}

BILLED: Final = {"$nin": sorted(FREE_TYPES)}
"""The types of workloads that may drain a pool. The index covers the type, so free ones are not even read by the
server."""

BATCH: Final = 10_000
"""Ids in one query; the server refuses commands beyond its size limit."""

SMALL_BYTES: Final = 8192
"""Documents up to this size are read whole, in one round trip with the fields for the decision; 500 of them are 4
MB."""

FIELD_BYTES: Final = 1024
"""A longer field of a large document is not read: no field from which units are computed is that long."""

NODE_ID_CHARACTERS: Final = 200
"""A node's id is of any length; this many characters are kept in records."""


Order = tuple[Any, RawBSONDocument]
"""A work order: the workload's id, and its document with the next action "delete"."""


@dataclass(frozen=True, slots=True)
class DeployedWorkload:
    """A deployed workload: the fields for the decision, and the size of its document in bytes.

    `document` holds `_id`, `pool_id`, `node_id` and the fields from which units are computed. `order` is the work order
    that deletes it, None if the document is too large to be read before the decision.
    """

    document: Mapping[str, Any]
    size: int
    order: RawBSONDocument | None


class WorkloadStore:
    """The collections `workload` and `workqueue`; each call may be part of a session's transaction."""

    def __init__(self, *, database: Database) -> None:
        self._workloads = database.collection(WORKLOADS, RAW)
        self._orders = database.collection(WORKQUEUE)

    async def deployed(
        self,
        pool_ids: Sequence[int],
        *,
        limit: int,
        after: Any = None,
        arrays: bool = True,
        session: Session | None = None,
    ) -> list[RawBSONDocument]:
        """Return the deployed workloads of some pools, free ones left out, ordered by pool and id, `limit` at most.

        Of a single pool, `after` continues behind that id. Without `arrays`, workloads are left out whose pool id is an
        array that holds one of the ids. Read the documents with `deployed_workload`.
        """
        match: dict[str, Any] = {
            "pool_id": {"$in": [Int64(pool_id) for pool_id in pool_ids]} | ({} if arrays else NO_ARRAY),
            "next_action": DEPLOYED,
            "workload_type": BILLED,
        }
        if after is not None:
            # A plain comparison would match ids of the same type only, and lose those of types that sort behind.
            match["$expr"] = {"$gt": ["$_id", {"$literal": after}]}
        pipeline: list[dict[str, Any]] = [
            {"$match": match},
            {"$sort": {"pool_id": 1, "next_action": 1, "_id": 1}},
            {"$limit": limit},
            *_CUT_TO_SIZE,
        ]
        cursor = self._workloads.aggregate(pipeline, session=session, batchSize=limit, allowDiskUse=True)
        with translated("reading deployed workloads"):
            return await cursor.to_list(limit)

    async def order_of(self, workload_id: Any, *, session: Session) -> RawBSONDocument:
        """Return the work order that deletes a workload: its document byte for byte, except for the next action.

        The server makes the copy, so no field passes through Python's types. Raises StoreConflictError if the workload
        no longer exists.
        """
        pipeline: list[dict[str, Any]] = [
            {"$match": {"_id": workload_id}},
            {"$set": {"next_action": int(NextAction.DELETE)}},
        ]
        with translated("copying a workload"):
            found = await self._workloads.aggregate(pipeline, session=session).to_list(1)
        if not found:
            raise StoreConflictError("copying a workload: it is gone")
        copy: RawBSONDocument = found[0]
        return copy

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

    async def order_first(self, orders: Sequence[Order], *, session: Session) -> None:
        """Insert work orders into the queue that the nodes poll; costs a third of looking for older ones.

        Raises StoreConflictError, a duplicate, if one of the workloads has an order already.
        """
        with translated("writing work orders"):
            await self._orders.insert_many([copy for _, copy in orders], ordered=False, session=session)

    async def order(self, orders: Iterable[Order], *, session: Session) -> None:
        """Put work orders on the queue, replacing older ones of the same workloads.

        Each is a literal in a pipeline, because a plain replacement must not have a field whose name begins with a
        dollar sign.
        """
        upserts = [
            UpdateOne({"_id": workload_id}, [{"$replaceWith": {"$literal": copy}}], upsert=True)
            for workload_id, copy in orders
        ]
        with translated("writing work orders"):
            await self._orders.bulk_write(upserts, ordered=False, session=session)

    async def pools_of(self, workload_ids: Sequence[Any]) -> list[int]:
        """Return the pool ids of those workloads that are deployed; an id that is no number belongs to no pool."""
        pool_ids: set[int] = set()
        for start in range(0, len(workload_ids), BATCH):
            query = {"_id": {"$in": list(workload_ids[start : start + BATCH])}, "next_action": int(NextAction.DEPLOY)}
            with translated("finding the pools of workloads"):
                pool_ids |= await self._distinct_pool_ids(query)
        return list(pool_ids)

    async def deploying(self, pool_ids: Sequence[int]) -> set[int]:
        """Return those of some pools that have a deployed workload which is not free; only the index is read."""
        query = {
            "pool_id": {"$in": [Int64(pool_id) for pool_id in pool_ids]},
            "next_action": int(NextAction.DEPLOY),
            "workload_type": BILLED,
        }
        with translated("finding the pools that have deployed workloads"):
            return (await self._distinct_pool_ids(query)).intersection(pool_ids)

    async def count_deployed(self, pool_id: int, *, session: Session | None = None) -> int:
        """Count the deployed workloads of a pool, free ones left out; only the index is read."""
        query = {"pool_id": Int64(pool_id), "next_action": int(NextAction.DEPLOY), "workload_type": BILLED}
        with translated("counting deployed workloads"):
            return await self._workloads.count_documents(query, session=session)

    async def newest_deployed(self, pool_id: int, *, session: Session | None = None) -> int:
        """Return the highest id of a deployed workload of a pool, free ones left out; only the index is read."""
        query = {"pool_id": Int64(pool_id), "next_action": int(NextAction.DEPLOY), "workload_type": BILLED}
        with translated("finding the newest workload"):
            cursor = self._workloads.find(query, {"_id": 1}, sort=[("_id", -1)], limit=1, session=session)
            found = await cursor.to_list(1)
        return (integer(found[0]["_id"]) or 0) if found else 0

    async def newest_among(self, pool_ids: Sequence[int]) -> dict[int, int]:
        """Return, by pool, the highest id of its deployed workloads, free ones left out; only the index is read."""
        query = {
            "pool_id": {"$in": [Int64(pool_id) for pool_id in pool_ids]},
            "next_action": int(NextAction.DEPLOY),
            "workload_type": BILLED,
        }
        group = {"_id": "$pool_id", "newest": {"$max": "$_id"}}
        with translated("finding the newest workloads"):
            found = await self._workloads.aggregate([{"$match": query}, {"$group": group}]).to_list(None)
        newest = {integer(each["_id"]): integer(each["newest"]) for each in found}
        return {pool_id: highest for pool_id, highest in newest.items() if pool_id is not None and highest is not None}

    async def _distinct_pool_ids(self, query: Mapping[str, Any]) -> set[int]:
        # Of equal numbers the server returns one, which may be the decimal of a single broken document. Excluding
        # decimals in the query would read every workload, because the index does not hold the type.
        found = map(integer, await self._workloads.distinct("pool_id", query))
        return {pool_id for pool_id in found if pool_id is not None}


def deployed_workload(raw: RawBSONDocument) -> DeployedWorkload:
    """Read one of the documents that `WorkloadStore.deployed` returns.

    Raises UnreadableDocumentError if its bytes are no BSON that Python can hold.
    """
    try:
        order = raw.get("copy")
        source = dict((raw if order is None else order).items())  # looking up in a raw document is slow
        document = {name: plain(source[name]) for name in _READ if name in source}
        return DeployedWorkload({**document, "_id": plain(raw["_id"])}, raw["size_in_bytes"], order)
    except (BSONError, ValueError, OverflowError) as error:
        raise UnreadableDocumentError(f"not decodable: {one_line(error)}") from error


def plain(value: Any) -> Any:
    """Decode a value that was read as a raw document; return any other value unchanged."""
    return decoded(value) if isinstance(value, RawBSONDocument) else value


_READ: Final = ("pool_id", "node_id", *UNIT_FIELDS)


def _bounded(name: str) -> dict[str, Any]:
    """Return the expression of a field of a document that is not read whole; it is left out if it is too long."""
    fits = {"$lte": [{"$bsonSize": {"value": f"$copy.{name}"}}, FIELD_BYTES]}
    return {"$cond": [{"$and": [{"$gt": ["$size_in_bytes", SMALL_BYTES]}, fits]}, f"$copy.{name}", "$$REMOVE"]}


_CUT_NODE_ID: Final = {
    "$cond": [
        {"$and": [{"$gt": ["$size_in_bytes", SMALL_BYTES]}, {"$eq": [{"$type": "$copy.node_id"}, "string"]}]},
        {"$substrCP": ["$copy.node_id", 0, NODE_ID_CHARACTERS]},
        "$$REMOVE",
    ]
}

_CUT_TO_SIZE: Final[Sequence[dict[str, Any]]] = (
    {"$project": {"copy": "$$ROOT", "size_in_bytes": {"$bsonSize": "$$ROOT"}}},
    {"$set": {"copy.next_action": int(NextAction.DELETE)}},
    {
        "$project": {
            "size_in_bytes": 1,
            **{name: _bounded(name) for name in ("pool_id", *UNIT_FIELDS)},
            "node_id": _CUT_NODE_ID,
            "copy": {"$cond": [{"$lte": ["$size_in_bytes", SMALL_BYTES]}, "$copy", "$$REMOVE"]},
        }
    },
)
"""The stages that reduce each document to its size, and to itself if it is small, else to the fields for the
decision."""
