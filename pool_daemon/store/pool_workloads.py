"""The workloads of one pool for display: their states, units and delete orders.

Customers decide how long the documents are, so the server cuts them down to numbers and the beginning of a node's id.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bson import Int64

from pool_daemon.capacity.fields import whole_or_none
from pool_daemon.capacity.workload import CloudUnits, NextAction, cloud_units
from pool_daemon.errors import UnitsError
from pool_daemon.store.client import Database
from pool_daemon.store.error_mapping import translated
from pool_daemon.store.excerpts import WORKLOAD_FIELDS, number_only
from pool_daemon.store.pools import CAPACITY_POOLS
from pool_daemon.store.workloads import NODE_ID_CHARACTERS, WORKLOADS, WORKQUEUE

MOST_COUNTED: Final = 1_000_000
"""Workloads of one pool after which counting stops."""

SHOWN: Final = (NextAction.DEPLOY, NextAction.DELETE, NextAction.PAY, NextAction.SIGN, NextAction.CREATE)
"""The states of workloads that are listed, in their order; the others are history, and only counted."""

SHORT_NODE_ID: Final = {
    "$cond": [
        {"$eq": [{"$type": "$node_id"}, "string"]},
        {"$substrCP": ["$node_id", 0, NODE_ID_CHARACTERS]},
        "",
    ]
}
"""The beginning of a node's id; empty if it is no text."""

FIELDS: Final[Mapping[str, Any]] = {
    **WORKLOAD_FIELDS,
    "_id": number_only("_id"),
    "pool_id": number_only("pool_id"),
    "node_id": SHORT_NODE_ID,
}


@dataclass(frozen=True, slots=True)
class PoolWorkload:
    """A workload: what it is, what it drains, whether its pool lists it and whether a delete order waits.

    `workload_id` is the name of the id's type where that is no number; `next_action` and `workload_type` are None where
    they are none. `units` is None, and `problem` says why, where the units cannot be computed.
    """

    workload_id: Any
    pool_id: int | None
    workload_type: int | None
    next_action: int | None
    node_id: str
    units: CloudUnits | None
    problem: str | None
    is_listed: bool
    has_order: bool


class PoolWorkloads:
    """Reads workloads from `workload`, their orders from `workqueue`, and whether their pools list them.

    Every method raises StoreUnavailableError when MongoDB is away, and StoreRefusedError when it refuses.
    """

    def __init__(self, *, database: Database) -> None:
        self._workloads = database.collection(WORKLOADS)
        self._orders = database.collection(WORKQUEUE)
        self._pools = database.collection(CAPACITY_POOLS)

    async def count(self, pool_id: int, *, most: int = MOST_COUNTED) -> dict[int | None, int]:
        """Count a pool's workloads by their next action, None if it is no whole number; only the index is read.

        Counting stops after `most`.
        """
        pipeline: list[dict[str, Any]] = [
            {"$match": {"pool_id": Int64(pool_id)}},
            {"$project": {"_id": 0, "next_action": 1}},
            {"$limit": most},
            {"$group": {"_id": number_only("next_action"), "workloads": {"$sum": 1}}},
        ]
        counts: dict[int | None, int] = {}
        with translated(f"counting the workloads of pool {pool_id}"):
            async for group in self._workloads.aggregate(pipeline):
                action = whole_or_none(group, "_id")
                counts[action] = counts.get(action, 0) + group["workloads"]
        return counts

    async def first(self, pool_id: int, *, limit: int) -> list[PoolWorkload]:
        """Return some workloads of a pool: deployed ones, then those to be deleted, then those not deployed yet."""
        documents: list[Mapping[str, Any]] = []
        for action in SHOWN:
            left = limit - len(documents)
            if left <= 0:
                break
            query = {"pool_id": Int64(pool_id), "next_action": int(action)}
            with translated(f"reading the workloads of pool {pool_id}"):
                documents += await self._workloads.find(query, FIELDS, sort=[("_id", 1)], limit=left).to_list(left)
        return await self._described(documents)

    async def deployed(self, pool_id: int, *, limit: int) -> list[Mapping[str, Any]]:
        """Return the documents of deployed workloads of a pool, cut down to what their units are computed from."""
        query = {"pool_id": Int64(pool_id), "next_action": int(NextAction.DEPLOY)}
        with translated(f"reading the workloads of pool {pool_id}"):
            found: list[Mapping[str, Any]] = await self._workloads.find(
                query, FIELDS, sort=[("_id", 1)], limit=limit
            ).to_list(limit)
        return found

    async def get(self, workload_id: int) -> PoolWorkload | None:
        """Return one workload, None if it has no document."""
        with translated(f"reading workload {workload_id}"):
            document = await self._workloads.find_one({"_id": Int64(workload_id)}, FIELDS)
        return None if document is None else (await self._described([document]))[0]

    async def _described(self, documents: Sequence[Mapping[str, Any]]) -> list[PoolWorkload]:
        ids = [document["_id"] for document in documents if isinstance(document["_id"], int | float)]
        ordered = await self._ordered(ids)
        listed = await self._listed(
            ids, {each for each in (whole_or_none(one, "pool_id") for one in documents) if each}
        )
        return [
            _workload(document, is_listed=document["_id"] in listed, has_order=document["_id"] in ordered)
            for document in documents
        ]

    async def _ordered(self, ids: Sequence[Any]) -> set[Any]:
        query = {"_id": {"$in": list(ids)}, "next_action": int(NextAction.DELETE)}
        with translated("reading work orders"):
            return {each["_id"] for each in await self._orders.find(query, {"_id": 1}).to_list(None)}

    async def _listed(self, ids: Sequence[Any], pool_ids: Iterable[int]) -> set[Any]:
        """Return those of the ids that one of the pools lists; the server compares, so that no long list is sent."""
        query = {"_id": {"$in": [Int64(each) for each in pool_ids]}, "active_workload_ids": {"$type": "array"}}
        found = {"listed": {"$setIntersection": [{"$literal": list(ids)}, "$active_workload_ids"]}}
        with translated("reading which workloads the pool lists"):
            pools = await self._pools.find(query, found).to_list(None)
        return {each for pool in pools for each in pool["listed"]}


def _workload(document: Mapping[str, Any], *, is_listed: bool, has_order: bool) -> PoolWorkload:
    units, problem = None, None
    try:
        units = cloud_units(document)
    except UnitsError as error:
        problem = str(error)
    return PoolWorkload(
        workload_id=document["_id"],
        pool_id=whole_or_none(document, "pool_id"),
        workload_type=whole_or_none(document, "workload_type"),
        next_action=whole_or_none(document, "next_action"),
        node_id=document["node_id"],
        units=units,
        problem=problem,
        is_listed=is_listed,
        has_order=has_order,
    )
