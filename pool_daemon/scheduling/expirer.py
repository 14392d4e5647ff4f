"""The pass: all that is due is settled, in batches, and one that fails is split until the culprit is alone."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import structlog

from pool_daemon.clock import Clock
from pool_daemon.errors import (
    ConfigurationError,
    PoolNotFoundError,
    StoreError,
    StoreRefusedError,
    StoreUnavailableError,
)
from pool_daemon.scheduling.agenda import Agenda, Work
from pool_daemon.scheduling.reports import Reports
from pool_daemon.scheduling.restraints import Restraints
from pool_daemon.store.cases import OversizedBatchError, Settlement
from pool_daemon.store.store import Store

BATCH_POOLS: Final = 250
"""Pools a transaction. Larger ones gain nothing measurable and keep other writers of their pools waiting longer."""

NOBODYS_FAULT: Final = (StoreUnavailableError, StoreRefusedError, ConfigurationError)
"""Errors that say nothing about the batch they came with: the whole pass fails, and no pool is blamed."""

log = structlog.get_logger("pool_daemon.expirer")


@dataclass(slots=True)
class PassReport:
    """What one pass came to; instants are unix seconds.

    `next_at` is when the next look is due, by `next_pool_id` running empty if that is not None. `cut_short_by` says
    why not everything due was settled: a closed gate's reason, or that the daemon is stopping; None if it was.
    """

    settled: int = 0
    decommissioned: int = 0
    set_aside: int = 0
    next_at: int | None = None
    next_pool_id: int | None = None
    cut_short_by: str | None = None


class Expirer:
    """Runs passes over what is due.

    `concurrency` is how many transactions are in flight at once. A gate of the restraints that closes lets a running
    pass finish the batches in hand and return.
    """

    def __init__(
        self,
        *,
        store: Store,
        agenda: Agenda,
        restraints: Restraints,
        reports: Reports,
        clock: Clock,
        concurrency: int,
    ) -> None:
        self._store = store
        self._agenda = agenda
        self._restraints = restraints
        self._reports = reports
        self._clock = clock
        self._concurrency = concurrency
        self._asked_for: frozenset[int] = frozenset()

    async def run_pass(self, now: int) -> PassReport:
        """Settle everything due at the unix second `now`, then find out what falls due next.

        With a gate closed nothing is settled and nothing taken off the agenda, but the next deadline is found: who
        stands by keeps warm. Raises StoreUnavailableError or StoreRefusedError; what was not settled stays on the
        agenda.
        """
        report = PassReport(cut_short_by=self._restraints.gate.closed_by())
        if report.cut_short_by is None:
            await self._settle_due(now, report)
        await self._find_next(now, report)
        return report

    async def _settle_due(self, now: int, report: PassReport) -> None:
        work = self._agenda.take(now)
        finished = False
        try:
            if work.after is None:
                await self._report_unreadable_deadlines()
            asked_for = await self._pools_asked_for(work)
            self._asked_for = frozenset(asked_for)
            await self._restraints.brake.inspect(work.after, now, asked_for)
            async with aclosing(self._batches(asked_for, work.after, now)) as batches:
                await self._settle_all(batches, now, report)
            finished = report.cut_short_by is None
        finally:
            if finished:
                self._agenda.finished(now)
            else:
                self._agenda.put_back(work)

    async def _report_unreadable_deadlines(self) -> None:
        """Tell which pools will never be found due; if that cannot be found out now, what is due comes first."""
        try:
            self._reports.unreadable_pools(await self._store.pools.unreadable_deadlines())
        except NOBODYS_FAULT:
            raise
        except StoreError as error:
            log.debug("unreadable_deadlines_unknown", reason=str(error))

    async def _pools_asked_for(self, work: Work) -> Sequence[int]:
        """Return the ids of the pools that are to be looked at wherever they stand."""
        self._reports.asked_for(work.asked_for)
        pool_ids = set(work.asked_for)
        if work.workload_ids:
            pool_ids.update(await self._store.workloads.pools_of(list(work.workload_ids)))
        return sorted(pool_ids)

    async def _batches(
        self, asked_for: Sequence[int], after: int | None, now: int
    ) -> AsyncGenerator[Sequence[int], None]:
        """Yield the ids to settle: first what was asked for by id, then what is due, longest due first."""
        for chunk in _chunks(asked_for):
            yield chunk
        async for batch in self._store.pools.due(after=after, until=now):
            self._reports.unreadable_pools(batch.unreadable)
            for chunk in _chunks(batch.pool_ids):
                yield chunk

    async def _settle_all(self, batches: AsyncIterator[Sequence[int]], now: int, report: PassReport) -> None:
        """Settle batch after batch, some at once; when one fails, those in flight are finished first.

        They are never cancelled: a transaction cut off in the middle would hold its pools until the server gives up.
        """
        running: set[asyncio.Task[None]] = set()
        try:
            async for batch in batches:
                report.cut_short_by = self._restraints.gate.closed_by()
                if report.cut_short_by is not None:
                    break
                pool_ids = await self._restraints.sift(batch)
                if not pool_ids:
                    continue
                if len(running) >= self._concurrency:
                    running -= await _finished(running)
                running.add(asyncio.create_task(self._settle(pool_ids, now, report), name="settle"))
        finally:
            results = await asyncio.gather(*running, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _settle(self, pool_ids: Sequence[int], now: int, report: PassReport) -> None:
        try:
            await self._settle_whole(pool_ids, now, report)
        except OversizedBatchError:
            await self._settle_halves(pool_ids, now, report)
        except NOBODYS_FAULT:
            raise
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one pool must not stop the others
            if len(pool_ids) > 1:
                await self._settle_halves(pool_ids, now, report)
            else:
                await self._set_aside(pool_ids[0], error, now, report)

    async def _settle_halves(self, pool_ids: Sequence[int], now: int, report: PassReport) -> None:
        self._reports.halved()
        middle = len(pool_ids) // 2
        await self._settle(pool_ids[:middle], now, report)
        await self._settle(pool_ids[middle:], now, report)

    async def _settle_whole(self, pool_ids: Sequence[int], now: int, report: PassReport) -> None:
        """Settle a batch, in several transactions if a single pool holds more workloads than one takes."""
        after = None
        while True:
            began_at = self._clock.monotonic()
            settlement = await self._store.decommissions.settle(pool_ids, now=now, after=after)
            self._note(settlement, report, seconds=self._clock.monotonic() - began_at)
            lost = sum(bool(case.copies) and case.as_read.pool_id in self._asked_for for case in settlement.cases)
            self._restraints.brake.lost(lost, now=now)
            after = settlement.continue_after
            if after is None:
                break
            report.cut_short_by = report.cut_short_by or self._restraints.gate.closed_by()
            if report.cut_short_by is not None:
                return
        await self._restraints.quarantine.settled(pool_ids)

    def _note(self, settlement: Settlement, report: PassReport, *, seconds: float) -> None:
        report.settled += len(settlement.cases)
        report.decommissioned += len(settlement.decommissioned)
        self._agenda.look_again_at_all(settlement.look_again)
        self._reports.settlement(settlement, at=self._clock.now(), seconds=seconds)

    async def _set_aside(self, pool_id: int, error: Exception, now: int, report: PassReport) -> None:
        """Leave a pool that fails by itself to the quarantine, which says when it is tried again."""
        report.set_aside += 1
        retry_at = await self._restraints.quarantine.failed(pool_id, error, now)
        self._reports.set_aside(pool_id, error, retry_seconds=retry_at - now)

    async def _find_next(self, now: int, report: PassReport) -> None:
        report.next_at = self._agenda.next_at()
        try:
            pool = await self._store.pools.get_next_expired_pool(now)
        except PoolNotFoundError:
            return
        if report.next_at is None or pool.empty_at <= report.next_at:
            report.next_at = pool.empty_at
            report.next_pool_id = pool.pool_id


async def _finished(running: set[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
    """Wait for the first of some tasks to finish; raise what it raised."""
    finished, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    for task in finished:
        task.result()
    return finished


def _chunks(pool_ids: Sequence[int]) -> Iterable[Sequence[int]]:
    for start in itertools.count(0, BATCH_POOLS):
        if start >= len(pool_ids):
            return
        yield pool_ids[start : start + BATCH_POOLS]
