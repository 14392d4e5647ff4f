"""What every change of a pool by an operator is made of: the claim on the pool, its update, and the record.

All of them are part of one transaction, which also holds what else the change writes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from bson import Int64, json_util

from pool_daemon.capacity.pool import Pool
from pool_daemon.store.client import Database
from pool_daemon.store.codec import RAW, decoded, pool_from_document, pool_to_document
from pool_daemon.store.error_mapping import translated
from pool_daemon.store.pools import CAPACITY_POOLS
from pool_daemon.store.records import Actor, ActorKind, EventKind, Subject, Why, envelope, numbers
from pool_daemon.store.sessions import Session

ATTEMPTS: Final = 10
"""How often a change that loses to another writer is begun; nobody else waits for it."""


@dataclass(frozen=True, slots=True)
class Author:
    """Who makes a change, with which version of the program, and why; it is made once for each `key`."""

    identity: str
    version: str
    key: str
    reason: str = ""

    @property
    def record_id(self) -> str:
        """The id of the change's record: no other change has it."""
        return f"operator:{self.key}"


@dataclass(frozen=True, slots=True)
class Write:
    """One document to be inserted into a collection, or an update of one: MongoDB's own operators."""

    collection: str
    query: Mapping[str, Any] | None
    document: Mapping[str, Any]

    def to_json(self) -> str:
        """Return the write as one line of MongoDB's extended JSON."""
        how = "insert" if self.query is None else "update"
        where = {} if self.query is None else {"where": self.query}
        return json_util.dumps({how: self.collection, **where, "document": self.document})


async def read_pool(database: Database, pool_id: int, session: Session | None = None) -> Pool | None:
    """Return a pool, None if it has no document."""
    with translated(f"reading pool {pool_id}"):
        raw = await database.collection(CAPACITY_POOLS, RAW).find_one({"_id": Int64(pool_id)}, session=session)
    return None if raw is None else pool_from_document(decoded(raw))


async def claim_pool(database: Database, pool_id: int, session: Session) -> Pool | None:
    """Read a pool by writing to it, as the first of a transaction: from now on its other writers wait for us.

    After a plain read, one that writes all the time would win each time. The pool is returned as it was before.
    """
    pools = database.collection(CAPACITY_POOLS, RAW)
    claimed = {"_id": Int64(pool_id), "last_updated": {"$type": "number"}}
    with translated(f"changing pool {pool_id}"):
        raw = await pools.find_one_and_update(claimed, {"$inc": {"last_updated": Int64(1)}}, session=session)
    return await read_pool(database, pool_id, session) if raw is None else pool_from_document(decoded(raw))


def pool_write(before: Pool | None, after: Pool) -> Write:
    """Return the insertion of a new pool, or the update of one that was claimed: it changes at least `last_updated`."""
    document = pool_to_document(after)
    if before is None:
        return Write(CAPACITY_POOLS, None, document)
    # The explorer, too, writes all fields back, those that were missing among them.
    former = pool_to_document(before)
    changes = {name: value for name, value in document.items() if value != former[name]}
    changes.setdefault("last_updated", document["last_updated"])
    return Write(CAPACITY_POOLS, {"_id": document["_id"]}, {"$set": changes})


def change_record(
    author: Author, kind: EventKind, before: Pool | None, after: Pool, told: Mapping[str, Any], *, now: int
) -> dict[str, Any]:
    """Return the record of a change at the unix second `now`; `told` is what was asked for."""
    record = envelope(
        kind,
        at=now,
        actor=Actor(ActorKind.OPERATOR, author.identity, author.version),
        subject=Subject(after.pool_id, after.customer_tid),
        why=Why(author.reason),
    )
    # These two are null where there is nothing, and the id is the key of the change.
    record |= {"_id": author.record_id, "before": None if before is None else numbers(before), "after": numbers(after)}
    return record | dict(told)


async def carry_out(database: Database, writes: Iterable[Write], session: Session, *, doing: str) -> None:
    """Make writes in a transaction."""
    for write in writes:
        collection = database.collection(write.collection)
        with translated(doing):
            if write.query is None:
                await collection.insert_one(dict(write.document), session=session)
            else:
                await collection.update_one(write.query, write.document, session=session)
