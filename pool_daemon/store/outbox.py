"""The outbox: events for the owners of pools, one document for each event and receiver, until it is delivered.

Other programs may follow it by a change stream: DATA.md describes it. Whoever is to receive an event, the document is
inserted by the transaction that makes the event true.
"""

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from bson import Int64
from pymongo import ReturnDocument

from pool_daemon.errors import UnreadableDocumentError
from pool_daemon.plain_text import cut, shown_id
from pool_daemon.store.cases import Case
from pool_daemon.store.client import Collection as Documents
from pool_daemon.store.client import Database
from pool_daemon.store.error_mapping import REASON_CHARACTERS, translated
from pool_daemon.store.sessions import Session

OUTBOX: Final = "pool-daemon-outbox"

NAMED_WORKLOADS: Final = 100
"""The most workloads of a pool that an event names; it counts them all."""

PURGED: Final = 1000
"""Old documents removed at once."""

AT_ONCE: Final = datetime.fromtimestamp(0, UTC)


class DeliveryState(StrEnum):
    """The state of an event for one receiver."""

    PENDING = "pending"
    DELIVERED = "delivered"
    SUPERSEDED = "superseded"
    DEAD = "dead"


class MessageKind(StrEnum):
    """The type of an event; of `pools…` there are several in one."""

    EXPIRING = "pool.expiring"
    MANY_EXPIRING = "pools.expiring"
    REPLENISHED = "pool.replenished"
    MANY_REPLENISHED = "pools.replenished"
    EXHAUSTED = "pool.exhausted"
    DECOMMISSIONED = "workloads.decommissioned"
    TEST = "pool-daemon.test"


ENDINGS: Final = frozenset({MessageKind.EXPIRING, MessageKind.MANY_EXPIRING, MessageKind.EXHAUSTED})
"""The types of events that tell of a pool's end, before it or in it."""


@dataclass(frozen=True, slots=True)
class Message:
    """An event of one owner's pools before it is written; `pools` say what JSON says of each.

    `at` is when it became true and `useful_until` until when it is worth sending, in unix seconds.
    """

    event_id: str
    kind: MessageKind
    owner: int
    pools: Sequence[Mapping[str, Any]]
    at: float
    useful_until: float


@dataclass(frozen=True, slots=True)
class Entry:
    """An event for one receiver; instants in unix seconds, `leased_until` as the token of a claim."""

    key: str
    event_id: str
    receiver: str | None
    kind: str
    owner: int
    pools: tuple[Mapping[str, Any], ...]
    event: Mapping[str, Any]
    state: DeliveryState
    attempts: int
    created_at: float
    next_at: float
    useful_until: float
    leased_until: datetime
    last_error: str | None


def new_event_id() -> str:
    """Return an id for an event: the same for all receivers and over all attempts to deliver it."""
    return uuid.uuid4().hex


def entry_key(event_id: str, receiver: str | None) -> str:
    """Return the id of the document of an event and a receiver."""
    return event_id if receiver is None else f"{event_id}:{receiver}"


def has_ended(case: Case) -> bool:
    """Return whether there is anything to tell of a pool that was settled."""
    return bool(case.gone) or _is_first_sync(case)


def _is_first_sync(case: Case) -> bool:
    return case.as_read.last_updated < case.as_read.empty_at


