"""The change stream: other writers' changes to pools and workloads that can move a deadline.

The stream's two commands are sent directly. So a batch of changes costs one round trip instead of one for each. Every
way a stream ends can be told from the others. The resume token, which the server moves even when nothing changes, is
visible.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from pool_daemon.capacity import fields
from pool_daemon.capacity.workload import NextAction
from pool_daemon.errors import UnreadableDocumentError
from pool_daemon.store.client import STREAM_AWAIT_MS, Database
from pool_daemon.store.error_mapping import translated_stream
from pool_daemon.store.pools import CAPACITY_POOLS
from pool_daemon.store.sessions import Session
from pool_daemon.store.workloads import WORKLOADS

BATCH: Final = 1000
"""Changes a round trip; at 2,000 changes a second two round trips."""


class ChangeSubject(StrEnum):
    """The kind of document that a change concerns."""

    POOL = "pool"
    WORKLOAD = "workload"
    COLLECTION = "collection"


@dataclass(frozen=True, slots=True)
class Change:
    """One change that may move a deadline.

    `subject_id` is the document's id. Of a pool it is None if it is no integer; of a workload it may be of any type,
    hashable or not. `empty_at` (unix seconds) is the pool's new deadline, `owner` its owner (an update does not tell),
    `pool_id` the pool of a workload that is now deployed or was moved; all are None where the event does not carry them
    or they cannot be read. `removed`: the pool
    was deleted. `amounts_only`: only its amounts changed, its end and its rates did not. A change of a whole collection
    (dropped, renamed), these two or another, has neither id. `at` is the unix second of the write, by the server's
    clock.
    """

    subject: ChangeSubject
    subject_id: Any = None
    empty_at: int | None = None
    owner: int | None = None
    pool_id: int | None = None
    removed: bool = False
    amounts_only: bool = False
    at: int = 0


@dataclass(frozen=True, slots=True)
class ChangeBatch:
    """The events of one answer of the stream, to be read with `change_of`, and the token to resume behind them."""

    events: Sequence[Mapping[str, Any]]
    token: Mapping[str, Any]


class ChangeStream:
    """An open change stream."""

    def __init__(self, *, database: Database, session: Session, first: Mapping[str, Any]) -> None:
        self._database = database
        self._session = session
        self._cursor = first

    def __aiter__(self) -> AsyncIterator[ChangeBatch]:
        """Iterate over the answers, empty ones included."""
        return self._batches()

    async def _batches(self) -> AsyncIterator[ChangeBatch]:
        events = self._cursor["firstBatch"]
        while True:
            yield ChangeBatch(events, self._cursor["postBatchResumeToken"])
            if self._cursor["id"] == 0:  # the last change was an invalidate: the cursor ends without an error
                return
            events = await self._next()

    async def _next(self) -> Sequence[Mapping[str, Any]]:
        with translated_stream():
            answer = await self._database.stream_command(
                {
                    "getMore": self._cursor["id"],
                    "collection": "$cmd.aggregate",
                    "batchSize": BATCH,
                    "maxTimeMS": STREAM_AWAIT_MS,
                },
                self._session,
            )
        self._cursor = answer["cursor"]
        events: Sequence[Mapping[str, Any]] = self._cursor["nextBatch"]
        return events


_UPDATED = "updateDescription.updatedFields"

DEADLINE_FIELDS: Final = ("empty_at", "active_cu", "active_su", "active_ipv4")
"""Fields of a pool that decide when it runs empty, or how fast."""

AMOUNT_FIELDS: Final = ("cus", "sus", "ipv4us")
"""Fields of a pool that hold what is left. Its end may stay as it is while another resource runs out sooner."""

OF_COLLECTIONS: Final = frozenset({"drop", "rename", "dropDatabase", "invalidate"})
"""Changes of whole collections, of any name: a restored backup is renamed into place from a collection of another
name."""

OF_DOCUMENTS: Final = frozenset({"insert", "replace", "update", "delete"})
"""Changes of one document."""


CHANGE_FIELDS: Final = {
    "operationType": 1,
    "clusterTime": 1,
    "ns.coll": 1,
    "documentKey._id": 1,
    "fullDocument.empty_at": 1,
    "fullDocument.pool_id": 1,
    "fullDocument.customer_tid": 1,
    **{f"{_UPDATED}.{name}": 1 for name in (*DEADLINE_FIELDS, "pool_id")},
}
"""The fields of a change that the server sends."""


def _pipeline(database: str) -> list[Mapping[str, Any]]:
    """Return the stages that filter a database's changes and cut them down.

    The daemon's own write of a synced pool changes amounts and `last_updated` together, in a transaction, and leaves
    the end as it was. Exactly such writes are left out. No other writer's update is lost by that, because every other
    writer that syncs a pool computes its end anew. Yet the server evaluates all that the daemon writes, so in a storm
    the cost of the filter matters. A whole namespace is compared at once, where a collection's name alone would be a
    pattern. For the same reason the collection that was dropped or renamed is not compared; that is rare.
    """
    pools, workloads = ({"db": database, "coll": name} for name in (CAPACITY_POOLS, WORKLOADS))
    relevant: list[Mapping[str, Any]] = [
        {"ns": pools, "operationType": {"$in": ["insert", "replace", "delete"]}},
        {
            "ns": pools,
            "operationType": "update",
            "$or": [_is_updated(name) for name in (*DEADLINE_FIELDS, *AMOUNT_FIELDS)],
        },
        {
            "ns": workloads,
            "operationType": {"$in": ["insert", "replace"]},
            "fullDocument.next_action": int(NextAction.DEPLOY),
        },
        {
            "ns": workloads,
            "operationType": "update",
            "$or": [{f"{_UPDATED}.next_action": int(NextAction.DEPLOY)}, _is_updated("pool_id")],
        },
        {"operationType": {"$in": sorted(OF_COLLECTIONS)}},
    ]
    return [
        {"$match": {"$or": relevant}},
        # Matched directly, the filter would be applied to the oplog, where a retryable write has a transaction number,
        # too.
        {"$set": {"in_transaction": {"$ne": [{"$type": "$txnNumber"}, "missing"]}}},
        {
            "$match": {
                "$or": [
                    {"in_transaction": False},
                    {"ns": {"$ne": pools}},
                    {"operationType": {"$ne": "update"}},
                    {f"{_UPDATED}.last_updated": {"$exists": False}},
                    *map(_is_updated, DEADLINE_FIELDS),
                ]
            }
        },
        {"$project": CHANGE_FIELDS},
    ]


def _is_updated(name: str) -> Mapping[str, Any]:
    return {f"{_UPDATED}.{name}": {"$exists": True}}


@asynccontextmanager
async def open_stream(
    database: Database, *, token: Mapping[str, Any] | None, stages: Sequence[Mapping[str, Any]] | None = None
) -> AsyncIterator[ChangeStream]:
    """Open the change stream behind `token`, or at the present if that is None.

    `stages` filter the changes; without them, those that can move a deadline come.

    Raises StoreRefusedError (no privilege), StreamTokenError (the changes behind the token are lost),
    StoreUnavailableError.
    """
    options: dict[str, Any] = {} if token is None else {"startAfter": token}
    session = await database.stream_session()
    try:
        with translated_stream():
            answer = await database.stream_command(
                {
                    "aggregate": 1,
                    "pipeline": [{"$changeStream": options}, *(stages or _pipeline(database.name))],
                    "cursor": {"batchSize": BATCH},
                },
                session,
            )
        yield ChangeStream(database=database, session=session, first=answer["cursor"])
    finally:
        await session.end_session()


async def require_stream(database: Database) -> None:
    """Check the privilege to open a change stream: the server explains it, which requires the same privilege.

    Raises StoreRefusedError with the remedy if it is missing, or StoreUnavailableError.
    """
    session = await database.stream_session()
    try:
        with translated_stream():
            await database.stream_command(
                {
                    "explain": {"aggregate": 1, "pipeline": [{"$changeStream": {}}], "cursor": {}},
                    "verbosity": "queryPlanner",
                },
                session,
            )
    finally:
        await session.end_session()


def change_of(event: Mapping[str, Any]) -> Change:
    """Return the change that an event of the stream describes.

    Raises any exception for an event that is not as expected; its content is unknown then, so a full scan has to
    follow.
    """
    operation = event["operationType"]
    collection = event.get("ns", {}).get("coll")
    key = event.get("documentKey", {})
    body = event.get("fullDocument") or event.get("updateDescription", {}).get("updatedFields", {})
    if operation in OF_COLLECTIONS:
        return Change(ChangeSubject.COLLECTION)
    if operation not in OF_DOCUMENTS:
        raise UnreadableDocumentError(f"a change of the unknown kind {operation!r}")
    at = event["clusterTime"].time
    if collection == WORKLOADS:
        return Change(ChangeSubject.WORKLOAD, key.get("_id"), pool_id=_whole(body, "pool_id"), at=at)
    return Change(
        ChangeSubject.POOL,
        _whole(key, "_id"),
        empty_at=_whole(body, "empty_at"),
        owner=_whole(body, "customer_tid"),
        removed=operation == "delete",
        amounts_only=operation == "update" and not body,
        at=at,
    )


def _whole(body: Mapping[str, Any], name: str) -> int | None:
    try:
        return fields.whole(body, name, UnreadableDocumentError)
    except UnreadableDocumentError:
        return None
