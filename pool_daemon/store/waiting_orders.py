"""The delete orders that wait in `workqueue`: their nodes have not reported that they carried them out.

An order holds no instant of its own. When it was given is in the record of the decommission; of an order that the
explorer gave, as when a customer deletes a workload, it is not known.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from bson import Int64

from pool_daemon.capacity.fields import whole_or_none
from pool_daemon.store.client import PAGE, Database, pages
from pool_daemon.store.error_mapping import translated
from pool_daemon.store.excerpts import number_only
from pool_daemon.store.missing_orders import TO_BE_DELETED
from pool_daemon.store.pool_workloads import SHORT_NODE_ID
from pool_daemon.store.records import EVENTS
from pool_daemon.store.workloads import WORKQUEUE

SHOWN: Final[Mapping[str, Any]] = {
    **{name: number_only(name) for name in ("_id", "pool_id", "customer_tid", "workload_type")},
    "node_id": SHORT_NODE_ID,
}
"""The fields of an order that are read. An id may be of any type and length; then its type is named."""


@dataclass(frozen=True, slots=True)
class WaitingOrder:
    """A delete order that waits; `ordered_at` (unix seconds) is None where the daemon has no record of it."""

    workload_id: Any
    pool_id: int | None
    customer_tid: int | None
    workload_type: int | None
    node_id: str
    ordered_at: float | None


class WaitingOrders:
    """Reads delete orders from `workqueue`, and from `pool-daemon-events` since when they wait.

    Every method raises StoreUnavailableError when MongoDB is away, and StoreRefusedError when it refuses.
    """

    def __init__(self, *, database: Database) -> None:
        self._orders = database.collection(WORKQUEUE)
        self._events = database.collection(EVENTS)

    async def pages(self, *, node: str | None) -> AsyncGenerator[list[WaitingOrder], None]:
        """Stream the orders by id, in pages, or those of one node; close the iterator when leaving it early."""
        query = {"next_action": TO_BE_DELETED} | ({} if node is None else {"node_id": node})
        cursor = self._orders.find(query, SHOWN, sort=[("_id", 1)], batch_size=PAGE)
        async with aclosing(pages(cursor, doing="reading work orders")) as found:
            async for documents in found:
                ordered_at = await self._ordered_at(documents)
                yield [_order(document, ordered_at.get(whole_or_none(document, "_id"))) for document in documents]

    async def since(self, known: Mapping[Any, float], *, now: float, most: int) -> dict[Any, float]:
        """Return, by workload, since which unix instant each of `most` orders has waited; records are read of new ones.

        What is `known` stays. An order without a record counts from `now` on.
        """
        query, shown = {"next_action": TO_BE_DELETED}, {name: SHOWN[name] for name in ("_id", "pool_id")}
        since: dict[Any, float] = {}
        cursor = self._orders.find(query, shown, limit=most, batch_size=PAGE)
        async with aclosing(pages(cursor, doing="reading work orders")) as found:
            async for documents in found:
                new = [each for each in documents if each["_id"] not in known]
                ordered_at = await self._ordered_at(new) if new else {}
                for each in documents:
                    since[each["_id"]] = known.get(each["_id"], ordered_at.get(whole_or_none(each, "_id"), now))
        return since

    async def _ordered_at(self, documents: Sequence[Mapping[str, Any]]) -> dict[int | None, float]:
        """Return when the last record of each workload was made; the index on pool and workload leads to them."""
        query = {
            field: {"$in": [Int64(each) for one in documents if (each := whole_or_none(one, name)) is not None]}
            for field, name in (("pool_id", "pool_id"), ("workload_id", "_id"))
        }
        last: dict[int | None, float] = {}
        with translated("reading events"):
            async for record in self._events.find(query, {"_id": 0, "workload_id": 1, "decommissioned_at": 1}):
                workload_id, at = whole_or_none(record, "workload_id"), record.get("decommissioned_at")
                if isinstance(at, datetime):
                    last[workload_id] = max(at.timestamp(), last.get(workload_id, 0.0))
        return last


def _order(document: Mapping[str, Any], ordered_at: float | None) -> WaitingOrder:
    return WaitingOrder(
        workload_id=document["_id"],
        pool_id=whole_or_none(document, "pool_id"),
        customer_tid=whole_or_none(document, "customer_tid"),
        workload_type=whole_or_none(document, "workload_type"),
        node_id=document["node_id"],
        ordered_at=ordered_at,
    )
