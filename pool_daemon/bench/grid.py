"""The grid to measure on: as many pools and workloads as a row needs, multiplied by the server itself."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from bson import Int64
from pymongo import IndexModel
from pymongo.database import Database

from pool_daemon.capacity.pool import new_pool
from pool_daemon.capacity.workload import NextAction, WorkloadType
from pool_daemon.store.codec import pool_to_document
from pool_daemon.store.pools import CAPACITY_POOLS
from pool_daemon.store.setup import INDEXES
from pool_daemon.store.workloads import WORKLOADS

Document = dict[str, Any]

NODE: Final = "2fi9ZZiBGW4G9pnrN656bMfW6x55RSoHDeMrd9pgSA8T"
OWNERS: Final = 1000
PAID_SECONDS: Final = 86_400
"""Seconds from the purchase of each pool to its end."""

SPARE_SECONDS: Final = 0.25
"""The rest of a pool at its end: `empty_at` is truncated, which usually leaves a fraction of a second's worth."""

WORKLOAD_IDS_EACH: Final = 100_000
"""Ids of workloads reserved for each pool, so that the pool's id follows from the workload's and vice versa."""

SEEDS: Final = "bench-seeds"
SEED_POOLS: Final = 1000

EXPLORERS_INDEXES: Final = (
    "node_id",
    "workload_id",
    "pool_id",
    "customer_tid",
    "next_action",
    "workload_type",
    "public_ip",
)
"""The single-field indexes that the explorer service keeps on its workloads; they make every write more expensive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolBatch:
    """Some pools of one kind, each drained by as many containers of one compute unit.

    The first runs empty at `empty_at` (unix seconds), each other one `apart_seconds` after the one before. Of the
    containers of each pool the last `missing_each` have no document; where they are never read, that saves the time to
    write them. The last `deleted_each` are deleted, and still listed. Pools that are `settled` were synced when they
    ran empty. Without an `owner` they belong to a thousand owners.
    """

    pools: int
    empty_at: int
    first_pool_id: int = 1_000_000
    workloads_each: int = 1
    apart_seconds: int = 0
    next_action: NextAction = NextAction.DEPLOY
    missing_each: int = 0
    deleted_each: int = 0
    settled: bool = False
    owner: int | None = None

    @property
    def workloads(self) -> int:
        """The number of workloads of all pools together."""
        return self.pools * self.workloads_each

    @property
    def described(self) -> str:
        """A description for the table."""
        pools = "1 pool" if self.pools == 1 else f"{self.pools:,} pools"
        each = "one container" if self.workloads_each == 1 else f"{self.workloads_each:,} workloads"
        return f"{pools} with {each}{' each' if self.pools > 1 else ''}"


def build(database: Database[Document], lots: Sequence[PoolBatch], *, indexes: bool = True) -> None:
    """Fill an empty database with the pools of some lots and their workloads.

    Python writes a seed for each thousand pools, and the server multiplies it: a million pools in a quarter of a
    minute. With `indexes` all indexes of the explorer and the daemon exist, else only the explorer's.
    """
    seeds = database[SEEDS]
    seeds.insert_many([seed for lot in lots for seed in _seeds(lot)])
    seeds.aggregate([*_EACH_POOL, {"$replaceWith": _POOL}, {"$out": CAPACITY_POOLS}])
    seeds.aggregate([*_EACH_POOL, *_EACH_WORKLOAD, {"$replaceWith": _WORKLOAD}, {"$out": WORKLOADS}])
    seeds.drop()
    database[WORKLOADS].create_indexes([IndexModel([(name, 1)]) for name in EXPLORERS_INDEXES])
    if indexes:
        for name, wanted in INDEXES.items():
            database[name].create_indexes([IndexModel(list(keys)) for keys in wanted])


def add_pool(database: Database[Document], pool_id: int, *, empty_at: int) -> None:
    """Add one pool with one container, like a customer's purchase: the pool is written last."""
    lot = PoolBatch(pools=1, first_pool_id=pool_id, empty_at=empty_at)
    workload_id = Int64(pool_id * WORKLOAD_IDS_EACH)
    ids = {"_id": workload_id, "workload_id": workload_id, "pool_id": Int64(pool_id), "customer_tid": Int64(1)}
    database[WORKLOADS].insert_one(_container(lot) | ids)
    database[CAPACITY_POOLS].insert_one(_first_pool(lot) | {"active_workload_ids": [workload_id]})


def deploy(database: Database[Document], lot: PoolBatch, number: int) -> None:
    """Deploy one more container into the pool of that number in a lot, as the explorer does."""
    pool_id = lot.first_pool_id + number
    workload_id = Int64((pool_id + 1) * WORKLOAD_IDS_EACH - 1)
    ids = {"_id": workload_id, "workload_id": workload_id, "pool_id": Int64(pool_id), "customer_tid": Int64(1)}
    database[WORKLOADS].insert_one(_container(lot) | ids)


