"""Runs passes one after the other, and finds the next deadline."""

from pool_daemon.clock import Clock
from pool_daemon.expiry.evidence import Evidence
from pool_daemon.expiry.expiry_pass import ExpiryPass, PassContext, due_by_id
from pool_daemon.expiry.locked_pools import LockedPools
from pool_daemon.expiry.pass_report import PassReport, Reports
from pool_daemon.expiry.throttle import Throttle
from pool_daemon.expiry.work_queue import WorkQueue
from pool_daemon.guards.guards import Guards
from pool_daemon.settings import sections
from pool_daemon.store.client import PAGE
from pool_daemon.store.store import ExpiryStore


class Expirer:
    """Runs passes over what is due.

    The settings bound the transactions in flight, the size of each, and the orders a second. When a gate closes, a
    running pass finishes the batches in flight and returns.
    """

    def __init__(
        self,
        *,
        store: ExpiryStore,
        queue: WorkQueue,
        guards: Guards,
        reports: Reports,
        clock: Clock,
        settings: sections.Expiry,
    ) -> None:
        self.throttle = Throttle(clock=clock, settings=settings)
        self.evidence = Evidence(is_blamed=guards.quarantine.knows)
        self._store = store
        self._queue = queue
        self._gate = guards.gate
        self._context = PassContext(
            store=store,
            queue=queue,
            guards=guards,
            reports=reports,
            clock=clock,
            throttle=self.throttle,
            evidence=self.evidence,
            locked=LockedPools(reports, clock=clock),
        )

    async def any_due(self, now: int) -> bool:
        """Return whether any pool to be checked by id is due at the unix second `now`; if none is, drop them all.

        So a deployment into a pool that lasts costs one indexed read and no pass. If one is due, all are left to a
        pass; likewise more than a page of them, for which other pools need not wait. With a gate closed nothing is due,
        and the queue is cleared. Raises StoreUnavailableError or StoreRefusedError; nothing is dropped then.
        """
        if self._gate.closed_by() is not None:
            self._clear()
            return False
        if self._queue.watermark is not None and now < self._queue.watermark:  # the clock has stepped back
            return True
        work = self._queue.take_more(now, after=self._queue.watermark)
        due = True
        try:
            if len(work.by_id) + len(work.workload_ids) <= PAGE:
                due = any([pools async for _, pools in due_by_id(self._store, work, now=now)])
        finally:
            if due:
                self._queue.put_back(work)
            else:
                await self._context.not_due(work.by_id)
        return due

    async def run_pass(self, now: int) -> PassReport:
        """Settle everything due at the unix second `now`, then find the next deadline.

        With a gate closed nothing is settled and the queue is cleared, to be made up for by a full scan when the gate
        opens. The next deadline is found all the same, so that a standby is ready. Raises StoreUnavailableError or
        StoreRefusedError; what was not settled stays in the queue.
        """
        report = PassReport(cut_short_by=self._gate.closed_by())
        if report.cut_short_by is None:
            now = await ExpiryPass(self._context, report).run(now)
            report.locked = len(self._context.locked)
        else:
            self._clear()
        await self._find_next(now, report)
        return report

    def _clear(self) -> None:
        self._queue.clear()
        self._context.locked.clear()

    async def _find_next(self, now: int, report: PassReport) -> None:
        """Find the next deadline; after a failed pass only a future one, for the rest waits for the retry anyway."""
        following = await self._store.pools.next_deadline(now)
        report.next_at = self._queue.next_at() if report.failure is None else None  # read last: it may have come nearer
        if following is not None and (report.next_at is None or following.empty_at <= report.next_at):
            report.next_at = following.empty_at
            report.next_pool_id = following.pool_id
