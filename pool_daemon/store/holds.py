"""The pools that the brake holds: kept in the database, so that no restart lets them go and an operator can."""

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from bson import Int64
from pymongo import DeleteOne, UpdateOne

from pool_daemon.capacity import fields
from pool_daemon.capacity.arithmetic import EARLIEST
from pool_daemon.errors import UnreadableDocumentError
from pool_daemon.store.client import Collection, Database
from pool_daemon.store.failures import translated
from pool_daemon.store.losses import Loss
from pool_daemon.store.pools import CAPACITY_POOLS

BRAKE: Final = "pool-daemon-brake"

FIRST: Final = EARLIEST
"""Lies before every pool's id. Asked for what lies behind it, MongoDB returns numbers only, and so no sweep."""

BATCH: Final = 1000
"""Documents a round trip."""

_UNFINISHED: Final = "unfinished"


class State(StrEnum):
    """Whether a pool is held, or has been released and is not settled yet."""

    HELD = "held"
    RELEASED = "released"


@dataclass(frozen=True, slots=True)
class Hold:
    """A pool that is held, or was; instants in unix seconds, `empty_at` being that of the pool when it was held."""

    pool_id: int
    state: State
    reason: str
    empty_at: int
    held_at: int
    by: str


@dataclass(frozen=True, slots=True)
class Sweep:
    """What is to be held: whatever ran empty in (after, until], from the beginning of time if `after` is None."""

    after: int | None
    until: int
    reason: str


