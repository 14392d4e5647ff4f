"""When the daemon's work became true: the server's own log of operations is the judge."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pymongo import MongoClient

from pool_daemon.errors import BenchError
from pool_daemon.store.failures import translated
from pool_daemon.store.pools import CAPACITY_POOLS
from pool_daemon.store.workloads import WORKLOADS

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Commit:
    """One transaction: when it was committed (unix seconds, exact to the millisecond), and what it holds.

    `pool_ids` are the pools that were written, `workloads` counts the workloads, `writes` every document.
    """

    committed_at: float
    pool_ids: tuple[int, ...]
    workloads: int
    writes: int
    size_bytes: int


class Commits:
    """The transactions on one database of a replica set, from the moment this object was made.

    Raises BenchError if the server keeps no log of operations: it is no replica set.
    """

    def __init__(self, *, client: MongoClient[Document], database: str) -> None:
        self._oplog = client["local"]["oplog.rs"]
        self._database = database
        with translated("reading the server's log of operations"):
            newest = self._oplog.find_one({}, {"ts": 1}, sort=[("$natural", -1)])
        if newest is None:
            raise BenchError("the server is no replica set: what is measured needs transactions and change streams")
        self._since = newest["ts"]

    def decommissionings(self) -> list[Commit]:
        """Return every transaction so far that wrote workloads, oldest first."""
        pools, workloads = (f"{self._database}.{name}" for name in (CAPACITY_POOLS, WORKLOADS))
        pipeline = [
            {"$match": {"ts": {"$gt": self._since}, "op": "c", "o.applyOps.ns": workloads}},
            {
                "$project": {
                    "wall": 1,
                    "pool_ids": {"$setUnion": _ids_of(pools)},
                    "workloads": {"$size": _ids_of(workloads)},
                    "writes": {"$size": "$o.applyOps"},
                    "size_bytes": {"$bsonSize": "$o"},
                }
            },
        ]
        with translated("reading the server's log of operations"):
            return [_commit(entry) for entry in self._oplog.aggregate(pipeline)]

    def updates_of(self, pool_id: int) -> list[float]:
        """Return when somebody updated a pool outside of any transaction, in unix seconds."""
        query = {
            "ts": {"$gt": self._since},
            "op": "u",
            "ns": f"{self._database}.{CAPACITY_POOLS}",
            "o2._id": pool_id,
        }
        with translated("reading the server's log of operations"):
            return [_instant(entry["wall"]) for entry in self._oplog.find(query, {"wall": 1})]


def _ids_of(namespace: str) -> Document:
    operations = {"$filter": {"input": "$o.applyOps", "cond": {"$eq": ["$$this.ns", namespace]}}}
    return {"$map": {"input": operations, "in": "$$this.o2._id"}}


def _commit(entry: Document) -> Commit:
    return Commit(
        committed_at=_instant(entry["wall"]),
        pool_ids=tuple(entry["pool_ids"]),
        workloads=entry["workloads"],
        writes=entry["writes"],
        size_bytes=entry["size_bytes"],
    )


def _instant(wall: datetime) -> float:
    return wall.timestamp()