class Outbox:
    """The collection `pool-daemon-outbox`.

    `receivers` are the names of those that are configured. Without any, an event counts as delivered once it is
    written. Documents are removed `keep_seconds` after they were written. Every method raises StoreUnavailableError
    when MongoDB is away, and StoreRefusedError when it refuses.
    """

    def __init__(self, *, database: Database, receivers: Sequence[str], keep_seconds: float) -> None:
        self._documents: Documents = database.collection(OUTBOX)
        self._source = f"/pool-daemon/{database.name}"
        self._keep = timedelta(seconds=keep_seconds)
        self.receivers: tuple[str | None, ...] = tuple(receivers) or (None,)

    async def add(self, messages: Iterable[tuple[Message, Collection[str | None]]], session: Session) -> None:
        """Write events, each for some of the configured receivers, as part of a transaction."""
        documents = [
            self._document(message, receiver)
            for message, wanted in messages
            for receiver in self.receivers
            if receiver in wanted
        ]
        if documents:
            with translated("writing to the outbox"):
                await self._documents.insert_many(documents, ordered=False, session=session)

    async def record_ends(self, cases: Iterable[Case], *, at: float, session: Session) -> bool:
        """Write what a batch does at the unix instant `at`: which pools have run empty, and which lose workloads.

        Owner by owner, so that a storm costs few documents. Of a pool that runs empty `pool.exhausted` is written once,
        by the first batch that syncs it; if another writer has written the pool since its end, it is left out. Returns
        whether there was anything to write.
        """
        ends: dict[tuple[MessageKind, int], list[Mapping[str, Any]]] = {}
        for case in cases:
            pool = case.as_read
            told: dict[str, Any] = {"pool_id": Int64(pool.pool_id), "empty_at": Int64(pool.empty_at)}
            if _is_first_sync(case):
                ends.setdefault((MessageKind.EXHAUSTED, pool.customer_tid), []).append(told)
            if case.gone:
                named = [shown_id(gone.workload_id) for gone in case.gone[:NAMED_WORKLOADS]]
                resources = sorted({str(resource) for gone in case.gone for resource in gone.resources})
                lost = {"workloads": len(case.gone), "workload_ids": named, "resources": resources}
                ends.setdefault((MessageKind.DECOMMISSIONED, pool.customer_tid), []).append(told | lost)
        until = at + self._keep.total_seconds()
        messages = [Message(new_event_id(), kind, owner, pools, at, until) for (kind, owner), pools in ends.items()]
        await self.add([(message, self.receivers) for message in messages], session)
        return bool(messages)

    async def deliveries(
        self, event_ids: Collection[str], session: Session | None = None
    ) -> dict[str, dict[str | None, Entry]]:
        """Return, by event and receiver, what became of some events; of one that was removed nothing."""
        keys = [entry_key(event_id, receiver) for event_id in event_ids for receiver in self.receivers]
        with translated("reading the outbox"):
            documents = await self._documents.find({"_id": {"$in": keys}}, session=session).to_list(None)
        found: dict[str, dict[str | None, Entry]] = {}
        for entry in map(_entry, documents):
            found.setdefault(entry.event_id, {})[entry.receiver] = entry
        return found

    async def delivered(self, since: Mapping[int, float], session: Session | None = None) -> set[int]:
        """Return which pools' owners have been told of the coming end, or of the end itself, since a unix instant each.

        That asks what `grace.until_told` asks. Told means: an event on the pool was written then or later, some
        receiver has taken it, and it waits for none. One that is dead, or no longer true, counts for nothing.
        """
        ids = [Int64(pool_id) for pool_id in since]
        first = datetime.fromtimestamp(min(since.values(), default=0.0), UTC)
        query = {"event.data.pools.pool_id": {"$in": ids}, "created_at": {"$gte": first}}
        wanted = {"state": 1, "created_at": 1, "event.type": 1, "event.data.pools.pool_id": 1}
        states: dict[int, set[str]] = {pool_id: set() for pool_id in since}
        with translated("reading what was delivered"):
            documents = await self._documents.find(query, wanted, session=session).to_list(None)
        for document in documents:
            if document["event"]["type"] in ENDINGS:
                for pool_id in states.keys() & {pool["pool_id"] for pool in document["event"]["data"]["pools"]}:
                    if document["created_at"].timestamp() >= since[pool_id]:
                        states[pool_id].add(document["state"])
        return {
            each
            for each, found in states.items()
            if DeliveryState.DELIVERED in found and DeliveryState.PENDING not in found
        }

    async def claim(self, receiver: str, *, seconds: float) -> Entry | None:
        """Claim the event that is due next, for so many seconds of the database's clock; None if none is due.

        A claim that is not finished, as after a crash, ends by itself, and the event is claimed again.
        """
        due = {"$and": [{"$lte": ["$next_at", "$$NOW"]}, {"$lte": ["$leased_until", "$$NOW"]}]}
        leased_until = {"$add": ["$$NOW", int(seconds * 1000)]}
        with translated("claiming an event"):
            document = await self._documents.find_one_and_update(
                {"receiver": receiver, "state": DeliveryState.PENDING, "$expr": due},
                [{"$set": {"leased_until": leased_until, "attempts": {"$add": ["$attempts", 1]}}}],
                sort=[("next_at", 1)],
                return_document=ReturnDocument.AFTER,
            )
        return None if document is None else _entry(document)

    async def finish(self, entry: Entry, state: DeliveryState, *, error: str | None = None) -> bool:
        """Record what became of a claimed event; False if the claim has ended, and another may have been made."""
        return await self._settle(entry, {"state": state, "last_error": error})

    async def postpone(self, entry: Entry, *, seconds: float, error: str | None) -> bool:
        """Give a claimed event back, to be claimed again after some seconds of the database's clock."""
        next_at = {"$add": ["$$NOW", int(seconds * 1000)]}
        return await self._settle(entry, {"next_at": next_at, "last_error": error})

    async def _settle(self, entry: Entry, change: Mapping[str, Any]) -> bool:
        claim = {"_id": entry.key, "state": DeliveryState.PENDING, "leased_until": entry.leased_until}
        literal = {name: value if isinstance(value, dict) else {"$literal": value} for name, value in change.items()}
        with translated("recording a delivery"):
            result = await self._documents.update_one(claim, [{"$set": literal | {"leased_until": AT_ONCE}}])
        return result.matched_count == 1

    async def revive(self, event_id: str, *, now: float) -> list[str]:
        """Make an event pending again for every receiver, delivered or not; return for which it was not before.

        It is worth sending for as long again as it is kept.
        """
        until = datetime.fromtimestamp(now, UTC) + self._keep
        change = {"state": DeliveryState.PENDING, "next_at": AT_ONCE, "useful_until": until, "expires_at": until}
        keys = {name: entry_key(event_id, name) for name in self.receivers if name is not None}
        revived = []
        for name, key in keys.items():
            with translated("sending an event again"):
                result = await self._documents.update_one(
                    {"_id": key, "state": {"$ne": DeliveryState.PENDING}}, {"$set": change}
                )
            revived += [name] * result.modified_count
        return revived

    async def page(self, *, states: Collection[DeliveryState], limit: int) -> list[Entry]:
        """Return the newest events in some states."""
        query = {"state": {"$in": list(states)}}
        with translated("reading the outbox"):
            documents = await self._documents.find(query, sort=[("expires_at", -1)], limit=limit).to_list(limit)
        return [_entry(document) for document in documents]

    async def purge(self, *, now: float) -> None:
        """Remove documents that have been kept for long enough at the unix instant `now`, some at a time."""
        old = {"expires_at": {"$lte": datetime.fromtimestamp(now, UTC)}}
        with translated("emptying the outbox"):
            found = await self._documents.find(old, {"_id": 1}, limit=PURGED).to_list(PURGED)
            if found:
                await self._documents.delete_many({"_id": {"$in": [document["_id"] for document in found]}})

    def _document(self, message: Message, receiver: str | None) -> dict[str, Any]:
        created_at = datetime.fromtimestamp(message.at, UTC)
        (pool_id, *more) = (pool["pool_id"] for pool in message.pools)
        return {
            "_id": entry_key(message.event_id, receiver),
            "event_id": message.event_id,
            "receiver": receiver,
            "state": DeliveryState.DELIVERED if receiver is None else DeliveryState.PENDING,
            "event": {
                "specversion": "1.0",
                "id": message.event_id,
                "source": self._source,
                "type": message.kind,
                "subject": f"owner/{message.owner}" if more else f"pool/{pool_id}",
                "time": created_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "datacontenttype": "application/json",
                "data": {"customer_tid": Int64(message.owner), "pools": list(message.pools)},
            },
            "attempts": 0,
            "created_at": created_at,
            "next_at": AT_ONCE,
            "leased_until": AT_ONCE,
            "useful_until": datetime.fromtimestamp(message.useful_until, UTC),
            "expires_at": created_at + self._keep,
            "last_error": None,
        }


def _entry(document: Mapping[str, Any]) -> Entry:
    try:
        return _read(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnreadableDocumentError(f"{OUTBOX} {shown_id(document['_id'])}: another program has spoilt it") from error


def _read(document: Mapping[str, Any]) -> Entry:
    event = document["event"]
    return Entry(
        key=document["_id"],
        event_id=document["event_id"],
        receiver=document["receiver"],
        kind=event["type"],
        owner=event["data"]["customer_tid"],
        pools=tuple(event["data"]["pools"]),
        event=event,
        state=DeliveryState(document["state"]),
        attempts=document["attempts"],
        created_at=document["created_at"].timestamp(),
        next_at=document["next_at"].timestamp(),
        useful_until=document["useful_until"].timestamp(),
        leased_until=document["leased_until"],
        last_error=None if document["last_error"] is None else cut(str(document["last_error"]), REASON_CHARACTERS),
    )
