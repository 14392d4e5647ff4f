"""Decommissioning: the synced pools, the workloads' next action, the work orders and the records, all or nothing."""

from collections.abc import Sequence
from typing import Any, Final

from bson import Int64
from pymongo import UpdateOne

from pool_daemon.capacity.workload import NextAction
from pool_daemon.clock import Clock
from pool_daemon.store.cases import Case, CaseReader, Settlement
from pool_daemon.store.client import Database, Session
from pool_daemon.store.documents import changed_fields, pool_to_document
from pool_daemon.store.events import EventStore
from pool_daemon.store.failures import translated
from pool_daemon.store.pools import CAPACITY_POOLS, PoolStore
from pool_daemon.store.workloads import WorkloadStore

SYNCED_FIELDS: Final = ("cus", "sus", "ipv4us", "last_updated")
"""What is saved of a synced pool."""


class Decommissions:
    """Settles expired pools in batches: a transaction each, or step by step on a server without transactions.

    `identity` is written into every record as who did it; `batch_workloads` bounds what one transaction takes. In a
    `dry_run` everything is read and decided, and nothing written.
    """

    def __init__(
        self, *, database: Database, clock: Clock, identity: str, batch_workloads: int, dry_run: bool = False
    ) -> None:
        self._database = database
        self._dry_run = dry_run
        self._clock = clock
        self._reader = CaseReader(database=database, batch_workloads=batch_workloads)
        self._pools = database.collection(CAPACITY_POOLS)
        self._pool_store = PoolStore(database=database)
        self._workloads = WorkloadStore(database=database)
        self._events = EventStore(database=database, identity=identity)

    async def settle(
        self, pool_ids: Sequence[int], *, now: int, due_by: int | None = None, after: Any = None
    ) -> Settlement:
        """Sync those of the pools that are due and decommission what uses their exhausted resources.

        A pool is due if its `empty_at` is at most `due_by` (unix seconds; `now` if None) at the moment of commit;
        the others are left alone. `after` continues a single pool behind that workload id.
        Raises OversizedBatchError, nothing done, if several pools hold more workloads than a batch may;
        StoreConflictError if other writers were faster each time; StoreUnavailableError, in which case it may have
        been committed: settling again is safe, for what is done is not found again.
        """
        due_by = now if due_by is None else due_by

        async def decide(session: Session | None) -> Settlement:
            return await self._reader.read(pool_ids, now=now, due_by=due_by, after=after, session=session)

        async def decide_and_write(session: Session) -> Settlement:
            settlement = await decide(session)
            await self._write(settlement, session)
            return settlement

        if self._dry_run:
            return await decide(None)
        if await self._database.has_transactions():
            return await self._database.transact(decide_and_write)
        return await self._write_in_turn(await decide(None))

    async def _write(self, settlement: Settlement, session: Session) -> None:
        """Write a whole batch inside the transaction that read it.

        A transaction collides with other writers only over documents that it *writes*. So every pool that loses a
        workload is written, even if nothing in it has changed; else a top-up committed meanwhile would go unseen.
        """
        pools = [update for case in settlement.cases if case.must_be_written for update in _pool_updates(case)]
        if pools:
            with translated("saving synced pools"):
                await self._pools.bulk_write(pools, ordered=True, session=session)
        copies = [copy for case in settlement.cases for copy in case.copies]
        if copies:
            workload_ids = [copy["_id"] for copy in copies]
            await self._workloads.set_next_action(
                workload_ids, was=NextAction.DEPLOY, to=NextAction.DELETE, session=session
            )
            await self._workloads.order(copies, session=session)
            await self._events.record(settlement.decommissioned, at=self._clock.now(), session=session)

    async def _write_in_turn(self, settlement: Settlement) -> Settlement:
        """Write a batch pool by pool on a server without transactions, each step conditional on the one before.

        The pool is saved only as it was read, and looked at once more after its workloads are marked: if it was
        topped up in between, the marks are taken back before any node has seen an order. What remains is the
        moment between that look and the order; only a replica set closes it.
        """
        cases = []
        for case in settlement.cases:
            if await self._write_case(case):
                cases.append(case)
            else:
                settlement.look_again[case.as_read.pool_id] = case.synced.last_updated
        settlement.cases = cases
        return settlement

    async def _write_case(self, case: Case) -> bool:
        if not case.must_be_written:
            return True
        if not await self._pool_store.update_pool(case.synced, as_read=case.as_read):
            return False
        workload_ids = [copy["_id"] for copy in case.copies]
        if not workload_ids:
            return True
        await self._workloads.set_next_action(workload_ids, was=NextAction.DEPLOY, to=NextAction.DELETE)
        if not await self._pool_store.update_pool(case.synced, as_read=case.synced):
            await self._workloads.set_next_action(workload_ids, was=NextAction.DELETE, to=NextAction.DEPLOY)
            return False
        await self._workloads.order(case.copies)
        await self._events.record(case.decommissioned(), at=self._clock.now())
        return True


def _pool_updates(case: Case) -> list[UpdateOne]:
    """Return the updates that save a synced pool; never an update that changes nothing, which protects nothing."""
    query = {"_id": Int64(case.as_read.pool_id)}
    if changed_fields(case.as_read, case.synced):
        synced = pool_to_document(case.synced)
        return [UpdateOne(query, {"$set": {name: synced[name] for name in SYNCED_FIELDS}})]
    return [UpdateOne(query, {"$inc": {"last_updated": step}}) for step in (1, -1)]
