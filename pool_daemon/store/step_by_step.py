"""Decommissioning without transactions: one step after the other, each conditional on the one before."""

from contextlib import aclosing
from dataclasses import replace
from typing import Any

from pool_daemon.capacity.workload import NextAction
from pool_daemon.clock import Clock
from pool_daemon.store.cases import Case, Settlement
from pool_daemon.store.client import Database
from pool_daemon.store.events import EventStore
from pool_daemon.store.intents import IntentLog, Record
from pool_daemon.store.pools import PoolStore
from pool_daemon.store.workloads import WorkloadStore


class StepByStep:
    """Writes decided cases on a server that stands alone, and makes up for steps that were cut off.

    The records of what is about to be done are noted as intents before the first workload is marked, and struck out
    after the last step. Where one is left over, a daemon died or a call failed in between: if a node may have heard of
    it, the record is written; if not, the mark is taken back, and the next pass decides anew.
    """

    def __init__(self, *, database: Database, clock: Clock, events: EventStore) -> None:
        self._clock = clock
        self._events = events
        self._pools = PoolStore(database=database)
        self._workloads = WorkloadStore(database=database)
        self._intents = IntentLog(database=database)

    async def write(self, settlement: Settlement) -> Settlement:
        """Write a batch pool by pool, and return what came of it.

        A pool is saved only as it was read, and looked at once more after its workloads are marked: if it was
        topped up in between, the marks are taken back before any node has seen an order. Only what was marked here
        gets an order and a record. What remains is the moment between that look and the order, in which a top-up
        comes too late; only a replica set closes it.
        """
        cases = []
        for case in settlement.cases:
            written = await self._write(case) if case.must_be_written else case
            if written is not None:
                cases.append(written)
            else:
                settlement.look_again[case.as_read.pool_id] = case.synced.last_updated
        settlement.cases = cases
        return settlement

    async def make_up(self) -> None:
        """Finish or undo what an earlier daemon, or a call that failed, has left over; costs one look if nothing is.

        Not to be called while a batch is written: what is under way looks the same.
        """
        async with aclosing(self._intents.pending()) as pages:
            async for records in pages:
                for record in records:
                    await self._make_up_for(record)
                await self._intents.forget(records)

    async def _write(self, case: Case) -> Case | None:
        """Write one pool and return what came of it, None if it was changed meanwhile and must be looked at again."""
        if not await self._pools.update_pool(case.synced, as_read=case.as_read):
            return None
        if not case.gone:
            return case
        records = await self._events.prepared(case.gone, at=self._clock.now())
        await self._intents.note(records)
        written = await self._mark_and_order(case, records)
        await self._intents.forget(records)
        return written

    async def _mark_and_order(self, case: Case, records: list[Record]) -> Case | None:
        marked = [
            (gone, copy, record)
            for gone, copy, record in zip(case.gone, case.copies, records, strict=True)
            if await self._workloads.mark(gone.workload_id, was=NextAction.DEPLOY, to=NextAction.DELETE)
        ]
        if not marked:
            return replace(case, gone=(), copies=())
        gone, copies, recorded = (tuple(each) for each in zip(*marked, strict=True))
        if not await self._pools.update_pool(case.synced, as_read=case.synced):
            for each in gone:
                await self._workloads.mark(each.workload_id, was=NextAction.DELETE, to=NextAction.DEPLOY)
            return None
        await self._workloads.order(copies)
        await self._events.write(recorded)
        return replace(case, gone=gone, copies=copies)

    async def _make_up_for(self, record: Record) -> None:
        if await self._went(record["workload_id"]):
            await self._events.write([record])

    async def _went(self, workload_id: Any) -> bool:
        """Tell whether a node may have heard that a workload goes; if none has, see to it that it stays."""
        if await self._workloads.is_ordered(workload_id):
            return True
        if await self._workloads.mark(workload_id, was=NextAction.DELETE, to=NextAction.DEPLOY):
            return False
        return not await self._workloads.is_deployed(workload_id)
