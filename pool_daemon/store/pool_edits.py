"""What an operator changes in a pool: each change exactly once, with a record of who made it and why.

A change and its record, whose id is the change's key, are one transaction. So a command that is repeated after a broken
connection changes nothing a second time, and no write of the explorer that is committed meanwhile is overwritten. The
other way round there is no such protection: the explorer writes back all of a pool as it has read it some milliseconds
before, and may overwrite a change of ours. `PoolEdits.stands` tells.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from bson import Int64

from pool_daemon.capacity.pool import Amounts, Pool, new_pool
from pool_daemon.capacity.workload import cloud_units
from pool_daemon.errors import CapacityError, PoolNotFoundError, StoreConflictError
from pool_daemon.store.client import Database
from pool_daemon.store.codec import workload_to_document
from pool_daemon.store.error_mapping import is_duplicate, translated
from pool_daemon.store.pool_changes import (
    ATTEMPTS,
    Author,
    Write,
    carry_out,
    change_record,
    claim_pool,
    pool_write,
    read_pool,
)
from pool_daemon.store.pools import next_id
from pool_daemon.store.records import EVENTS, NUMBERS, EventKind
from pool_daemon.store.sessions import Session
from pool_daemon.store.workloads import WORKLOADS


@dataclass(frozen=True, slots=True)
class Edit:
    """A change: the pool after it, and before if there was one, and its writes. `repeated`: it was made before.

    `workload_id` is the workload that it added, None if it added none.
    """

    after: Pool
    before: Pool | None
    writes: tuple[Write, ...]
    repeated: bool = False
    workload_id: int | None = None


@dataclass(frozen=True, slots=True)
class _Change:
    """What is asked for: `told` is the part of the record that the same key must ask for again.

    `decide` makes of the pool as it is now the pool as it is to be, `add` of that the document of a new workload.
    """

    kind: EventKind
    pool_id: int
    told: Mapping[str, Any]
    decide: Callable[[Pool | None], Pool]
    add: Callable[[Pool], Mapping[str, Any]] | None = None


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
        return await self._make(_Change(EventKind.CREATED, pool.pool_id, told, created), now)

    async def top_up(self, pool_id: int, amounts: Amounts, now: int) -> Edit:
        """Add amounts (unit seconds) to a pool.

        Raises PoolNotFoundError, UnreadableDocumentError, NotFiniteError.
        """

        def add(pool: Pool) -> None:
            pool.add_capacity(*amounts, now=now)

        told = {"amounts": list(amounts)}
        return await self._make(_Change(EventKind.TOPPED_UP, pool_id, told, _changed(pool_id, add)), now)

    async def add_nodes(self, pool_id: int, node_ids: list[str], now: int) -> Edit:
        """Allow a pool's workloads on more nodes.

        Raises PoolNotFoundError, UnreadableDocumentError.
        """

        def add(pool: Pool) -> None:
            present = pool.node_ids or []
            pool.node_ids = [*present, *(each for each in node_ids if each not in present)]

        told = {"nodes": node_ids}
        return await self._make(_Change(EventKind.NODES_ADDED, pool_id, told, _changed(pool_id, add)), now)

    async def end(self, pool_id: int, now: int) -> Edit:
        """Take all that is left from a pool, so that the daemon stops what drains it.

        Raises PoolNotFoundError, UnreadableDocumentError, and CapacityError if nothing drains it.
        """

        def take_all(pool: Pool) -> None:
            if not any(pool.draining):
                raise CapacityError(f"pool {pool_id}: nothing drains it, so there is nothing to end")
            pool.cus = pool.sus = pool.ipv4us = 0.0
            pool.add_capacity(0, 0, 0, now=now)

        return await self._make(_Change(EventKind.ENDED, pool_id, {}, _changed(pool_id, take_all)), now)

    async def add_workload(self, pool_id: int, fields: Mapping[str, Any], node_id: str | None, now: int) -> Edit:
        """Have a pool drained by one more workload, as if a node had deployed it; in a dry run its id is 0.

        `fields` are its type and what its units depend on, as in its document; the node is one of the pool's, by
        default the first. No node hears of it, so no order is written. Raises PoolNotFoundError,
        UnreadableDocumentError, UnitsError, NotFiniteError, and CapacityError if the node is none of the pool's.
        """
        units = cloud_units(fields)
        workload_id = 0
        if not self._dry_run and await self._made_before() is None:
            workload_id = await next_id(self._database, WORKLOADS)

        def add(pool: Pool) -> None:
            if not pool.node_ids or (node_id is not None and not pool.allowed_in_pool(node_id)):
                raise CapacityError(f"pool {pool_id}: {node_id or 'a node'} is not among its nodes; add it first")
            pool.add_workload(workload_id, *units, now=now)

        def document(pool: Pool) -> Mapping[str, Any]:
            return workload_to_document(workload_id, pool, node_id or (pool.node_ids or [""])[0], fields)

        told = {"workload": {**fields, "node_id": node_id}}
        change = _Change(EventKind.WORKLOAD_ADDED, pool_id, told, _changed(pool_id, add), document)
        return await self._make(change, now)

    async def stands(self, edit: Edit, now: int) -> bool:
        """Return whether a change is still there at the unix second `now`: the explorer may have overwritten it.

        To be asked some seconds later. Half of what was added may have gone elsewhere, to a workload deployed since.
        """
        pool = await read_pool(self._database, edit.after.pool_id)
        if pool is None:
            return False
        wanted, found, before = (replace(each) for each in (edit.after, pool, edit.before or edit.after))
        for each in (wanted, found, before):
            each.sync_current_capacity(now)
        added = None if edit.workload_id is None else [edit.workload_id]
        kept = all(
            abs(getattr(found, name) - getattr(wanted, name)) <= abs(getattr(wanted, name) - getattr(before, name)) / 2
            for name in NUMBERS[:3]
            if getattr(wanted, name) != getattr(before, name)
        )
        return kept and _contains(found.node_ids, wanted.node_ids) and _contains(found.active_workload_ids, added)

    async def _make(self, change: _Change, now: int) -> Edit:
        pool_id = change.pool_id

        async def decide_and_write(session: Session | None) -> Edit:
            if session is not None:
                before = await claim_pool(self._database, pool_id, session)
            else:
                before = await read_pool(self._database, pool_id) if pool_id else None
            edit = self._decided(change, before, now)
            if session is not None:
                await self._carry_out(edit, session)
            return edit

        made = await self._made_before()
        if made is None:
            if self._dry_run:
                return await decide_and_write(None)
            try:
                return await self._database.transact(
                    decide_and_write, doing=f"changing pool {pool_id}", attempts=ATTEMPTS
                )
            except StoreConflictError:
                made = await self._made_before()  # another run with this key was faster, and its record is there
                if made is None:
                    raise
        return self._repeated(made, await read_pool(self._database, made["pool_id"]), change)

    def _decided(self, change: _Change, before: Pool | None, now: int) -> Edit:
        after = change.decide(before)
        added = None if change.add is None else change.add(after)
        record = change_record(self._author, change.kind, before, after, change.told, now=now)
        if added is None:
            return Edit(after, before, (pool_write(before, after), Write(EVENTS, None, record)))
        record |= {"workload_id": added["_id"]} | {name: added[name] for name in ("workload_type", "node_id")}
        writes = (pool_write(before, after), Write(WORKLOADS, None, added), Write(EVENTS, None, record))
        return Edit(after, before, writes, workload_id=added["_id"])

    async def _carry_out(self, edit: Edit, session: Session) -> None:
        try:
            await carry_out(self._database, edit.writes, session, doing=f"changing pool {edit.after.pool_id}")
        except StoreConflictError as error:
            if edit.workload_id is not None and is_duplicate(error):
                taken = f"workload {edit.workload_id} exists already: the sequence in `counters` is behind"
                raise StoreConflictError(taken) from error
            raise

    async def _made_before(self) -> Mapping[str, Any] | None:
        """Return the record of the change with the author's key, if it was made."""
        with translated("reading the record of a change"):
            record: Mapping[str, Any] | None = await self._events.find_one({"_id": self._author.record_id})
        return record

    def _repeated(self, record: Mapping[str, Any], now: Pool | None, change: _Change) -> Edit:
        same = record.get("kind") == change.kind and all(record.get(name) == each for name, each in change.told.items())
        if not same or (change.kind is not EventKind.CREATED and record.get("pool_id") != change.pool_id):
            raise StoreConflictError(f"the key {self._author.key} belongs to another change; choose a new one")
        if now is None:
            raise PoolNotFoundError(f"pool {record['pool_id']}: was changed with this key, and is gone since")
        return Edit(now, now, (), repeated=True, workload_id=record.get("workload_id"))


def _contains(found: Iterable[Any] | None, wanted: Iterable[Any] | None) -> bool:
    return set(wanted or ()) <= set(found or ())


def _changed(pool_id: int, change: Callable[[Pool], None]) -> Callable[[Pool | None], Pool]:
    """Return the decision that changes a copy of an existing pool."""

    def changed(before: Pool | None) -> Pool:
        if before is None:
            raise PoolNotFoundError(f"pool {pool_id}: the specified pool could not be found")
        after = replace(before)
        change(after)
        return after

    return changed
