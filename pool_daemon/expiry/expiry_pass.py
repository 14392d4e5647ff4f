"""One pass over all that is due: it is settled in batches, and failures are isolated."""

import asyncio
import math
from collections.abc import AsyncGenerator, Collection, Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Final

from pool_daemon.clock import Clock
from pool_daemon.errors import (
    CommonCauseError,
    PoolDaemonError,
    Scope,
    StoreConflictError,
    StoreError,
    StoreOverloadError,
)
from pool_daemon.events import UNREADABLE_DEADLINES_READ_FAILED
from pool_daemon.expiry.batches import Batch, Batches
from pool_daemon.expiry.evidence import Evidence, Isolation
from pool_daemon.expiry.locked_pools import LockedPools, LockSearch
from pool_daemon.expiry.pass_report import PassReport, Reports
from pool_daemon.expiry.throttle import Throttle
from pool_daemon.expiry.work_queue import Cause, Work, WorkQueue
from pool_daemon.guards.guards import Guards
from pool_daemon.store.cases import Settlement
from pool_daemon.store.client import PAGE
from pool_daemon.store.error_mapping import one_line, timed_out
from pool_daemon.store.pools import DuePool
from pool_daemon.store.store import ExpiryStore

HEED_SECONDS: Final = 0.25
"""How soon a stop is noticed while a pass waits for the throttle."""

FULL_SCAN_SECONDS: Final = 60.0
"""How long a full scan takes up what falls due meanwhile, even if another full scan is requested already."""


@dataclass(frozen=True, slots=True)
class PassContext:
    """What all passes share."""

    store: ExpiryStore
    queue: WorkQueue
    guards: Guards
    reports: Reports
    clock: Clock
    throttle: Throttle
    evidence: Evidence
    locked: LockedPools

    async def not_due(self, pool_ids: Collection[int]) -> None:
        """Forget that pools were locked or have failed: they were to be checked by id, and are not due any more."""
        self.locked.forget(pool_ids)
        await self.guards.quarantine.not_due(pool_ids)


