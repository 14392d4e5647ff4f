"""What an operator changes in a pool: each change exactly once, with a record of who made it and why.

A change and its record, whose id is the change's key, are one transaction. So a command that is repeated after a broken
connection changes nothing a second time, and no write of the explorer that is committed meanwhile is undone. The other
way round there is no such protection: the explorer writes back all of a pool as it has read it some milliseconds
before, and may undo a change of ours. `PoolEdits.stands` tells.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from bson import Int64, json_util

from pool_daemon.capacity.pool import Amounts, Pool, new_pool
from pool_daemon.errors import CapacityError, PoolNotFoundError, StoreConflictError
from pool_daemon.store.client import Database, Session
from pool_daemon.store.codec import RAW, decoded, pool_from_document, pool_to_document
from pool_daemon.store.error_mapping import translated
from pool_daemon.store.pools import CAPACITY_POOLS, next_id
from pool_daemon.store.records import EVENTS, NUMBERS, Actor, ActorKind, EventKind, Subject, Why, envelope, numbers

ATTEMPTS: Final = 10
"""How often a change that loses to another writer is begun; nobody else waits for it."""


@dataclass(frozen=True, slots=True)
class Author:
    """Who makes a change, with which version of the program, and why; it is made once for each `key`."""

    identity: str
    version: str
    key: str
    reason: str = ""


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


@dataclass(frozen=True, slots=True)
class Edit:
    """A change: the pool after it, and before if there was one, and its writes. `repeated`: it was made before."""

    after: Pool
    before: Pool | None
    writes: tuple[Write, ...]
    repeated: bool = False


class PoolEdits:
    """Changes pools on behalf of `author`; in a `dry_run` everything is read and decided, and nothing is written.

    Every method takes the present as unix second `now`. Every method raises StoreConflictError if other writers of the
    pool win each time, or if the key belongs to another change; StoreUnavailableError, in which case the change may
    have been made: repeat it with its key; StoreRefusedError.
    """

    def __init__(self, *, database: Database, author: Author, dry_run: bool = False) -> None:
        self._database = database
        self._author = author
        self._dry_run = dry_run
        self._raw = database.collection(CAPACITY_POOLS, RAW)
        self._events = database.collection(EVENTS)

    async def create(self, owner_tid: int, sponsor_tid: int, node_ids: list[str], amounts: Amounts, now: int) -> Edit:
        """Create a pool with these amounts (unit seconds) under the next id; in a dry run its id is 0."""
        pool = new_pool(0, owner_tid, sponsor_tid, node_ids, now=now)
        pool.add_capacity(*amounts, now=now)
        if not self._dry_run and await self._made_before() is None:
            pool.pool_id = await next_id(self._database)

        def created(before: Pool | None) -> Pool:
            if before is not None:
                raise StoreConflictError(f"pool {before.pool_id} exists already: the sequence in `counters` is behind")
            return pool

        told = {
            "amounts": list(amounts),
            "customer_tid": Int64(owner_tid),
            "sponsor_tid": Int64(sponsor_tid),
            "nodes": node_ids,
        }
        return await self._make(EventKind.CREATED, pool.pool_id, created, told, now)

    async def top_up(self, pool_id: int, amounts: Amounts, now: int) -> Edit:
        """Add amounts (unit seconds) to a pool.

        Raises PoolNotFoundError, UnreadableDocumentError, NotFiniteError.
        """
        return await self._change(
            EventKind.TOPPED_UP,
            pool_id,
            lambda pool: pool.add_capacity(*amounts, now=now),
            {"amounts": list(amounts)},
            now,
        )

    async def add_nodes(self, pool_id: int, node_ids: list[str], now: int) -> Edit:
        """Allow a pool's workloads on more nodes.

        Raises PoolNotFoundError, UnreadableDocumentError.
        """

        def add(pool: Pool) -> None:
            present = pool.node_ids or []
            pool.node_ids = [*present, *(each for each in node_ids if each not in present)]

        return await self._change(EventKind.NODES_ADDED, pool_id, add, {"nodes": node_ids}, now)

    async def end(self, pool_id: int, now: int) -> Edit:
        """Take all that is left from a pool, so that the daemon stops what drains it.

        Raises PoolNotFoundError, UnreadableDocumentError, and CapacityError if nothing drains it.
        """

        def take_all(pool: Pool) -> None:
            if not any(pool.draining):
                raise CapacityError(f"pool {pool_id}: nothing drains it, so there is nothing to end")
            pool.cus = pool.sus = pool.ipv4us = 0.0
            pool.add_capacity(0, 0, 0, now=now)

        return await self._change(EventKind.ENDED, pool_id, take_all, {}, now)

    async def stands(self, edit: Edit, now: int) -> bool:
        """Return whether a change is still there at the unix second `now`: the explorer may have undone it unknowingly.

        To be asked some seconds later. Half of what was added may have gone elsewhere, to a workload deployed since.
        """
        pool = await self._read(edit.after.pool_id)
        if pool is None:
            return False
        wanted, found, before = (replace(each) for each in (edit.after, pool, edit.before or edit.after))
        for each in (wanted, found, before):
            each.sync_current_capacity(now)
        kept = all(
            abs(getattr(found, name) - getattr(wanted, name)) <= abs(getattr(wanted, name) - getattr(before, name)) / 2
            for name in NUMBERS[:3]
            if getattr(wanted, name) != getattr(before, name)
        )
        return kept and set(wanted.node_ids or []) <= set(found.node_ids or [])

    async def _change(
        self, kind: EventKind, pool_id: int, change: Callable[[Pool], None], told: Mapping[str, Any], now: int
    ) -> Edit:
        def changed(before: Pool | None) -> Pool:
            if before is None:
                raise PoolNotFoundError(f"pool {pool_id}: the specified pool could not be found")
            after = replace(before)
            change(after)
            return after

        return await self._make(kind, pool_id, changed, told, now)

    async def _make(
        self, kind: EventKind, pool_id: int, decide: Callable[[Pool | None], Pool], told: Mapping[str, Any], now: int
    ) -> Edit:
        async def decide_and_write(session: Session | None) -> Edit:
            if session is not None:
                before = await self._claim(pool_id, session)
            else:
                before = await self._read(pool_id) if pool_id else None
            after = decide(before)
            edit = Edit(after, before, (self._pool_write(before, after), self._record(kind, before, after, told, now)))
            if session is not None:
                for write in edit.writes:
                    await self._write(write, pool_id, session)
            return edit

        made = await self._made_before()
        if made is None:
            if self._dry_run:
                return await decide_and_write(None)
            try:
                return await self._database.transact(decide_and_write, attempts=ATTEMPTS)
            except StoreConflictError:
                made = await self._made_before()  # another run with this key was faster, and its record is there
                if made is None:
                    raise
        return self._repeated(made, await self._read(made["pool_id"]), kind, pool_id, told)

    async def _write(self, write: Write, pool_id: int, session: Session) -> None:
        collection = self._database.collection(write.collection)
        with translated(f"changing pool {pool_id}"):
            if write.query is None:
                await collection.insert_one(dict(write.document), session=session)
            else:
                await collection.update_one(write.query, write.document, session=session)

    async def _made_before(self) -> Mapping[str, Any] | None:
        """Return the record of the change with the author's key, if it was made."""
        with translated("reading the record of a change"):
            record: Mapping[str, Any] | None = await self._events.find_one({"_id": self._id()})
        return record

    def _repeated(
        self, record: Mapping[str, Any], now: Pool | None, kind: EventKind, pool_id: int, told: Mapping[str, Any]
    ) -> Edit:
        same = record.get("kind") == kind and all(record.get(name) == value for name, value in told.items())
        if not same or (kind is not EventKind.CREATED and record.get("pool_id") != pool_id):
            raise StoreConflictError(f"the key {self._author.key} belongs to another change; choose a new one")
        if now is None:
            raise PoolNotFoundError(f"pool {record['pool_id']}: was changed with this key, and is gone since")
        return Edit(now, now, (), repeated=True)

    async def _read(self, pool_id: int, session: Session | None = None) -> Pool | None:
        with translated(f"reading pool {pool_id}"):
            raw = await self._raw.find_one({"_id": Int64(pool_id)}, session=session)
        return None if raw is None else pool_from_document(decoded(raw))

    async def _claim(self, pool_id: int, session: Session) -> Pool | None:
        """Read a pool by writing to it, as the first of a transaction: from now on its other writers wait for us.

        After a plain read, one that writes all the time would win each time. The pool is returned as it was before.
        """
        claimed = {"_id": Int64(pool_id), "last_updated": {"$type": "number"}}
        with translated(f"changing pool {pool_id}"):
            raw = await self._raw.find_one_and_update(claimed, {"$inc": {"last_updated": Int64(1)}}, session=session)
        return await self._read(pool_id, session) if raw is None else pool_from_document(decoded(raw))

    def _pool_write(self, before: Pool | None, after: Pool) -> Write:
        document = pool_to_document(after)
        if before is None:
            return Write(CAPACITY_POOLS, None, document)
        # The explorer, too, writes all fields back, those that were missing among them.
        former = pool_to_document(before)
        changes = {name: value for name, value in document.items() if value != former[name]}
        changes.setdefault("last_updated", document["last_updated"])
        return Write(CAPACITY_POOLS, {"_id": document["_id"]}, {"$set": changes})

    def _record(self, kind: EventKind, before: Pool | None, after: Pool, told: Mapping[str, Any], now: int) -> Write:
        record = envelope(
            kind,
            at=now,
            actor=Actor(ActorKind.OPERATOR, self._author.identity, self._author.version),
            subject=Subject(after.pool_id, after.customer_tid),
            why=Why(self._author.reason),
        )
        # These two are null where there is nothing, and the id is the key: see the module.
        record |= {"_id": self._id(), "before": None if before is None else numbers(before), "after": numbers(after)}
        record |= told
        return Write(EVENTS, None, record)

    def _id(self) -> str:
        return f"operator:{self._author.key}"
