"""What was told of pools that run empty soon, and the transaction that tells more."""

from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from bson import Int64
from pymongo import DeleteOne, ReplaceOne

from pool_daemon.capacity import fields
from pool_daemon.errors import UnreadableDocumentError
from pool_daemon.store.client import PAGE, Database, pages
from pool_daemon.store.error_mapping import translated
from pool_daemon.store.outbox import Entry, Message, Outbox
from pool_daemon.store.pool_counts import Upcoming
from pool_daemon.store.pools import CAPACITY_POOLS
from pool_daemon.store.receivers import ReceiverStore
from pool_daemon.store.sessions import Session

NOTICES: Final = "pool-daemon-notices"

ENDS: Final = ("_id", "customer_tid", "empty_at")
"""The fields of a pool that are read."""

NUMBERS: Final = ("_id", "lead_seconds", "empty_at")


@dataclass(frozen=True, slots=True)
class LastNotice:
    """What was told last of a pool: the lead (seconds), the event, and when the pool was to run empty then."""

    pool_id: int
    lead: int
    event_id: str
    empty_at: int
    told_at: float


@dataclass(frozen=True, slots=True)
class Situation:
    """Some pools as they are, what was told of them, and what became of the events that told it."""

    pools: Mapping[int, Upcoming]
    told: Mapping[int, LastNotice]
    deliveries: Mapping[str, Mapping[str | None, Entry]]


@dataclass(slots=True)
class NoticeChanges:
    """What is told now, in which events and to which receivers, and of which pools nothing is told any more."""

    told: list[LastNotice] = field(default_factory=list)
    forgotten: list[int] = field(default_factory=list)
    messages: list[tuple[Message, Collection[str | None]]] = field(default_factory=list)


class NoticeStore:
    """The collection `pool-daemon-notices`: a document for each pool of which something is told.

    Every method raises StoreUnavailableError when MongoDB is away, and StoreRefusedError when it refuses.
    """

    def __init__(self, *, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._documents = database.collection(NOTICES)
        self._pools = database.collection(CAPACITY_POOLS)
        self.outbox = outbox
        self.receivers = ReceiverStore(database=database)

    async def approaching(self, *, after: int, until: int) -> AsyncGenerator[list[Upcoming], None]:
        """Stream, the first to run empty first, the pools whose `empty_at` lies in (after, until]."""
        query = {"empty_at": {"$gt": Int64(after), "$lte": Int64(until)}}
        cursor = self._pools.find(query, dict.fromkeys(ENDS, 1), sort=[("empty_at", 1)], batch_size=PAGE)
        async with aclosing(pages(cursor, doing="looking for pools that run empty soon")) as found:
            async for documents in found:
                yield _upcoming(documents)

    async def pools(self, pool_ids: Collection[int], session: Session | None = None) -> dict[int, Upcoming]:
        """Return those of some pools that exist and are readable, by id."""
        query = {"_id": {"$in": [Int64(pool_id) for pool_id in pool_ids]}}
        with translated("reading when pools run empty"):
            documents = await self._pools.find(query, dict.fromkeys(ENDS, 1), session=session).to_list(None)
        return {pool.pool_id: pool for pool in _upcoming(documents)}

    async def told(self, pool_ids: Collection[int], session: Session | None = None) -> dict[int, LastNotice]:
        """Return what was told of some pools, by id."""
        query = {"_id": {"$in": [Int64(pool_id) for pool_id in pool_ids]}}
        with translated("reading what was told"):
            documents = await self._documents.find(query, session=session).to_list(None)
        return {told.pool_id: told for told in _all_told(documents)}

    async def all_told(self) -> AsyncGenerator[list[LastNotice], None]:
        """Stream what was told, by pool."""
        cursor = self._documents.find({}, sort=[("_id", 1)], batch_size=PAGE)
        async with aclosing(pages(cursor, doing="reading what was told")) as found:
            async for documents in found:
                yield _all_told(documents)

    async def update(self, pool_ids: Collection[int], decide: Callable[[Situation], NoticeChanges]) -> NoticeChanges:
        """Read some pools again, decide, and write what is told with its events, in one transaction.

        Of two that decide about a pool at once one loses and decides anew: both write the pool's notice. Raises
        StoreConflictError if another wins each time; after StoreUnavailableError it may have been committed, which
        another call finds out.
        """

        async def decide_and_write(session: Session) -> NoticeChanges:
            told = await self.told(pool_ids, session)
            deliveries = await self.outbox.deliveries({each.event_id for each in told.values()}, session)
            changes = decide(Situation(await self.pools(pool_ids, session), told, deliveries))
            await self._write(changes, session)
            return changes

        return await self._database.transact(decide_and_write, doing="committing notices")

    async def forget(self, pool_ids: Iterable[int], *, event_id: str) -> None:
        """Take back that an event has told these pools, so that they are told again when they are near."""
        query = {"_id": {"$in": [Int64(pool_id) for pool_id in pool_ids]}, "event_id": event_id}
        with translated("taking notices back"):
            await self._documents.delete_many(query)

    async def _write(self, changes: NoticeChanges, session: Session) -> None:
        writes: list[Any] = [
            ReplaceOne({"_id": Int64(each.pool_id)}, _document(each), upsert=True) for each in changes.told
        ]
        writes += [DeleteOne({"_id": Int64(pool_id)}) for pool_id in changes.forgotten]
        if writes:
            with translated("writing notices"):
                await self._documents.bulk_write(writes, ordered=False, session=session)
        await self.outbox.add(changes.messages, session)


def _document(told: LastNotice) -> dict[str, Any]:
    return {
        "_id": Int64(told.pool_id),
        "lead_seconds": told.lead,
        "event_id": told.event_id,
        "empty_at": Int64(told.empty_at),
        "told_at": datetime.fromtimestamp(told.told_at, UTC),
    }


def _all_told(documents: Sequence[Mapping[str, Any]]) -> list[LastNotice]:
    """Return what was told; a document that another program has spoilt counts as if it were not there."""
    found = []
    for document in documents:
        with suppress(KeyError, AttributeError, UnreadableDocumentError):
            pool_id, lead, empty_at = (fields.whole(document, name, UnreadableDocumentError) for name in NUMBERS)
            found.append(
                LastNotice(pool_id, lead, str(document["event_id"]), empty_at, document["told_at"].timestamp())
            )
    return found


def _upcoming(documents: Sequence[Mapping[str, Any]]) -> list[Upcoming]:
    found = []
    for document in documents:
        with suppress(UnreadableDocumentError):
            pool_id, empty_at = (fields.whole(document, name, UnreadableDocumentError) for name in ("_id", "empty_at"))
            found.append(Upcoming(pool_id, fields.whole_or_none(document, "customer_tid") or 0, empty_at))
    return found
