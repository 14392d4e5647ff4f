"""Locked pools: another transaction has written them, or workloads of theirs, and is still open.

When a write conflicts, the server names no document, and ends the whole transaction. So some pools are written in a
transaction that is never committed. If it conflicts, parts of them are, down to single pools. Thousands may be locked
at once, so a locked one costs a single command: the server has aborted what conflicted already, and the driver, which
would send an abort each time and wait for it, knows nothing of these transactions.
"""

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

from bson import Int64
from bson.errors import BSONError
from pymongo.errors import OperationFailure, PyMongoError

from pool_daemon.store.client import Database
from pool_daemon.store.pools import CAPACITY_POOLS
from pool_daemon.store.sessions import Probe
from pool_daemon.store.workloads import BILLED, DEPLOYED, WORKLOADS

PARTS: Final = 8
"""Parts into which pools that conflict are cut, at least."""

MOST_WORKLOADS: Final = 1000
"""Workloads written in one try, at most. A lock on another one goes unnoticed here; settling its pool conflicts."""

MOST_BYTES: Final = 8_000_000
"""Bytes of workloads written in one try, at most. A server without room for more would report a conflict for ever."""

SIZED: Final = {"_id": 1, "size": {"$bsonSize": "$$ROOT"}}

WRITE: Final = {"$currentDate": {"last_updated": True}}
"""A write that changes any document; an update that changes nothing would not conflict."""


class Locks:
    """Finds out which pools are locked. Nothing is changed, and nothing stays locked."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def locked_among(self, pool_ids: Sequence[int]) -> set[int]:
        """Return those of some pools that are locked.

        What cannot be found out, because the server is away or has no room, counts as not locked: settling it says why.
        """
        async with self._database.probe() as run:
            # Each command would take twice as long if the event loop waited for it.
            return await asyncio.to_thread(_locked_among, run, pool_ids)


def _locked_among(run: Probe, pool_ids: Sequence[int]) -> set[int]:
    locked: set[int] = set()
    left = [pool_ids]
    with contextlib.suppress(PyMongoError, BSONError):
        while left:
            pools = left.pop()
            if _conflict(run, pools):
                if len(pools) == 1:
                    locked.update(pools)
                else:
                    size = max(1, len(pools) // PARTS)
                    left += [pools[start : start + size] for start in range(0, len(pools), size)]
    return locked


def _conflict(run: Probe, pool_ids: Sequence[int]) -> bool:
    """Return whether writing some pools and their workloads conflicts with another transaction."""
    # The driver has counted its own uses of this session, which are far fewer than nanoseconds.
    transaction = {"txnNumber": Int64(time.monotonic_ns()), "autocommit": False}
    ids = [Int64(pool_id) for pool_id in pool_ids]
    conflict = False
    try:
        run(_update(CAPACITY_POOLS, ids) | transaction | {"startTransaction": True})
        if workload_ids := _ids(run(_find_workloads(ids) | transaction)):
            run(_update(WORKLOADS, workload_ids) | transaction)
    except OperationFailure as error:
        conflict = error.has_error_label("TransientTransactionError")
        if not conflict:
            raise
    finally:
        if not conflict:
            with contextlib.suppress(PyMongoError):
                run({"abortTransaction": 1, "writeConcern": {"w": 1}} | transaction, database="admin")
    return conflict


def _update(collection: str, ids: Sequence[Any]) -> dict[str, Any]:
    return {"update": collection, "updates": [{"q": {"_id": {"$in": ids}}, "u": WRITE, "multi": True}]}


def _find_workloads(pool_ids: Sequence[Int64]) -> dict[str, Any]:
    query = {"pool_id": {"$in": pool_ids}, "next_action": DEPLOYED, "workload_type": BILLED}
    return {"find": WORKLOADS, "filter": query, "projection": SIZED, "limit": MOST_WORKLOADS, "singleBatch": True}


def _ids(found: Mapping[str, Any]) -> list[Any]:
    """Return the ids of the first workloads that fit into one try together."""
    documents = found["cursor"]["firstBatch"]
    sizes = accumulate(document["size"] for document in documents)
    return [document["_id"] for document, size in zip(documents, sizes, strict=True) if size <= MOST_BYTES]
