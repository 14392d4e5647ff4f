"""Excerpts of documents: projections that cut them down on the server, and pools for display.

Customers decide how long fields and arrays are, up to megabytes. So the server counts and checks them, and nothing of
a customer's length is received.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from bson import Int64
from bson.raw_bson import RawBSONDocument

from pool_daemon.capacity.fields import whole_or_none
from pool_daemon.capacity.pool import FIELDS, Pool
from pool_daemon.capacity.workload import UNIT_FIELDS
from pool_daemon.errors import PoolNotFoundError, UnreadableDocumentError
from pool_daemon.store.client import PAGE, Database, pages
from pool_daemon.store.codec import POOL_FIELDS, RAW, decoded, document_id, pool_from_document
from pool_daemon.store.error_mapping import translated
from pool_daemon.store.pools import CAPACITY_POOLS, CAPACITY_RESERVATIONS

ARRAYS: Final = ("node_ids", "active_workload_ids")

NUMBERS: Final = tuple(name for name, _, _ in FIELDS if name not in ARRAYS)

IDS: Final = {"$cond": [{"$isArray": "$active_workload_ids"}, "$active_workload_ids", []]}
"""The ids of a pool's workloads; none if the field is no array."""

SUBDOCUMENT_BYTES: Final = 1024
"""The longest sub-document that units are computed from; a valid one has a tenth of that."""


def number_only(name: str) -> dict[str, Any]:
    """Return the expression of a field that is sent only if it is a number; otherwise the name of its type is sent.

    So nothing of any length is received, and a reader finds the field missing or wrong as before.
    """
    kind = {"$type": f"${name}"}
    return {"$cond": [{"$isNumber": f"${name}"}, f"${name}", {"$cond": [{"$eq": [kind, "missing"]}, "$$REMOVE", kind]}]}


def _unless_array(name: str, array: Any) -> dict[str, Any]:
    """Return the expression of a field that is `array` where it is an array, else missing, null or wrong as before."""
    kind = {"$type": f"${name}"}
    absent = {"$cond": [{"$in": [kind, ["missing", "null"]]}, f"${name}", kind]}
    return {"$cond": [{"$isArray": f"${name}"}, array, absent]}


def pool_fields(start: int, count: int) -> dict[str, Any]:
    """Return the projection of a pool: its numbers, some of its workload ids, and the length of their list."""
    ids = {"$map": {"input": {"$slice": ["$active_workload_ids", start, count]}, "in": number_only("$this")}}
    return {name: number_only(name) for name in NUMBERS} | {
        "node_ids": _unless_array("node_ids", []),
        "active_workload_ids": _unless_array("active_workload_ids", ids),
        "listed": {"$size": IDS},
    }


def _unit_field(name: str) -> dict[str, Any]:
    if name not in ("capcity", "custom_size"):
        return number_only(name)
    is_small = {"$lte": [{"$bsonSize": {"value": f"${name}"}}, SUBDOCUMENT_BYTES]}
    return {"$cond": [is_small, f"${name}", "$$REMOVE"]}


WORKLOAD_FIELDS: Final[Mapping[str, Any]] = {
    "next_action": number_only("next_action"),
    **{name: _unit_field(name) for name in UNIT_FIELDS},
}
"""The fields of a listed workload that are read."""

OVERDUE_FIELDS: Final[Mapping[str, Any]] = {**WORKLOAD_FIELDS, "_id": 0, "pool_id": number_only("pool_id")}


ELEMENT_TYPES: Final = {"node_ids": ["string"], "active_workload_ids": ["int", "long", "double"]}
"""The types of the elements of a pool's arrays."""

FOUND: Final = {"node_ids": "nodes", "active_workload_ids": "workloads"}
"""The name of the field in which the server returns its findings on each array."""

ABSENT: Final = ("missing", "null")


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A pool with its arrays' lengths and at most their beginnings; or the reason why it is unreadable."""

    document_id: Any
    pool: Pool | None = None
    nodes: int = 0
    workloads: int = 0
    error: UnreadableDocumentError | None = None


@dataclass(frozen=True, slots=True)
class Bought:
    """The reservation under whose id a pool was created: who ordered it, and how many unit seconds (cu, su, ipv4u)."""

    reservation_id: int
    customer_tid: int | None
    amounts: tuple[int, int, int]