class HoldStore:
    """The collection `pool-daemon-brake`: a document for each pool held or released, and one while a sweep goes on.

    `identity` is written into every hold as who made it. Every method raises StoreUnavailableError when MongoDB is
    away, and StoreRefusedError when it says no.
    """

    def __init__(self, *, database: Database, identity: str) -> None:
        self._holds: Collection = database.collection(BRAKE)
        self._pools: Collection = database.collection(CAPACITY_POOLS)
        self._identity = identity

    async def any(self) -> bool:
        """Tell whether there is anything at all: a hold, a release not settled yet, a sweep not finished."""
        with translated("looking for holds"):
            return await self._holds.find_one({}, {"_id": 1}) is not None

    async def count(self, state: State) -> int:
        """Count the pools in that state."""
        with translated("counting holds"):
            return await self._holds.count_documents({"state": state})

    async def page(self, *, behind: int = FIRST, state: State | None = None, limit: int = BATCH) -> list[Hold]:
        """Return the next holds behind a pool's id, in the order of the ids; those in one state, or all."""
        query = {"_id": {"$gt": Int64(behind)}} | ({} if state is None else {"state": state})
        with translated("reading holds"):
            documents = await self._holds.find(query, sort=[("_id", 1)], limit=limit).to_list(limit)
        return _readable(documents)

    async def all(self, state: State | None = None) -> AsyncGenerator[list[Hold], None]:
        """Stream the holds by id, in pages."""
        behind = FIRST
        while page := await self.page(behind=behind, state=state):
            yield page
            behind = page[-1].pool_id

    async def standing(self, pool_ids: Sequence[int]) -> list[Hold]:
        """Return the holds of these pools that still concern the pool as it is now.

        They do while its `empty_at` is the same; or if it was written since but was just as empty then, as when the
        explorer takes a workload out of it. A pool that was topped up has a deadline of its own, and is held no more.
        """
        with translated("reading holds"):
            documents = await self._holds.find(_ids(pool_ids)).to_list(None)
            holds = _readable(documents)
            if not holds:
                return []
            pools = await self._pools.find(
                _ids([hold.pool_id for hold in holds]), {"empty_at": 1, "last_updated": 1}
            ).to_list(None)
        by_id = {pool["_id"]: pool for pool in pools}
        return [hold for hold in holds if _stands(hold, by_id.get(hold.pool_id))]

    async def hold(self, losses: Sequence[Loss], *, reason: str, at: int) -> int:
        """Hold pools, and return how many of them were not held yet; a hold that stood for another end goes."""
        if not losses:
            return 0
        ends = {loss.pool_id: loss.empty_at for loss in losses}
        held = {
            "state": State.HELD,
            "reason": reason,
            "held_at": datetime.fromtimestamp(at, UTC),
            "by": self._identity,
        }
        missing = [
            UpdateOne({"_id": Int64(pool_id)}, {"$setOnInsert": held | {"empty_at": Int64(empty_at)}}, upsert=True)
            for pool_id, empty_at in ends.items()
        ]
        with translated("holding pools"):
            existing = await self._holds.find(_ids(ends), {"empty_at": 1}).to_list(None)
            stale = [each["_id"] for each in existing if each.get("empty_at") != ends[each["_id"]]]
            if stale:
                await self._holds.delete_many({"_id": {"$in": stale}})
            result = await self._holds.bulk_write(missing, ordered=False)
        return result.upserted_count

    async def release(self, pool_ids: Sequence[int], *, at: float) -> list[int]:
        """Release those of the pools that are held, and return them."""
        held = {**_ids(pool_ids), "state": State.HELD}
        released = {
            "state": State.RELEASED,
            "released_at": datetime.fromtimestamp(at, UTC),
            "released_by": self._identity,
        }
        with translated("releasing pools"):
            found = await self._holds.find(held, {"_id": 1}).to_list(None)
            await self._holds.update_many(held, {"$set": released})
        return [int(document["_id"]) for document in found]

    async def drop(self, holds: Iterable[Hold]) -> None:
        """Forget holds, unless the pool is by now held for another end."""
        deletes = [DeleteOne({"_id": Int64(hold.pool_id), "empty_at": Int64(hold.empty_at)}) for hold in holds]
        if deletes:
            with translated("forgetting holds"):
                await self._holds.bulk_write(deletes, ordered=False)

    async def begin(self, sweep: Sweep) -> None:
        """Write down what is going to be held, so that a crash half-way does not let the rest go."""
        document = {
            "_id": _UNFINISHED,
            "after": None if sweep.after is None else Int64(sweep.after),
            "until": Int64(sweep.until),
            "reason": sweep.reason,
        }
        with translated("beginning to hold pools"):
            await self._holds.replace_one({"_id": _UNFINISHED}, document, upsert=True)

    async def unfinished(self) -> Sweep | None:
        """Return what a daemon had begun to hold, and not finished; None if there is no such thing."""
        with translated("looking for holds begun"):
            document = await self._holds.find_one({"_id": _UNFINISHED})
        return None if document is None else Sweep(document["after"], document["until"], document["reason"])

    async def finish(self) -> None:
        """Note that everything is held that was going to be."""
        with translated("finishing to hold pools"):
            await self._holds.delete_one({"_id": _UNFINISHED})


def _ids(pool_ids: Iterable[int]) -> dict[str, Any]:
    return {"_id": {"$in": [Int64(pool_id) for pool_id in pool_ids]}}


def _stands(hold: Hold, pool: Mapping[str, Any] | None) -> bool:
    if pool is None:
        return False
    try:
        empty_at, last_updated = (
            fields.whole(pool, name, UnreadableDocumentError) for name in ("empty_at", "last_updated")
        )
    except UnreadableDocumentError:
        return False
    return empty_at == hold.empty_at or hold.empty_at < empty_at <= last_updated


def _readable(documents: Iterable[Mapping[str, Any]]) -> list[Hold]:
    return [hold for document in documents if (hold := _hold(document)) is not None]


def _hold(document: Mapping[str, Any]) -> Hold | None:
    """Read a hold; a document that makes no sense holds nothing."""
    held_at = document.get("held_at")
    try:
        return Hold(
            pool_id=fields.whole(document, "_id", UnreadableDocumentError),
            state=State.RELEASED if document.get("state") == State.RELEASED else State.HELD,
            reason=str(document.get("reason")),
            empty_at=fields.whole(document, "empty_at", UnreadableDocumentError),
            held_at=int(held_at.timestamp()) if isinstance(held_at, datetime) else 0,
            by=str(document.get("by")),
        )
    except UnreadableDocumentError:
        return None