class ExpiryPass:
    """One pass, which writes its results into `report`.

    Its state belongs to it alone: what it took off the queue, the batches in flight, and those that failed. At every
    await the database may change. So a batch is decided and written within one transaction, and additions to the queue
    are taken up within a second, or by the next pass.
    """

    def __init__(self, context: PassContext, report: PassReport) -> None:
        self._context = context
        self._report = report
        self._queue = context.queue
        self._gate = context.guards.gate
        self._batches = Batches(
            store=context.store,
            limits=lambda: context.throttle.limits,
            in_order=context.throttle.enabled,
            on_unreadable=context.reports.unreadable_pools,
            is_entered=context.queue.is_entered,
        )
        self._evidence = context.evidence
        self._taken: list[Work] = []
        self._until = 0
        self._began_monotonic = context.clock.monotonic()
        self._running: set[asyncio.Task[None]] = set()
        self._isolation = Isolation(context.evidence)
        self._search = LockSearch(
            locks=context.store.locks,
            locked=context.locked,
            batches=self._batches,
            queue=context.queue,
            clock=context.clock,
        )

    async def run(self, now: int) -> int:
        """Settle what is due; return the unix second through which work was taken: later than `now` in a long pass."""
        self._context.reports.begin()
        self._evidence.begin_pass()
        finished = False
        try:
            await self._take(self._queue.take(now), now)
            await self._settle_all()
            await self._blame()
            finished = self._report.cut_short_by is None and self._report.failure is None
        finally:
            if finished:
                self._queue.done(self._until)
            else:
                for work in self._taken:
                    self._queue.put_back(work)
            await self._batches.close()
        return self._until

    async def _take(self, work: Work, now: int) -> None:
        """Take up work from the queue; the brake inspects it before any of it is settled."""
        self._taken.append(work)
        self._until = now
        if work.after is None:
            await report_unreadable_deadlines(self._context)
        self._context.reports.due_since(work.by_id)
        await self._context.guards.brake.inspect(work.after, now)
        if work.by_id or work.workload_ids:
            self._batches.add_by_id(self._by_id(work, now), now=now)
        self._batches.add_due(after=work.after, now=now)

    async def _by_id(self, work: Work, now: int) -> AsyncGenerator[list[DuePool], None]:
        """Yield the due pools that were added by id, page by page; those that were locked are searched again first."""
        locked = self._context.locked
        async with aclosing(due_by_id(self._context.store, work, now=now)) as pages:
            async for pool_ids, pools in pages:
                await self._context.not_due(pool_ids - {pool.pool_id for pool in pools})
                if waiting := [pool for pool in pools if pool.pool_id in locked]:
                    self._search.add_locked_before(self._batches.cut(waiting, now))
                yield [pool for pool in pools if pool.pool_id not in locked]

    async def _settle_all(self) -> None:
        """Settle batches, several at once, until none is left and none in flight can add another.

        When one fails, those in flight are finished first. They are never cancelled: a transaction cut off in the
        middle would lock its pools until the server aborts it.
        """
        complete = False
        try:
            while self._goes_on():
                await self._take_more()
                batch = await self._next_batch()
                self._running.update(self._search.begin())
                if batch is not None:
                    await self._start(batch)
                elif self._running:
                    await self._wait()
                elif pieces := self._isolation.next_batches():
                    self._batches.add(*pieces)
                else:
                    complete = True
                    break
        finally:
            results = await asyncio.gather(*self._running, return_exceptions=True)
            recount_seconds = self._context.guards.brake.passed(complete=complete)
            if recount_seconds is not None:
                self._queue.request_full_scan_in(recount_seconds)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def _goes_on(self) -> bool:
        """Return whether the gate has been open all the time; once it closes, the pass is cut short."""
        self._report.cut_short_by = self._report.cut_short_by or self._gate.closed_by()
        return self._report.cut_short_by is None

    async def _take_more(self) -> None:
        """Take up what has fallen due or was added since, once a second.

        Once a full scan is requested, that is left to the next pass; but one in progress goes on with it for a while.
        """
        now = math.floor(self._context.clock.now())
        # No await between reading the clock and asking the gate: its answer holds for this reading only.
        if now > self._until and self._takes_more():
            await self._take(self._queue.take_more(now, after=self._until), now)

    def _takes_more(self) -> bool:
        if self._gate.closed_by() is not None:
            return False
        lasts = self._context.clock.monotonic() - self._began_monotonic < FULL_SCAN_SECONDS
        return not self._queue.full_scan_requested or (self._taken[0].after is None and lasts)

    async def _next_batch(self) -> Batch | None:
        """Return the next batch if a place is free for it; one more is kept for what has only just come."""
        free = self._context.throttle.concurrency + self._search.running - len(self._running)
        return await self._batches.take(fresh_only=free == 0) if free >= 0 else None

    async def _start(self, batch: Batch) -> None:
        """Start to settle a batch, unless a gate closes before."""
        if self._context.throttle.enabled:
            await self._spare_the_nodes()
        allowed = await self._context.guards.filter_allowed(batch.pools, now=batch.now, full_scan=batch.full_scan)
        if allowed and self._goes_on():
            settling = self._settle(replace(batch, pools=allowed))
            self._running.add(asyncio.create_task(settling, name="settle"))

    async def _spare_the_nodes(self) -> None:
        """Wait until the throttle allows more orders, or a gate closes."""
        while True:
            wait_seconds = self._context.throttle.wait_seconds()
            if not wait_seconds or self._gate.closed_by() is not None:
                return
            await asyncio.sleep(min(wait_seconds, HEED_SECONDS))

    async def _wait(self) -> None:
        """Wait until a batch in flight is finished, or until more pools may have fallen due; raise its error."""
        timeout = max(0.0, self._until + 1 - self._context.clock.now()) if self._takes_more() else None
        finished, _ = await asyncio.wait(self._running, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        self._running -= finished
        for task in finished:
            task.result()

    async def _settle(self, batch: Batch) -> None:
        """Settle a batch in one transaction; what the brake lets go of what was withheld follows.

        An error of the brake ends the pass.
        """
        try:
            settlement = await self._commit(batch)
        except Exception as error:  # noqa: BLE001 - an error with one pool must not stop the others
            self._failed(batch, error)
            return
        settled = settlement.settled_of(batch.pool_ids)
        brake = self._context.guards.brake
        if going := await brake.judge(settled, settlement, now=batch.now, full_scan=batch.full_scan):
            self._batches.add(batch.of(going))

    async def _commit(self, batch: Batch) -> Settlement:
        """Settle a batch in one transaction, and note what that has done and left."""
        clock, throttle = self._context.clock, self._context.throttle
        began_monotonic = clock.monotonic()
        settlement = await self._context.store.decommissions.settle(
            batch.pool_ids, now=batch.now, limits=batch.protecting_limits, after=batch.after
        )
        decommissioned = len(settlement.decommissioned)
        self._report.settled += len(settlement.cases)
        self._report.decommissioned += decommissioned
        throttle.record(decommissioned)
        self._queue.add_all(settlement.look_again, cause=Cause.RESOURCE_ENDS)
        self._context.reports.settlement(settlement, at=clock.now(), seconds=clock.monotonic() - began_monotonic)
        self._batches.add(*batch.left_by(settlement, most=throttle.limits.workloads))
        throttle.went_through()
        if self._context.locked:
            self._search.settled(batch.pool_ids)
        self._evidence.succeeded(settlement.lost_something)
        await self._context.guards.quarantine.settled(settlement.settled_of(batch.pool_ids))
        return settlement

    def _failed(self, batch: Batch, error: Exception) -> None:
        """Have what failed tried in smaller pieces, searched for locked pools, or blamed.

        An error of the database is raised, and ends the pass.
        """
        is_alone = len(batch.pools) == 1
        match error:
            case StoreConflictError() if is_alone:
                self._search.put_aside(batch.pool_ids)
            case StoreConflictError():
                self._batches.start_small()
                self._search.add(self._split(batch))
            case StoreOverloadError() if pieces := self._split(batch):
                self._batches.add(*pieces)
            case PoolDaemonError(scope=Scope.DATABASE | Scope.OPERATOR):
                if timed_out(error):
                    self._context.throttle.took_too_long()
                raise error
            case _ if is_alone:
                self._evidence.failed(batch.pools[0], error)
            case _:
                self._isolation.add(batch)

    def _split(self, batch: Batch) -> list[Batch]:
        """Return a batch in smaller pieces, none if it is as small as possible."""
        pieces = batch.split()
        if pieces:
            self._context.reports.batch_split()
        return pieces

    async def _blame(self) -> None:
        """Decide what the failures of this pass are due to: a common cause, or each failed pool itself."""
        if self._report.cut_short_by is not None or not self._evidence.failures:
            return
        cause = self._evidence.common_cause()
        if cause is not None:
            self._report.failure = CommonCauseError(one_line(cause))
            return
        now, owners = math.floor(self._context.clock.now()), self._evidence.owners
        for pool_id, error in self._evidence.failures.items():
            self._report.failed_pools += 1
            retry_at = await self._context.guards.quarantine.failed(pool_id, error, now, owner=owners[pool_id])
            self._context.reports.pool_failed(pool_id, error, retry_seconds=retry_at - now)


async def due_by_id(
    store: ExpiryStore, work: Work, *, now: int
) -> AsyncGenerator[tuple[set[int], list[DuePool]], None]:
    """Yield ids of pools that were added by id, and those of these pools that are due at the unix second `now`.

    They are read before any transaction, the longest due first, a page at a time. Raises StoreUnavailableError or
    StoreRefusedError.
    """
    seen: set[int] = set()
    for pool_ids in _pages(list(work.by_id)):
        seen.update(pool_ids)
        yield set(pool_ids), await store.pools.due_among(pool_ids, until=now)
    for workload_ids in _pages(list(work.workload_ids)):
        found = set(await store.workloads.pools_of(workload_ids)) - seen
        seen |= found
        yield found, await store.pools.due_among(found, until=now)


def _pages(ids: list[Any]) -> Iterator[list[Any]]:
    return (ids[start : start + PAGE] for start in range(0, len(ids), PAGE))


async def report_unreadable_deadlines(context: PassContext) -> None:
    """Report pools that never fall due, their deadline being unreadable; a failed search does not stop the pass."""
    try:
        context.reports.unreadable_pools(await context.store.pools.unreadable_deadlines())
    except StoreError as error:
        if error.scope is not Scope.UNKNOWN:
            raise
        context.reports.tell(UNREADABLE_DEADLINES_READ_FAILED, reason=str(error))
