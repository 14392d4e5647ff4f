"""The pools in quarantine: kept in the database, so that they survive a restart and an operator sees them."""

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from bson import Int64

from pool_daemon.capacity import fields
from pool_daemon.errors import UnreadableDocumentError
from pool_daemon.store.client import PAGE, Collection, Database, pages
from pool_daemon.store.error_mapping import translated

QUARANTINE: Final = "pool-daemon-quarantine"


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A pool that keeps failing, its last failure, and the daemon that recorded it; instants in unix seconds.

    `owner` is None if the daemon could not read it.
    """

    pool_id: int
    reason: str
    tries: int
    first_failed_at: int
    next_try_at: int
    by: str
    owner: int | None = None


class QuarantineStore:
    """The collection `pool-daemon-quarantine`: a document for each pool in quarantine.

    `identity` is the daemon that finds out. In a `dry_run` nothing is written. Every method raises
    StoreUnavailableError when MongoDB is away, and StoreRefusedError when it refuses.
    """

    def __init__(self, *, database: Database, identity: str = "", dry_run: bool = False) -> None:
        self.identity = identity
        self._documents: Collection = database.collection(QUARANTINE)
        self._dry_run = dry_run

    async def save(self, quarantined: Quarantined) -> None:
        """Put a pool into quarantine, or record another failure of it."""
        if self._dry_run:
            return
        document = {
            "_id": Int64(quarantined.pool_id),
            "reason": quarantined.reason,
            "tries": quarantined.tries,
            "first_failed_at": datetime.fromtimestamp(quarantined.first_failed_at, UTC),
            "next_try_at": datetime.fromtimestamp(quarantined.next_try_at, UTC),
            "by": quarantined.by,
            "owner": None if quarantined.owner is None else Int64(quarantined.owner),
        }
        with translated(f"quarantining pool {quarantined.pool_id}"):
            await self._documents.replace_one({"_id": document["_id"]}, document, upsert=True)

    async def remove(self, pool_id: int) -> bool:
        """Remove a pool from quarantine; False if it was not in quarantine."""
        if self._dry_run:
            return False
        with translated(f"releasing pool {pool_id}"):
            result = await self._documents.delete_one({"_id": Int64(pool_id)})
        return result.deleted_count == 1

    async def among(self, pool_ids: Iterable[int]) -> dict[int, Quarantined]:
        """Return, by id, those of some pools that are in quarantine."""
        query = {"_id": {"$in": [Int64(pool_id) for pool_id in pool_ids]}}
        with translated("reading the quarantine"):
            documents = await self._documents.find(query).to_list(None)
        found = [each for document in documents if (each := _quarantined(document)) is not None]
        return {each.pool_id: each for each in found}

    async def all(self) -> AsyncGenerator[Quarantined, None]:
        """Stream every pool in quarantine by id; an unreadable document quarantines nothing."""
        cursor = self._documents.find({}, sort=[("_id", 1)], batch_size=PAGE)
        async with aclosing(pages(cursor, doing="reading the quarantine")) as found:
            async for documents in found:
                for document in documents:
                    if (quarantined := _quarantined(document)) is not None:
                        yield quarantined


def _quarantined(document: Mapping[str, Any]) -> Quarantined | None:
    first_failed_at, next_try_at = document.get("first_failed_at"), document.get("next_try_at")
    if not isinstance(first_failed_at, datetime) or not isinstance(next_try_at, datetime):
        return None
    try:
        return Quarantined(
            pool_id=fields.whole(document, "_id", UnreadableDocumentError),
            reason=str(document.get("reason")),
            tries=fields.whole(document, "tries", UnreadableDocumentError),
            first_failed_at=int(first_failed_at.timestamp()),
            next_try_at=int(next_try_at.timestamp()),
            by=str(document.get("by")),
            owner=fields.whole_or_none(document, "owner"),
        )
    except UnreadableDocumentError:
        return None
