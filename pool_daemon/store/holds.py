"""The pools that the brake holds: kept in the database, so that they survive a restart and an operator sees them."""

from collections.abc import AsyncGenerator, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from bson import Int64
from pymongo import DeleteOne

from pool_daemon.capacity.arithmetic import EARLIEST
from pool_daemon.errors import StoreConflictError
from pool_daemon.store.client import Collection as MongoCollection
from pool_daemon.store.client import Database
from pool_daemon.store.codec import integer
from pool_daemon.store.error_mapping import failed_writes, is_duplicate, translated
from pool_daemon.store.pools import DuePool, PoolStore
from pool_daemon.store.records import EventKind, Recording, Subject, Why, no_recording

BRAKE: Final = "pool-daemon-brake"

NUMBERS: Final = ("_id", "empty_at", "owner", "workloads")

FIRST: Final = EARLIEST
"""Precedes every pool's id."""

BATCH: Final = 1000
"""Documents a round trip."""


class HoldState(StrEnum):
    """Whether a pool is held, or released and not settled yet."""

    HELD = "held"
    RELEASED = "released"


@dataclass(frozen=True, slots=True)
class Hold:
    """A pool that is or was held; instants in unix seconds. `empty_at` and `workloads` are those when it was held.

    `owner` is None if it is unknown.
    """

    pool_id: int
    state: HoldState
    reason: str
    empty_at: int
    held_at: int
    by: str
    owner: int | None
    workloads: int

    def concerns(self, pool: DuePool) -> bool:
        """Return whether the hold still applies to a pool that is due: it was not topped up since.

        Then its `empty_at` is unchanged, or was written when it was just as empty, as when a workload is removed.
        """
        return pool.empty_at == self.empty_at or (pool.empty_at > self.empty_at and pool.synced)


@dataclass(frozen=True, slots=True)
class OwnerHolds:
    """How many pools of one owner are in one state, and how many workloads they would lose."""

    owner: int | None
    state: HoldState
    pools: int
    workloads: int


