"""Decommissioning: the synced pools, the workloads' next action, the work orders and the records, all or nothing."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from bson import Int64
from pymongo import UpdateOne

from pool_daemon.capacity.workload import NextAction
from pool_daemon.clock import Clock
from pool_daemon.errors import StoreConflictError, StoreError
from pool_daemon.store.case_reader import CaseReader
from pool_daemon.store.cases import Case, Limits, Settlement
from pool_daemon.store.client import Database
from pool_daemon.store.codec import changed_fields, exact_fields, protecting_steps
from pool_daemon.store.ends import Attempt, Ends
from pool_daemon.store.error_mapping import is_duplicate, translated
from pool_daemon.store.events import EventStore
from pool_daemon.store.grace import GraceStore
from pool_daemon.store.grace_decisions import GraceChange, GraceReader
from pool_daemon.store.pools import CAPACITY_POOLS
from pool_daemon.store.records import Actor
from pool_daemon.store.sessions import Session
from pool_daemon.store.workloads import Order, WorkloadStore

SYNCED_FIELDS: Final = ("cus", "sus", "ipv4us", "last_updated")
"""Fields that are saved of a synced pool, in BSON's exact types; a field that the document lacks is zero and stays
missing."""

MOST_BYTES: Final = 16 * 2**20
"""The limit on the bytes of workload documents that one transaction copies, or one document if that is longer. It
is more than a full batch of ordinary documents, and little enough for a daemon of 512 MiB. For 2000 workloads, the most
that settings allow, it writes some six megabytes of oplog: far below the 16 at which the server splits it."""


class _LargeDocumentsError(Exception):
    """Some documents to be copied are large: such batches take turns, and this one did not have its turn."""


class Decommissions:
    """Settles due pools in batches, a transaction each.

    `actor` is written into every record. In a `dry_run` everything is read and decided, and nothing is
    written. However many batches are settled at once, only one copies large documents. If owners are told, `ends`
    commits a batch with its events. Where there is `grace`, some workloads stay for now.
    """

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        actor: Actor,
        dry_run: bool = False,
        ends: Ends | None = None,
        grace: GraceReader | None = None,
    ) -> None:
        self._database = database
        self._dry_run = dry_run
        self._clock = clock
        self._reader = CaseReader(database=database, grace=grace)
        self._pools = database.collection(CAPACITY_POOLS)
        self._workloads = WorkloadStore(database=database)
        self._events = EventStore(database=database, actor=actor)
        self._ends = ends
        self._graces = GraceStore(database=database)
        self._copying_large = asyncio.Lock()

    async def settle(
        self,
        pool_ids: Sequence[int],
        *,
        now: int,
        limits: Limits,
        after: Any = None,
    ) -> Settlement:
        """Sync those of the pools that are due and decommission the workloads that use their exhausted resources.

        A pool is due if its `empty_at` is at most `now` (unix seconds) at the moment of commit; other
        pools are left alone. What does not fit in the limits is left over; `after` continues a single pool behind that
        workload id. Raises StoreConflictError if another writer has an uncommitted write to any of the documents, after
        some attempts of milliseconds. A collection that is locked as a whole is waited for, a second at most.
        Raises StoreUnavailableError after that, or if MongoDB is away. Then the batch may have been committed: settling
        again is safe, because committed work is not found again.
        """
        read = partial(
            self._reader.read,
            pool_ids,
            now=now,
            limits=limits,
            after=after,
        )
        if self._dry_run:
            return await read(session=None)

        async def decide_and_write(session: Session, *, anew: bool, large: bool, attempt: Attempt | None) -> Settlement:
            if attempt is not None:
                attempt.begin()
            settlement = await read(session=session)
            if not large and not settlement.leave_large():
                raise _LargeDocumentsError
            # The clock may have stepped back since the decision; a record is never older than that.
            await self._write(settlement, session, at=max(self._clock.now(), now), anew=anew, attempt=attempt)
            return settlement

        async def commit(attempt: Attempt | None) -> Settlement:
            try:
                return await self._transact(partial(decide_and_write, large=False, attempt=attempt))
            except _LargeDocumentsError:
                async with self._copying_large:
                    return await self._transact(partial(decide_and_write, large=True, attempt=attempt))

        return await (commit(None) if self._ends is None else self._ends.settle(commit))

    async def _transact(self, decide_and_write: Any) -> Settlement:
        """Decide and write in one transaction.

        Orders are inserted on the assumption that none exists. If one does, the transaction is repeated with an upsert
        for each. A duplicate that remains is not an older order, and not a race.
        """
        try:
            return await self._database.transact(partial(decide_and_write, anew=True), doing="committing a batch")
        except StoreConflictError as error:
            if not is_duplicate(error):
                raise
        try:
            return await self._database.transact(partial(decide_and_write, anew=False), doing="committing a batch")
        except StoreConflictError as error:
            if not is_duplicate(error):
                raise
            raise StoreError(str(error)) from error

    async def _write(
        self, settlement: Settlement, session: Session, *, at: float, anew: bool, attempt: Attempt | None
    ) -> None:
        """Write a whole batch at the unix instant `at`, inside the transaction that read it.

        A transaction conflicts with other writers only over documents that it *writes*. So every pool that loses a
        workload is written, even if nothing in it has changed; otherwise a top-up committed meanwhile would go
        unnoticed.
        """
        pools = [update for case in settlement.cases if case.must_be_written for update in _pool_updates(case)]
        if pools:
            with translated("saving synced pools"):
                await self._pools.bulk_write(pools, ordered=True, session=session)
        if attempt is not None:
            await attempt.write(settlement, at=at, session=session)
        await self._write_graces(settlement.grace_changes, session, at=at)
        gone = settlement.decommissioned
        if not gone:
            return
        changed = await self._workloads.set_next_action(
            [each.workload_id for each in gone], was=NextAction.DEPLOY, to=NextAction.DELETE, session=session
        )
        if changed != len(gone):
            raise StoreConflictError(f"setting next_action: {changed} of {len(gone)} workloads were still deployed")
        await self._write_orders(settlement, session, anew=anew)
        await self._events.decommissioned(settlement.cases, at=at, session=session)

    async def _write_graces(self, changes: Sequence[GraceChange], session: Session, *, at: float) -> None:
        if changes:
            await self._graces.write([change.record for change in changes], session=session)
            await self._events.graces(changes, at=at, session=session)

    async def _write_orders(self, settlement: Settlement, session: Session, *, anew: bool) -> None:
        """Write the orders: the small ones together, the large ones one by one, so that at most one is in memory.

        The transaction reads from one snapshot, so it does not matter that the workloads are marked already: a copy
        says "delete" either way.
        """
        write = self._workloads.order_first if anew else self._workloads.order
        orders = [
            (gone.workload_id, order)
            for case in settlement.cases
            for gone, order in zip(case.gone, case.orders, strict=True)
        ]
        small: list[Order] = [(workload_id, order) for workload_id, order in orders if order is not None]
        if small:
            await write(small, session=session)
        for workload_id, order in orders:
            if order is None:
                copy = await self._workloads.order_of(workload_id, session=session)
                await write([(workload_id, copy)], session=session)


def _pool_updates(case: Case) -> list[UpdateOne]:
    """Return the updates that save a synced pool; never a no-op update, which would not conflict with other writers."""
    query = {"_id": Int64(case.as_read.pool_id)}
    if changed_fields(case.as_read, case.synced, SYNCED_FIELDS):
        saved = [name for name in SYNCED_FIELDS if name not in case.as_read.missing]
        return [UpdateOne(query, {"$set": exact_fields(case.synced, saved)})]
    return [UpdateOne(query, step) for step in protecting_steps(case.as_read)]