def _seeds(lot: PoolBatch) -> Iterator[Document]:
    for start in range(0, lot.pools, SEED_POOLS):
        yield {
            "start": Int64(start),
            "end": Int64(min(start + SEED_POOLS, lot.pools)),
            "first": Int64(lot.first_pool_id),
            "each": lot.workloads_each,
            "written": lot.workloads_each - lot.missing_each,
            "kept": lot.workloads_each - lot.deleted_each,
            "apart": Int64(lot.apart_seconds),
            "owner": None if lot.owner is None else Int64(lot.owner),
            "pool": _first_pool(lot),
            "workload": _container(lot),
        }


def _first_pool(lot: PoolBatch) -> Document:
    bought_at = lot.empty_at - PAID_SECONDS
    pool = new_pool(lot.first_pool_id, 1, 0, [NODE], now=bought_at)
    pool.add_workload(0, lot.workloads_each, 0, 0, now=bought_at)
    pool.add_capacity(lot.workloads_each * (PAID_SECONDS + SPARE_SECONDS), 1000, 0, now=bought_at)
    if lot.settled:
        pool.sync_current_capacity(lot.empty_at)
    return pool_to_document(pool)


def _container(lot: PoolBatch) -> Document:
    return {
        "_id": Int64(0),
        "workload_id": Int64(1),
        "node_id": NODE,
        "pool_id": Int64(0),
        "reference": "",
        "description": "",
        "customer_tid": Int64(0),
        "customer_signature": "2cad" * 32,
        "next_action": int(lot.next_action),
        "signatures_provision": [],
        "signing_request_provision": {"signers": [], "quorum_min": Int64(0)},
        "signing_request_delete": {"signers": [], "quorum_min": Int64(0)},
        "signatures_farmer": [],
        "signatures_delete": [],
        "epoch": datetime(2026, 1, 1, tzinfo=UTC),
        "metadata": "",
        "result": {"category": 1, "workload_id": "1-1", "data_json": "", "signature": "", "state": 1, "message": ""},
        "workload_type": int(WorkloadType.CONTAINER),
        "flist": "https://hub.grid.tf/official-apps/ubuntu-20.04.flist",
        "environment": {"pub_key": "ssh-ed25519 " + "A" * 68},
        "secret_environment": {},
        "entrypoint": "/start.sh",
        "interactive": False,
        "volumes": [],
        "network_connection": [
            {"network_id": "net", "ipaddress": "10.1.2.3", "public_ip6": False, "yggdrasil_ip": True}
        ],
        "capcity": {"cpu": 2, "memory": Int64(4096), "disk_size": Int64(1024), "disk_type": 1},
    }


_POOL_ID: Final = {"$add": ["$first", "$n"]}
_WORKLOAD_ID: Final = {"$add": [{"$multiply": [_POOL_ID, Int64(WORKLOAD_IDS_EACH)]}, "$w"]}
_OWNER: Final = {"$ifNull": ["$owner", {"$add": [{"$mod": [_POOL_ID, Int64(OWNERS)]}, Int64(1)]}]}
_LATER: Final = {"$multiply": ["$n", "$apart"]}

_EACH_POOL: Final[list[Document]] = [
    {"$set": {"n": {"$range": ["$start", "$end"]}}},
    {"$unwind": "$n"},
    {"$set": {"n": {"$toLong": "$n"}}},
]
_EACH_WORKLOAD: Final[list[Document]] = [
    {"$set": {"w": {"$range": [0, "$written"]}}},
    {"$unwind": "$w"},
]
_POOL: Final = {
    "$mergeObjects": [
        "$pool",
        {
            "_id": _POOL_ID,
            "cus": {"$add": ["$pool.cus", {"$multiply": ["$pool.active_cu", _LATER]}]},
            "empty_at": {"$add": ["$pool.empty_at", _LATER]},
            "customer_tid": _OWNER,
            "active_workload_ids": {
                "$map": {
                    "input": {"$range": [0, "$each"]},
                    "as": "w",
                    "in": {"$add": [{"$multiply": [_POOL_ID, Int64(WORKLOAD_IDS_EACH)]}, "$$w"]},
                }
            },
        },
    ]
}
_NEXT_ACTION: Final = {"$cond": [{"$lt": ["$w", "$kept"]}, "$workload.next_action", int(NextAction.DELETED)]}
_WORKLOAD: Final = {
    "$mergeObjects": [
        "$workload",
        {
            "_id": _WORKLOAD_ID,
            "workload_id": _WORKLOAD_ID,
            "pool_id": _POOL_ID,
            "customer_tid": _OWNER,
            "next_action": _NEXT_ACTION,
        },
    ]
}
