"""The server's view of the daemon's work: the commands that it is sent, and the transactions in its oplog."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.database import Database

from pool_daemon.errors import BenchError
from pool_daemon.store.error_mapping import translated
from pool_daemon.store.lease import LEASE
from pool_daemon.store.pools import CAPACITY_POOLS
from pool_daemon.store.workloads import WORKLOADS

Document = dict[str, Any]

POLL_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True)
class Commit:
    """One transaction: when it was committed (unix seconds, exact to the millisecond), and its writes.

    `pool_ids` are the pools that were written, `workloads` counts the workloads, `writes` every document.
    """

    committed_at: float
    pool_ids: tuple[int, ...]
    workloads: int
    writes: int
    size_bytes: int


class Commits:
    """The transactions on one database of a replica set, since this object was created.

    Raises BenchError if the server has no oplog: it is not a replica set.
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
        """Return all transactions so far that wrote workloads, oldest first."""
        pools, workloads = (f"{self._database}.{name}" for name in (CAPACITY_POOLS, WORKLOADS))
        pipeline: list[Mapping[str, Any]] = [
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

    def index_built_at(self, *, within_seconds: float) -> float:
        """Wait until the index on the pools' ends is built, and return that time (unix seconds).

        Raises BenchError if that takes too long.
        """
        query = {
            "ts": {"$gt": self._since},
            "op": "c",
            "o.commitIndexBuild": CAPACITY_POOLS,
            "o.indexes.key.empty_at": 1,
        }
        deadline = time.monotonic() + within_seconds
        while time.monotonic() < deadline:
            with translated("reading the server's log of operations"):
                entry = self._oplog.find_one(query, {"wall": 1})
            if entry is not None:
                return _instant(entry["wall"])
            time.sleep(POLL_SECONDS)
        raise BenchError(f"no index of {CAPACITY_POOLS} was built within {within_seconds:g} s")

    def updates(self) -> dict[int, list[float]]:
        """Return, by pool id, the unix seconds of each update, within transactions and outside of them."""
        pools = f"{self._database}.{CAPACITY_POOLS}"
        written: list[Mapping[str, Any]] = [{"op": "u", "ns": pools}, {"op": "c", "o.applyOps.ns": pools}]
        ids = {"$cond": [{"$eq": ["$op", "u"]}, ["$o2._id"], _ids_of(pools)]}
        updated_at = defaultdict(list)
        with translated("reading the server's log of operations"):
            for entry in self._oplog.aggregate(
                [{"$match": {"ts": {"$gt": self._since}, "$or": written}}, {"$project": {"wall": 1, "ids": ids}}]
            ):
                for pool_id in entry["ids"]:
                    updated_at[pool_id].append(_instant(entry["wall"]))
        return updated_at


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


PROFILE: Final = "system.profile"
PROFILE_BYTES: Final = 16 * 1024 * 1024

NOT_COUNTED: Final = frozenset({"getMore", "hello", "isMaster", "ismaster", "serverStatus", "profile", "endSessions"})
"""Commands that are not counted: the stream's getMore, the heartbeat of every client's driver, and the bench's own."""


class CommandCount:
    """The number of commands of each name that were sent during the count, set at its end."""

    def __init__(self) -> None:
        self.by_name: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """The number of all commands."""
        return self.by_name.total()

    def described(self) -> str:
        """Return names and numbers on one line."""
        return ", ".join(f"{count} {name}" for name, count in self.by_name.most_common())


@contextmanager
def counted_commands(database: Database[Document]) -> Iterator[CommandCount]:
    """Count the commands that the server is sent while the block runs, for any database.

    Not counted are the stream's getMore, the heartbeats of drivers, the bench's own commands for the count, and the
    lease, which the server's profiler tells apart.
    """
    count = CommandCount()
    with _profiled(database, namespace=f"{database.name}.{LEASE}") as profile:
        before = _counters(database)
        yield count
        after = _counters(database)
        lease = Counter(next(iter(entry["command"])) for entry in profile.find())
    count.by_name = Counter(
        {name: after[name] - before[name] - lease[name] for name in after if name not in NOT_COUNTED}
    )


@contextmanager
def _profiled(database: Database[Document], *, namespace: str) -> Iterator[Collection[Document]]:
    with translated("profiling"):
        database.create_collection(PROFILE, capped=True, size=PROFILE_BYTES)
        database.command({"profile": 1, "filter": {"ns": namespace}})
        try:
            yield database[PROFILE]
        finally:
            database.command({"profile": 0, "filter": "unset"})
            database.drop_collection(PROFILE)


def _counters(database: Database[Document]) -> Counter[str]:
    commands = database.client.admin.command("serverStatus")["metrics"]["commands"]
    return Counter({name: command["total"] for name, command in commands.items() if isinstance(command, dict)})
