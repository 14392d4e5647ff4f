"""Decommissioning: the synced pools, the workloads' next action, the work orders and the records, all or nothing."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

from bson import Int64
from pymongo import UpdateOne

from pool_daemon.capacity.workload import NextAction
from pool_daemon.clock import Clock
from pool_daemon.errors import StoreConflictError
from pool_daemon.store.cases import Case, CaseReader, Settlement
from pool_daemon.store.client import Database, Session
from pool_daemon.store.documents import changed_fields, protecting_steps
from pool_daemon.store.events import EventStore
from pool_daemon.store.failures import is_duplicate, translated
from pool_daemon.store.pools import CAPACITY_POOLS
from pool_daemon.store.step_by_step import StepByStep
from pool_daemon.store.workloads import WorkloadStore

SYNCED_FIELDS: Final = ("cus", "sus", "ipv4us", "last_updated")
"""What is saved of a synced pool."""

MOST_WORKLOADS: Final = 2000
"""Workloads that one transaction takes unless the caller says less: four times as many documents are written, some six
megabytes of the server's log of operations, far below the 16 at which it cuts a transaction into pieces."""


class Decommissions:
    """Settles expired pools in batches: a transaction each, or step by step on a server without transactions.

    `identity` is written into every record as who did it. In a `dry_run` everything is read and decided, and nothing
    written.
    """

    def __init__(self, *, database: Database, clock: Clock, identity: str, dry_run: bool = False) -> None:
        self._database = database
        self._dry_run = dry_run
        self._clock = clock
        self._reader = CaseReader(database=database)
        self._pools = database.collection(CAPACITY_POOLS)
        self._workloads = WorkloadStore(database=database)
        self._events = EventStore(database=database, identity=identity)
        self._steps = StepByStep(database=database, clock=clock, events=self._events)

    async def settle(
        self,
        pool_ids: Sequence[int],
        *,
        now: int,
        due_by: int | None = None,
        most: int = MOST_WORKLOADS,
        after: Any = None,
    ) -> Settlement:
        """Sync those of the pools that are due and decommission what uses their exhausted resources.

        A pool is due if its `empty_at` is at most `due_by` (unix seconds; `now` if None) at the moment of commit;
        the others are left alone. At most `most` workloads go; `after` continues a single pool behind that workload id.
        Raises OversizedBatchError, nothing done, if several pools hold more workloads than that;
        StoreConflictError if other writers were faster each time; StoreUnavailableError, in which case it may have
        been committed: settling again is safe, for what is done is not found again.
        """
        due_by = now if due_by is None else due_by

        async def decide(session: Session | None) -> Settlement:
            return await self._reader.read(pool_ids, now=now, due_by=due_by, most=most, after=after, session=session)

        if self._dry_run:
            return await decide(None)
        if await self._database.has_transactions():
            return await self._transact(decide)
        return await self._steps.write(await decide(None))

    async def make_up(self) -> None:
        """Finish or undo what was left half done, here or by a daemon before; not while anything is settled.

        To be called before every look at everything. Raises StoreUnavailableError or StoreRefusedError.
        """
        if not self._dry_run:
            await self._steps.make_up()

    async def _transact(self, decide: Callable[[Session], Awaitable[Settlement]]) -> Settlement:
        """Decide and write in one transaction.

        Orders and records are inserted, as if there could be none yet; only if there is one, all is done again with
        a look for each.
        """

        async def decide_and_write(session: Session, *, anew: bool) -> Settlement:
            settlement = await decide(session)
            await self._write(settlement, session, anew=anew)
            return settlement

        try:
            return await self._database.transact(partial(decide_and_write, anew=True))
        except StoreConflictError as error:
            if not is_duplicate(error):
                raise
        return await self._database.transact(partial(decide_and_write, anew=False))

    async def _write(self, settlement: Settlement, session: Session, *, anew: bool) -> None:
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
            gone, at = settlement.decommissioned, self._clock.now()
            changed = await self._workloads.set_next_action(
                [each.workload_id for each in gone], was=NextAction.DEPLOY, to=NextAction.DELETE, session=session
            )
            if changed != len(gone):
                raise StoreConflictError(f"setting next_action: {changed} of {len(gone)} workloads were still deployed")
            order, record = (
                (self._workloads.order_first, self._events.record_first)
                if anew
                else (self._workloads.order, self._events.record)
            )
            await order(copies, session=session)
            await record(gone, at=at, session=session)


def _pool_updates(case: Case) -> list[UpdateOne]:
    """Return the updates that save a synced pool; never an update that changes nothing, which protects nothing."""
    query = {"_id": Int64(case.as_read.pool_id)}
    if changes := changed_fields(case.as_read, case.synced, SYNCED_FIELDS):
        return [UpdateOne(query, {"$set": changes})]
    return [UpdateOne(query, step) for step in protecting_steps(case.as_read)]