class SortBy(StrEnum):
    """The order of a list of pools; the value is the field by which they are sorted."""

    ID = "_id"
    END = "empty_at"
    OWNER = "customer_tid"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which pools are read, and in which order.

    Those of one `owner`, those whose `empty_at` lies in (`after`, `until`], in unix seconds; None sets no bound.
    """

    owner: int | None = None
    after: int | None = None
    until: int | None = None
    order: SortBy = SortBy.ID

    @property
    def query(self) -> dict[str, Any]:
        """The query that matches these pools."""
        owner = {} if self.owner is None else {"customer_tid": Int64(self.owner)}
        bounds = {"$gt": self.after, "$lte": self.until}
        ends = {operator: Int64(at) for operator, at in bounds.items() if at is not None}
        return owner | ({"empty_at": ends} if ends else {})

    @property
    def is_read_in_order(self) -> bool:
        """Whether an index leads to these pools in their order, so that none has to be sorted."""
        if self.order is SortBy.END:
            return self.owner is None
        return not self.query


class Excerpts:
    """Reads pools from `capacity-pools` in parts.

    Every method raises StoreUnavailableError when MongoDB is away, and StoreRefusedError when it refuses.
    """

    def __init__(self, *, database: Database) -> None:
        self._pools = database.collection(CAPACITY_POOLS, RAW)
        self._reservations = database.collection(CAPACITY_RESERVATIONS)

    async def pages(self, selection: Selection) -> AsyncGenerator[list[Excerpt], None]:
        """Stream pools in pages, without their arrays; close the iterator when leaving it early.

        Pools that have to be sorted are cut down first: the server sorts numbers, however long the documents are.
        """
        cut = [{"$project": _projection(most=0)}]
        by = {"$sort": {selection.order.value: 1} | {"_id": 1}}
        stages = [{"$sort": {selection.order.value: 1}}, *cut] if selection.is_read_in_order else [*cut, by]
        cursor = self._pools.aggregate([{"$match": selection.query}, *stages], batchSize=PAGE, allowDiskUse=True)
        async with aclosing(pages(cursor, doing="reading pools")) as found:
            async for documents in found:
                yield [_excerpt(document) for document in documents]

    async def first_of(self, pool_id: int, *, most: int) -> Excerpt:
        """Return one pool with the first `most` elements of each of its arrays.

        Raises PoolNotFoundError.
        """
        with translated(f"reading pool {pool_id}"):
            raw = await self._pools.find_one({"_id": Int64(pool_id)}, _projection(most=most))
        if raw is None:
            raise PoolNotFoundError(f"pool {pool_id}: the specified pool could not be found")
        return _excerpt(raw)

    async def bought(self, pool_id: int) -> Bought | None:
        """Return the reservation that created a pool, None if there is none; an unreadable amount is 0."""
        projection = {"customer_tid": number_only("customer_tid")} | {
            name: number_only(f"data_reservation.{name}") for name in ("cus", "sus", "ipv4us")
        }
        with translated(f"reading reservation {pool_id}"):
            document = await self._reservations.find_one({"_id": Int64(pool_id)}, projection)
        if document is None:
            return None
        cus, sus, ipv4us = (whole_or_none(document, name) or 0 for name in ("cus", "sus", "ipv4us"))
        return Bought(pool_id, whole_or_none(document, "customer_tid"), (cus, sus, ipv4us))


def _projection(*, most: int) -> dict[str, Any]:
    """Return the projection of a pool: numbers as they are; of an array its type, its length, its beginning."""
    projection: dict[str, Any] = dict.fromkeys(POOL_FIELDS, 1)
    for name, types in ELEMENT_TYPES.items():
        field = f"${name}"
        items = {"$cond": [{"$isArray": field}, field, []]}
        found = {"$setUnion": [{"$map": {"input": items, "in": {"$type": "$$this"}}}, []]}
        projection[FOUND[name]] = {
            "type": {"$type": field},
            "length": {"$size": items},
            "odd": {"$setDifference": [found, types]},
        }
        if most:
            projection[name] = {"$cond": [{"$isArray": field}, {"$slice": [field, most]}, None]}
        else:
            del projection[name]
    return projection


def _excerpt(raw: RawBSONDocument) -> Excerpt:
    try:
        document = decoded(raw)
        nodes, workloads = (_length(name, document.pop(found)) for name, found in FOUND.items())
        return Excerpt(document_id(raw), pool_from_document(document), nodes, workloads)
    except UnreadableDocumentError as error:
        return Excerpt(document_id(raw), error=error)


def _length(name: str, found: dict[str, Any]) -> int:
    if found["type"] not in ("array", *ABSENT):
        raise UnreadableDocumentError(f"{name} is of type {found['type']}, not an array")
    if found["odd"]:
        raise UnreadableDocumentError(f"{name} holds what is of type {found['odd'][0]}")
    return int(found["length"])
