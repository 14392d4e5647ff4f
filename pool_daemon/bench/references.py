"""The two references of a storm: the explorer service's own method, and the limit of the server.

The first is plain code that does what the explorer does when its timer fires. The second writes the daemon's documents
as fast as a bare script can, in two ways. First each write separately, with the orders as upserts, as in the explorer.
Then, since workload, order and record belong together, in transactions like the daemon's, with all new documents
inserted. The server's cost of a transaction is unavoidable for a program that must not lose an order.
"""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import bson
from bson import Int64
from bson.raw_bson import RawBSONDocument
from pymongo import ReplaceOne, UpdateOne
from pymongo.client_session import ClientSession
from pymongo.database import Database
from pymongo.write_concern import WriteConcern

from pool_daemon.capacity.workload import NextAction
from pool_daemon.store.pools import CAPACITY_POOLS
from pool_daemon.store.records import EVENTS, NUMBERS, SCHEMA
from pool_daemon.store.workloads import WORKLOADS, WORKQUEUE


def one_by_one(database: Database[dict[str, Any]], *, now: int, patience_seconds: float) -> float:
    """Decommission what is due at the unix second `now`, and return the workloads a second.

    It reads all due pools, and for each its deployed workloads; it updates each of those, then puts its order on
    the queue. No state is kept from one workload to the next, so the rate is constant and `patience_seconds` suffice to
    measure it.
    """
    started_at = time.perf_counter()
    done = 0
    for pool in list(database[CAPACITY_POOLS].find({"empty_at": {"$lte": now}})):
        deployed = {"pool_id": pool["_id"], "next_action": int(NextAction.DEPLOY)}
        for workload in list(database[WORKLOADS].find(deployed)):
            workload["next_action"] = int(NextAction.DELETE)
            change = {"$set": {"next_action": int(NextAction.DELETE)}}
            database[WORKLOADS].update_one({"_id": workload["_id"]}, change)
            database[WORKQUEUE].replace_one({"_id": workload["_id"]}, workload, upsert=True)
            done += 1
            if time.perf_counter() - started_at > patience_seconds:
                return done / (time.perf_counter() - started_at)
    return done / (time.perf_counter() - started_at)


Document = dict[str, Any]

THREADS: Final = (1, 2, 4)
BATCH_WORKLOADS: Final = 500


@dataclass(frozen=True, slots=True)
class WriteBatch:
    """One round of writes: updates of pools, ids of workloads, their orders and records, encoded."""

    pools: Sequence[UpdateOne]
    workload_ids: Sequence[int]
    orders: Sequence[RawBSONDocument]
    upserts: Sequence[ReplaceOne[Any]]
    events: Sequence[RawBSONDocument]


def prepare(database: Database[Document], *, now: int) -> list[WriteBatch]:
    """Read everything that is due at the unix second `now`, and create the documents that decommission it.

    All of this precedes the measurement: the limit reads nothing, decides nothing and encodes nothing.
    """
    pools = {pool["_id"]: pool for pool in database[CAPACITY_POOLS].find({"empty_at": {"$lte": now}})}
    batches: list[WriteBatch] = []
    saved: set[int] = set()
    workloads = list(database[WORKLOADS].find({"pool_id": {"$in": list(pools)}}).sort("pool_id", 1))
    for start in range(0, len(workloads), BATCH_WORKLOADS):
        chunk = workloads[start : start + BATCH_WORKLOADS]
        fresh = {workload["pool_id"] for workload in chunk} - saved
        saved |= fresh
        batches.append(
            WriteBatch(
                [_saving(pools[pool_id], now) for pool_id in sorted(fresh)],
                [workload["_id"] for workload in chunk],
                orders := [_order(workload) for workload in chunk],
                [ReplaceOne({"_id": order["_id"]}, order, upsert=True) for order in orders],
                [_raw(_event(workload, pools[workload["pool_id"]])) for workload in chunk],
            )
        )
    return batches


def write(
    database: Database[Document], batches: Sequence[WriteBatch], *, threads: int, transactions: bool = False
) -> float:
    """Write the batches with `threads` threads, and return the seconds it took.

    Without `transactions` each write is separate, acknowledged as the server is configured to by default, which is as
    durable as the daemon's.
    """

    def write_batch(batch: WriteBatch) -> None:
        if not transactions:
            _write(database, batch, None)
            return
        with (
            database.client.start_session() as session,
            session.start_transaction(write_concern=WriteConcern("majority")),
        ):
            _write(database, batch, session)

    with ThreadPoolExecutor(threads) as executor:
        list(executor.map(_nothing, range(threads)))
        started_at = time.perf_counter()
        list(executor.map(write_batch, batches))
        return time.perf_counter() - started_at


def _write(database: Database[Document], batch: WriteBatch, session: ClientSession | None) -> None:
    if batch.pools:
        database[CAPACITY_POOLS].bulk_write(batch.pools, ordered=False, session=session)
    change = {"$set": {"next_action": int(NextAction.DELETE)}}
    database[WORKLOADS].update_many({"_id": {"$in": batch.workload_ids}}, change, session=session)
    if session is None:
        database[WORKQUEUE].bulk_write(batch.upserts, ordered=False)
    else:
        database[WORKQUEUE].insert_many(batch.orders, ordered=False, session=session)
    database[EVENTS].insert_many(batch.events, ordered=False, session=session)


def _nothing(_number: int) -> None:
    time.sleep(0.01)


def _saving(pool: Document, now: int) -> UpdateOne:
    return UpdateOne({"_id": pool["_id"]}, {"$set": {"cus": 0.0, "last_updated": Int64(now)}})


def _order(workload: Document) -> RawBSONDocument:
    return _raw(workload | {"next_action": int(NextAction.DELETE)})


def _event(workload: Document, pool: Document) -> Document:
    return {
        "_id": f"{workload['_id']}/{pool['_id']}/{pool['empty_at']}",
        "schema": SCHEMA,
        "kind": "decommissioned",
        "at": datetime.now(UTC),
        "actor": "daemon",
        "version": "1.0.0",
        "term": Int64(1),
        "pass": 1,
        "before": {name: pool[name] for name in NUMBERS},
        "workload_id": Int64(workload["_id"]),
        "pool_id": Int64(pool["_id"]),
        "customer_tid": Int64(pool["customer_tid"]),
        "workload_type": workload["workload_type"],
        "node_id": workload["node_id"],
        "resources": ["cu"],
        "reason": "resource exhausted",
        "empty_at": Int64(pool["empty_at"]),
        "decommissioned_at": datetime.now(UTC),
        "by": "a-machine-of-some-name:12345:0a1b2c",
    }


def _raw(document: Document) -> RawBSONDocument:
    return RawBSONDocument(bson.encode(document))