class HoldStore:
    """The collection `pool-daemon-brake`: a document for each pool held or released.

    `identity` is written into every hold as its creator, or into its release. In a `dry_run` nothing is written.
    `record` is called with each pool that is held, released or dropped. Every method raises StoreUnavailableError when
    MongoDB is away, and StoreRefusedError when it refuses.
    """

    def __init__(
        self, *, database: Database, identity: str, dry_run: bool = False, record: Recording = no_recording
    ) -> None:
        self._record = record
        self._holds: MongoCollection = database.collection(BRAKE)
        self._pools = PoolStore(database=database)
        self._identity = identity
        self.dry_run = dry_run

    async def count(self, state: HoldState) -> int:
        """Count the pools in that state."""
        with translated("counting holds"):
            return await self._holds.count_documents({"state": state})

    async def by_owner(self) -> list[OwnerHolds]:
        """Return the owners of pools that are held or released, most pools first."""
        sums = {"pools": {"$sum": 1}, "workloads": {"$sum": "$workloads"}}
        pipeline: list[dict[str, Any]] = [
            {"$match": {"state": {"$in": list(HoldState)}}},
            {"$group": {"_id": {"owner": "$owner", "state": "$state"}} | sums},
            {"$sort": {"pools": -1, "_id": 1}},
        ]
        with translated("grouping holds"):
            groups = await self._holds.aggregate(pipeline, allowDiskUse=True).to_list(None)
        numbers = [(each["_id"], each["pools"], integer(each["workloads"]) or 0) for each in groups]
        return [OwnerHolds(integer(key.get("owner")), HoldState(key["state"]), *sums) for key, *sums in numbers]

    async def page(
        self, *, behind: int = FIRST, state: HoldState | None = None, owner: int | None = None, limit: int = BATCH
    ) -> list[Hold]:
        """Return the next holds behind a pool's id, ordered by id; of one state or owner, or all."""
        wanted = {"state": state, "owner": owner}
        query = {"_id": {"$gt": Int64(behind)}} | {name: each for name, each in wanted.items() if each is not None}
        with translated("reading holds"):
            return _readable(await self._holds.find(query, sort=[("_id", 1)], limit=limit).to_list(limit))

    async def all(
        self, *, state: HoldState | None = None, owner: int | None = None
    ) -> AsyncGenerator[list[Hold], None]:
        """Stream the holds by id, in pages."""
        behind = FIRST
        while page := await self.page(behind=behind, state=state, owner=owner):
            yield page
            behind = page[-1].pool_id

    async def of(self, pools: Iterable[DuePool]) -> dict[int, Hold]:
        """Return, by id, the holds that still apply to some pools that are due."""
        by_id = {pool.pool_id: pool for pool in pools}
        with translated("reading holds"):
            holds = _readable(await self._holds.find(_ids(by_id)).to_list(None))
        return {hold.pool_id: hold for hold in holds if hold.concerns(by_id[hold.pool_id])}

    async def standing(self, holds: Collection[Hold], *, now: int) -> set[int]:
        """Return the ids of the pools whose holds still apply at the unix second `now`: they are due as before."""
        return set(await self.of(await self._pools.due_among([hold.pool_id for hold in holds], until=now)))

    async def hold(self, pools: Sequence[DuePool], *, reason: str, at: int) -> None:
        """Hold pools that were judged at the unix second `at`. An earlier release is replaced, a later one stands.

        Old documents are deleted first, because an insert never overwrites a release, and costs a third of an upsert.
        """
        if not pools or self.dry_run:
            return
        held_at = datetime.fromtimestamp(at, UTC)
        held = {"state": HoldState.HELD, "reason": reason, "held_at": held_at, "by": self._identity}
        documents = [
            held
            | {"_id": Int64(pool.pool_id), "empty_at": Int64(pool.empty_at)}
            | {"owner": pool.owner, "workloads": pool.workloads}
            for pool in pools
        ]
        earlier = _ids(pool.pool_id for pool in pools) | {"released_at": {"$not": {"$gte": held_at}}}
        failed: set[int] = set()
        try:
            with translated("holding pools"):
                await self._holds.delete_many(earlier)
                await self._holds.insert_many(documents, ordered=False)
        except StoreConflictError as error:
            if not is_duplicate(error):
                raise
            failed = failed_writes(error)
        for index, pool in enumerate(pools):
            if index not in failed:
                self._record(EventKind.HELD, Subject(pool.pool_id, pool.owner), Why(reason, empty_at=pool.empty_at))

    async def release(self, pool_ids: Sequence[int], *, at: float) -> list[int]:
        """Release those of the pools that are held, and return them."""
        held = {**_ids(pool_ids), "state": HoldState.HELD}
        released_at = datetime.fromtimestamp(at, UTC)
        released = {"state": HoldState.RELEASED, "released_at": released_at, "released_by": self._identity}
        with translated("releasing pools"):
            found = await self._holds.find(held, dict.fromkeys(NUMBERS, 1)).to_list(None)
            await self._holds.update_many(held, {"$set": released})
        numbers = [[integer(document.get(name)) for name in NUMBERS] for document in found]
        for pool_id, empty_at, owner, _ in numbers:
            self._record(EventKind.RELEASED, Subject(pool_id, owner), Why("brake", empty_at=empty_at))
        return [pool_id for pool_id, *_ in numbers if pool_id is not None]

    async def drop(self, holds: Iterable[Hold]) -> None:
        """Delete holds, except those of pools that have been held or released since; a held pool is released by it."""
        holds = list(holds)
        deletes = [
            DeleteOne({"_id": Int64(hold.pool_id), "state": hold.state, "empty_at": Int64(hold.empty_at)})
            for hold in holds
        ]
        if deletes and not self.dry_run:
            with translated("dropping holds"):
                await self._holds.bulk_write(deletes, ordered=False)
            for hold in holds:
                if hold.state is HoldState.HELD:
                    why = Why("brake: topped up, or not due any more", empty_at=hold.empty_at)
                    self._record(EventKind.RELEASED, Subject(hold.pool_id, hold.owner), why)


def _ids(pool_ids: Iterable[int]) -> dict[str, Any]:
    return {"_id": {"$in": [Int64(pool_id) for pool_id in pool_ids]}}


def _readable(documents: Iterable[Mapping[str, Any]]) -> list[Hold]:
    """Read holds; an unreadable document holds nothing. Older versions wrote neither owner nor workloads."""
    holds = []
    for document in documents:
        pool_id, empty_at, owner, workloads = (integer(document.get(name)) for name in NUMBERS)
        at, reason, by = (document.get(name) for name in ("held_at", "reason", "by"))
        held_at = int(at.timestamp()) if isinstance(at, datetime) else 0
        state = HoldState.RELEASED if document.get("state") == HoldState.RELEASED else HoldState.HELD
        if pool_id is not None and empty_at is not None:
            holds.append(Hold(pool_id, state, str(reason), empty_at, held_at, str(by), owner, workloads or 0))
    return holds
