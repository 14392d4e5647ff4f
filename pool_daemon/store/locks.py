"""Locked pools: another transaction has written them, or workloads of theirs, and is still open.

When a write conflicts, the server names no document, and ends the whole transaction. So some pools are written in a
transaction that is never committed. If it conflicts, parts of them are, down to single pools. Thousands may be locked
at once, so a locked one costs a single command: the server has aborted what conflicted already, and the driver, which
would send an abort each time and wait for it, knows nothing of these transactions.
"""

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

from bson import Int64
from bson.errors import BSONError
from pymongo.errors import OperationFailure, PyMongoError

from pool_daemon.store.client import Database
from pool_daemon.store.codec import integer
from pool_daemon.store.error_mapping import COLLECTION_LOCKED, lost_race
from pool_daemon.store.pools import CAPACITY_POOLS
from pool_daemon.store.sessions import Probe
from pool_daemon.store.workloads import BILLED, DEPLOYED, WORKLOADS

PARTS: Final = 8
"""Parts into which pools that conflict are cut, at least."""

MOST_WORKLOADS: Final = 2000
"""Workloads written in one search, at most. A lock on another one goes unnoticed here; settling its pool conflicts."""

MOST_BYTES: Final = 8_000_000
"""Bytes of workloads written in one try, at most. A server without room for more would report a conflict for ever."""

SIZED: Final = {"pool_id": 1, "size": {"$bsonSize": "$$ROOT"}}

WRITE: Final = {"$currentDate": {"last_updated": True}}
"""A write that changes any document; an update that changes nothing would not conflict."""


class Locks:
    """Finds out which pools are locked. Nothing is changed, and nothing stays locked."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def locked_among(self, pool_ids: Sequence[int]) -> set[int]:
        """Return those of some pools that are locked.

        What cannot be found out, because the server is away or has no room, or because a collection is locked as a
        whole, counts as not locked: settling it says why.
        """
        async with self._database.probe() as run:
            # Each command would take twice as long if the event loop waited for it.
            return await asyncio.to_thread(_locked_among, run, pool_ids)


def _locked_among(run: Probe, pool_ids: Sequence[int]) -> set[int]:
    locked: set[int] = set()
    left = [pool_ids]
    collections = [CAPACITY_POOLS, WORKLOADS]
    with contextlib.suppress(PyMongoError, BSONError):
        workloads = _deployed(run, pool_ids)
        while left:
            pools = left.pop()
            ids = {CAPACITY_POOLS: [Int64(pool_id) for pool_id in pools], WORKLOADS: _fitting(workloads, pools)}
            conflicting = _conflicting(run, {name: ids[name] for name in collections if ids[name]})
            if conflicting is None:
                continue
            if conflicting != collections[0]:
                collections.reverse()  # the next conflict is probably there, too
            if len(pools) == 1:
                locked.update(pools)
            else:
                size = max(1, len(pools) // PARTS)
                left += [pools[start : start + size] for start in range(0, len(pools), size)]
    return locked


def _conflicting(run: Probe, ids: Mapping[str, Sequence[Any]]) -> str | None:
    """Write documents of some collections, one after the other; return the first that conflicts, None if none does."""
    # The driver has counted its own uses of this session, which are far fewer than nanoseconds.
    transaction: dict[str, Any] = {"txnNumber": Int64(time.monotonic_ns()), "autocommit": False}
    start: dict[str, Any] = {"startTransaction": True}
    conflicting = None
    try:
        for name in ids:
            try:
                run(_update(name, ids[name]) | transaction | start)
            except OperationFailure as error:
                if lost_race(error) in {None, COLLECTION_LOCKED}:
                    raise
                conflicting = name
                break
            start = {}
    finally:
        if conflicting is None:
            with contextlib.suppress(PyMongoError):
                run({"abortTransaction": 1, "writeConcern": {"w": 1}} | transaction, database="admin")
    return conflicting


def _update(collection: str, ids: Sequence[Any]) -> dict[str, Any]:
    return {"update": collection, "updates": [{"q": {"_id": {"$in": ids}}, "u": WRITE, "multi": True}]}


def _deployed(run: Probe, pool_ids: Sequence[int]) -> dict[int, list[tuple[Any, int]]]:
    """Return the deployed workloads of each of some pools, with their sizes in bytes."""
    query = {
        "pool_id": {"$in": [Int64(pool_id) for pool_id in pool_ids]},
        "next_action": DEPLOYED,
        "workload_type": BILLED,
    }
    found = run(
        {
            "find": WORKLOADS,
            "filter": query,
            "projection": SIZED,
            "limit": MOST_WORKLOADS,
            "batchSize": MOST_WORKLOADS,
            "singleBatch": True,
        }
    )
    workloads: dict[int, list[tuple[Any, int]]] = defaultdict(list)
    for document in found["cursor"]["firstBatch"]:
        pool_id = integer(document["pool_id"])
        if pool_id is not None:
            workloads[pool_id].append((document["_id"], document["size"]))
    return workloads


def _fitting(workloads: Mapping[int, Sequence[tuple[Any, int]]], pool_ids: Sequence[int]) -> list[Any]:
    """Return the ids of the first workloads of some pools that fit into one try together."""
    found = [each for pool_id in pool_ids for each in workloads.get(pool_id, ())]
    sizes = accumulate(size for _, size in found)
    return [workload_id for (workload_id, _), size in zip(found, sizes, strict=True) if size <= MOST_BYTES]
