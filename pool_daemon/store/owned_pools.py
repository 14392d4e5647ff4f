"""The pools of one owner for display, at a bounded cost however many they are; and the time limit of such reads."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import pymongo
from bson import Int64

from pool_daemon.capacity.fields import whole_or_none
from pool_daemon.store.client import Database
from pool_daemon.store.error_mapping import translated
from pool_daemon.store.excerpts import IDS, number_only
from pool_daemon.store.pools import CAPACITY_POOLS

MOST_COUNTED: Final = 100_000
"""Counting the pools of an owner stops here."""

MOST_READ: Final = 1000
"""Pools that are read in order to find those that run empty first; an owner may have more."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Bound all reads in the block together: the server stops one that takes longer, and the driver does not retry."""
    with pymongo.timeout(seconds):
        yield


@dataclass(frozen=True, slots=True)
class OwnedPool:
    """A pool of an owner: `empty_at` (unix seconds) is None if it is unreadable, `workloads` how many it lists."""

    pool_id: int
    empty_at: int | None
    workloads: int


@dataclass(frozen=True, slots=True)
class OwnedPools:
    """The first of an owner's pools to run empty, and how many there are, `MOST_COUNTED` at most.

    If there are more than `MOST_READ`, they are the first of as many that were read.
    """

    pools: int
    first: tuple[OwnedPool, ...]


class OwnedPoolStore:
    """Reads `capacity-pools` by owner.

    Every method raises StoreUnavailableError when MongoDB is away, and StoreRefusedError when it refuses.
    """

    def __init__(self, *, database: Database) -> None:
        self._database = database
        self._pools = database.collection(CAPACITY_POOLS)

    async def of(self, owner: int, *, limit: int) -> OwnedPools:
        """Return the owner's pools, `limit` of them; those that have run empty come first."""
        query = {"customer_tid": Int64(owner)}
        shown = {"_id": number_only("_id"), "empty_at": number_only("empty_at"), "workloads": {"$size": IDS}}
        pipeline: list[dict[str, Any]] = [
            {"$match": query},
            {"$limit": MOST_READ},
            {"$project": shown},
            {"$sort": {"empty_at": 1, "_id": 1}},
            {"$limit": limit},
        ]
        with translated(f"reading the pools of customer {owner}"):
            documents = await self._pools.aggregate(pipeline).to_list(limit)
            answer = await self._database.motor.command(
                {"count": CAPACITY_POOLS, "query": query, "limit": MOST_COUNTED}
            )
        return OwnedPools(int(answer["n"]), tuple(each for each in map(_owned, documents) if each is not None))


def _owned(document: Mapping[str, Any]) -> OwnedPool | None:
    pool_id = whole_or_none(document, "_id")
    return None if pool_id is None else OwnedPool(pool_id, whole_or_none(document, "empty_at"), document["workloads"])
