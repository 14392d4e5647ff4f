"""Excerpts of pools for display: their numbers, and of their arrays only the length and the beginning.

Customers decide how long the arrays are, up to megabytes. So the server counts and checks them, and a listing takes no
more memory than a page of numbers.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from bson import Int64
from bson.raw_bson import RawBSONDocument

from pool_daemon.capacity.pool import Pool
from pool_daemon.errors import PoolNotFoundError, UnreadableDocumentError
from pool_daemon.store.client import Database
from pool_daemon.store.codec import POOL_FIELDS, RAW, decoded, document_id, pool_from_document
from pool_daemon.store.error_mapping import translated
from pool_daemon.store.paging import pages
from pool_daemon.store.pools import CAPACITY_POOLS

ARRAYS: Final = {"node_ids": ["string"], "active_workload_ids": ["int", "long", "double"]}
"""The arrays of a pool, and the types of their elements."""

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


class Excerpts:
    """Reads pools from `capacity-pools` in parts.

    Every method raises StoreUnavailableError when MongoDB is away, and StoreRefusedError when it refuses.
    """

    def __init__(self, *, database: Database) -> None:
        self._pools = database.collection(CAPACITY_POOLS, RAW)

    async def all(self, owner_tid: int | None = None) -> AsyncGenerator[Excerpt, None]:
        """Stream all pools, or all pools of one owner, by id and without their arrays."""
        query = {} if owner_tid is None else {"customer_tid": Int64(owner_tid)}
        cursor = self._pools.find(query, _projection(most=0), sort=[("_id", 1)])
        async with aclosing(pages(cursor, doing="reading pools")) as found:
            async for documents in found:
                for document in documents:
                    yield _excerpt(document)

    async def first_of(self, pool_id: int, *, most: int) -> Excerpt:
        """Return one pool with the first `most` elements of each of its arrays.

        Raises PoolNotFoundError.
        """
        with translated(f"reading pool {pool_id}"):
            raw = await self._pools.find_one({"_id": Int64(pool_id)}, _projection(most=most))
        if raw is None:
            raise PoolNotFoundError(f"pool {pool_id}: the specified pool could not be found")
        return _excerpt(raw)


def _projection(*, most: int) -> dict[str, Any]:
    """Return the projection of a pool: numbers as they are; of an array its type, its length, its beginning."""
    projection: dict[str, Any] = dict.fromkeys(POOL_FIELDS, 1)
    for name, types in ARRAYS.items():
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
