"""A stand-in for the explorer and the nodes: an outside writer that has never heard of the daemon.

It writes the way they do: it reads a pool, changes it in memory and writes all of it back with `$set`, with
no version and no transaction. Its documents look as the explorer's look, down to the types of the fields.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from arithmetic_model import NEVER, Document, Rates, add_capacity, add_workload, recompute, remove_workload, sync
from bson import Int64
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.raw_bson import RawBSONDocument
from deadline import wait_for_instant, wait_until
from pymongo.collection import Collection
from pymongo.database import Database

YEAR_SECONDS = 365 * 24 * 3600
PLENTY = 1e12
"""Units of a resource that no test can use up."""

MISSING = object()
"""Stands for a field that a document does not have."""


class Kind(NamedTuple):
    """A kind of workload: its type, what its document says besides, and what that drains a second."""

    workload_type: int
    fields: Document
    rates: Rates


CONTAINER = Kind(
    1, {"capcity": {"cpu": 2, "memory": Int64(4096), "disk_size": Int64(1024), "disk_type": 1}}, Rates(cu=1.0)
)
VOLUME = Kind(2, {"size": Int64(300), "type": 1}, Rates(su=1.0))
ZDB = Kind(0, {"size": Int64(1200), "mode": 1, "disk_type": 0}, Rates(su=1.0))
VIRTUAL_MACHINE = Kind(12, {"size": Int64(1), "vm_name": "vm"}, Rates(cu=0.5, su=0.167))
PUBLIC_IP = Kind(11, {"ipaddress": "185.206.122.33/24"}, Rates(ipv4u=1.0))
FREE = tuple(Kind(workload_type, {"domain": "example.org"}, Rates()) for workload_type in (5, 6, 7, 8, 9, 10))
"""proxy, reverse_proxy, sub_domain, domain_delegate, gateway4to6 and network_resource."""


@dataclass(frozen=True)
class Purchase:
    """A pool as it was created, with its workloads."""

    pool_id: int
    empty_at: int
    document: Document
    workloads: list[Document]

    @property
    def workload_ids(self) -> list[int]:
        """The ids of its workloads, in their order."""
        return [workload["_id"] for workload in self.workloads]


class Explorer:
    """The outside writer; it remembers what each of its workloads drains."""

    def __init__(self, *, database: Database[Document]) -> None:
        options: CodecOptions[Document] = CodecOptions(
            datetime_conversion=DatetimeConversion.DATETIME_AUTO, unicode_decode_error_handler="replace"
        )
        raw: CodecOptions[RawBSONDocument] = options.with_options(document_class=RawBSONDocument)
        self.database = database.with_options(options)
        self.pools = self.database["capacity-pools"]
        self.workloads = self.database["workload"]
        self.orders = self.database["workqueue"]
        self.events = self.database["pool-daemon-events"]
        self.rates: dict[int, Rates] = {}
        self._raw = database.with_options(raw)
        self._pool_ids = itertools.count(910_000_001)
        self._workload_ids = itertools.count(510_000_001)

    def draft(
        self,
        amounts: Rates,
        kinds: Sequence[Kind],
        *,
        bought_at: int | None = None,
        next_action: int = 3,
        **fields: Any,
    ) -> Purchase:
        """Make a pool that holds `amounts` since `bought_at` (now, unless told), and what drains it.

        `fields` replace those of the finished document, for pools that no sane writer would leave behind.
        Nothing is written.
        """
        pool = new_pool(next(self._pool_ids), now=int(time.time()) if bought_at is None else bought_at)
        add_capacity(pool, amounts, now=pool["last_updated"])
        workloads = [self.new_workload(pool["_id"], kind, next_action=next_action) for kind in kinds]
        for workload, kind in zip(workloads, kinds, strict=True):
            add_workload(pool, workload["_id"], kind.rates, now=pool["last_updated"])
        document = {name: value for name, value in (encoded(pool) | fields).items() if value is not MISSING}
        return Purchase(pool["_id"], pool["empty_at"], document, workloads)

    def create(self, purchases: Sequence[Purchase]) -> None:
        """Write the workloads of drafted pools, then the pools."""
        workloads = [workload for purchase in purchases for workload in purchase.workloads]
        if workloads:
            self.workloads.insert_many(workloads)
        self.pools.insert_many([purchase.document for purchase in purchases])

    def buy(self, amounts: Rates, kinds: Sequence[Kind], **fields: Any) -> Purchase:
        """Draft a pool with all that it takes, and create it."""
        purchase = self.draft(amounts, kinds, **fields)
        self.create([purchase])
        return purchase

    def buy_expired(self, *kinds: Kind, next_action: Any = 3, **fields: Any) -> Purchase:
        """Create a pool of which everything ran out an hour ago."""
        bought_at = int(time.time()) - 3600
        return self.buy(Rates(0.5, 0.05, 0.5), kinds, bought_at=bought_at, next_action=next_action, **fields)

    def new_workload(self, pool_id: int, kind: Kind, *, next_action: int = 3, **fields: Any) -> Document:
        """Make a workload's document; nothing is written."""
        workload_id = Int64(next(self._workload_ids))
        self.rates[workload_id] = kind.rates
        return {
            "_id": workload_id,
            "workload_id": Int64(1),
            "node_id": "2fi9ZZiBGW4G9pnrN656bMfW6x55RSoHDeMrd9pgSA8T",
            "pool_id": Int64(pool_id),
            "reference": "",
            "customer_tid": Int64(7),
            "customer_signature": "2cad",
            "next_action": next_action,
            "signatures_provision": [],
            "epoch": datetime(2026, 1, 1, tzinfo=UTC),
            "metadata": "",
            "result": {"category": kind.workload_type, "workload_id": f"{workload_id}-1", "state": 1},
            "workload_type": kind.workload_type,
            **kind.fields,
            **fields,
        }

    def rewrite(self, pool_id: int, change: Callable[[Document], None], *, not_before: float = 0.0) -> None:
        """Read a pool, change it in memory, and write all of it back, at once or at a later instant."""
        pool = self.pools.find_one({"_id": pool_id})
        if pool is None:
            raise LookupError(pool_id)
        change(pool)
        changed = encoded(pool)
        wait_for_instant(not_before)
        self.pools.update_one({"_id": pool_id}, {"$set": changed})

    def top_up(self, pool_id: int, amounts: Rates, *, not_before: float = 0.0) -> None:
        """Add capacity to a pool."""
        self.rewrite(
            pool_id,
            lambda pool: add_capacity(pool, amounts, now=int(time.time())),
            not_before=not_before,
        )

    def shorten(self, pool_id: int, amounts: Rates) -> None:
        """Leave no more than `amounts` in a pool."""

        def cut(pool: Document) -> None:
            sync(pool, int(time.time()))
            pool.update(cus=amounts.cu, sus=amounts.su, ipv4us=amounts.ipv4u)
            recompute(pool)

        self.rewrite(pool_id, cut)

    def deploy(self, workload_id: int) -> None:
        """Let a workload reach next_action 3, as a customer's payment does, without a write to its pool."""
        self.workloads.update_one({"_id": workload_id}, {"$set": {"next_action": 3}})

    def add(self, pool_id: int, kind: Kind) -> int:
        """Have a pool drained by one more workload, and deploy it; return its id."""
        workload = self.new_workload(pool_id, kind, next_action=1)
        self.workloads.insert_one(workload)
        workload_id: int = workload["_id"]
        self.rewrite(pool_id, lambda pool: add_workload(pool, workload_id, kind.rates, now=int(time.time())))
        self.deploy(workload_id)
        return workload_id

    def bury(self, pool_id: int, workload_id: int) -> None:
        """Do what the explorer does once a node has deleted a workload."""
        rates = self.rates[workload_id]
        self.rewrite(pool_id, lambda pool: remove_workload(pool, workload_id, rates, now=int(time.time())))
        self.orders.delete_one({"_id": workload_id})
        self.workloads.update_one({"_id": workload_id}, {"$set": {"next_action": 6}})

    def next_action(self, workload_id: int) -> Any:
        """Read what is to be done next with a workload."""
        return (self.workloads.find_one({"_id": workload_id}) or {}).get("next_action")

    def next_actions(self, workload_ids: Sequence[int]) -> list[Any]:
        """Read what is to be done next with each workload, in the order of their ids."""
        found = self.workloads.find({"_id": {"$in": list(workload_ids)}}, {"next_action": 1}).sort("_id", 1)
        return [workload["next_action"] for workload in found]

    def running(self) -> int:
        """Count the workloads that are deployed."""
        return self.workloads.count_documents({"next_action": 3})

    def wait_until_gone(self, workload_ids: Iterable[int], *, within_seconds: float) -> None:
        """Wait until none of these workloads is deployed any more."""
        deployed = {"_id": {"$in": list(workload_ids)}, "next_action": 3}
        wait_until(
            lambda: self.workloads.find_one(deployed) is None,
            within_seconds=within_seconds,
            what="no workload of these to run any more",
        )

    def only_event(self, purchase: Purchase) -> Document:
        """Read the record of a pool's only decommission."""
        (event,) = self.events.find({"kind": "decommissioned", "pool_id": purchase.pool_id})
        return event

    def stored(self, collection: Collection[Document], document_id: Any) -> Document:
        """Read a document that is there."""
        found = collection.find_one({"_id": document_id})
        assert found is not None, f"{collection.name} has no {document_id!r}"
        return found

    def bytes_of(self, collection: Collection[Document], document_id: Any) -> bytes | None:
        """Read the very bytes of a document."""
        found = self._raw[collection.name].find_one({"_id": document_id})
        return None if found is None else bytes(found.raw)

    def bytes_by_id(self, collection_name: str) -> dict[Any, bytes]:
        """Read the very bytes of a whole collection."""
        return {document["_id"]: bytes(document.raw) for document in self._raw[collection_name].find()}

    def contents(self, collection_name: str) -> list[bytes]:
        """Read the very bytes of a whole collection, in the order of the ids."""
        return [bytes(document.raw) for document in self._raw[collection_name].find().sort("_id", 1)]


def new_pool(pool_id: int, *, now: int) -> Document:
    """Make an empty pool, in the order of its fields."""
    return {
        "_id": pool_id,
        "cus": 0.0,
        "sus": 0.0,
        "ipv4us": 0.0,
        "node_ids": ["2fi9ZZiBGW4G9pnrN656bMfW6x55RSoHDeMrd9pgSA8T"],
        "last_updated": now,
        "active_cu": 0.0,
        "active_su": 0.0,
        "active_ipv4": 0.0,
        "empty_at": NEVER,
        "customer_tid": 7,
        "sponsor_tid": 0,
        "active_workload_ids": [],
    }


def encoded(pool: Document) -> Document:
    """Give each of a pool's whole numbers the type that the explorer gives it: int64, even when small."""
    whole = {name: Int64(pool[name]) for name in ("_id", "last_updated", "empty_at", "customer_tid", "sponsor_tid")}
    return pool | whole | {"active_workload_ids": [Int64(workload) for workload in pool["active_workload_ids"]]}
