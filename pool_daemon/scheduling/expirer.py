"""The pass: all that is due is settled, in batches, and one that fails is split until the culprit is alone."""

import asyncio
from dataclasses import dataclass, replace
from typing import Final

import structlog

from pool_daemon.clock import Clock
from pool_daemon.scheduling.agenda import Agenda
from pool_daemon.scheduling.intake import NOBODYS_FAULT, Batch, Intake
from pool_daemon.scheduling.reports import Reports
from pool_daemon.scheduling.restraints import Restraints
from pool_daemon.scheduling.throttle import Throttle
from pool_daemon.settings import sections
from pool_daemon.store.cases import OversizedBatchError, Settlement
from pool_daemon.store.store import Store

HEED_SECONDS: Final = 0.25
"""How soon a stop is heeded while the nodes are spared."""

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

    The settings say how many transactions are in flight at once, how much one takes, and how many orders a second may
    be given. A gate of the restraints that closes lets a running pass finish the batches in hand and return.
    """

    def __init__(
        self,
        *,
        store: Store,
        agenda: Agenda,
        restraints: Restraints,
        reports: Reports,
        clock: Clock,
        settings: sections.Expiry,
    ) -> None:
        self._store = store
        self._agenda = agenda
        self._restraints = restraints
        self._reports = reports
        self._clock = clock
        self._throttle = Throttle(clock=clock, settings=settings)

    async def run_pass(self, now: int) -> PassReport:
        """Settle everything due at the unix second `now`, then find out what falls due next.

        With a gate closed nothing is settled and the agenda forgotten, to be made up for by a look at everything when
        the gate opens; but the next deadline is found: who stands by keeps warm. Raises StoreUnavailableError or
        StoreRefusedError; what was not settled stays on the agenda.
        """
        report = PassReport(cut_short_by=self._restraints.gate.closed_by())
        if report.cut_short_by is None:
            now = await self._settle_due(now, report)
        else:
            self._agenda.forget()
        await self._find_next(now, report)
        return report

    async def _settle_due(self, now: int, report: PassReport) -> int:
        """Settle everything due; return the unix second up to which that was taken up, as time goes on meanwhile."""
        self._reports.begin()
        intake = Intake(
            agenda=self._agenda,
            store=self._store,
            restraints=self._restraints,
            reports=self._reports,
            clock=self._clock,
            throttle=self._throttle,
        )
        finished = False
        try:
            await intake.begin(now)
            await self._settle_all(intake, report)
            finished = report.cut_short_by is None
        finally:
            if finished:
                intake.finished()
            else:
                intake.put_back()
            await intake.close()
        return intake.until

    async def _settle_all(self, intake: Intake, report: PassReport) -> None:
        """Settle batch after batch, some at once, until there is none left and none can be added by those at work.

        When one fails, those in flight are finished first. They are never cancelled: a transaction cut off in the
        middle would hold its pools until the server gives up.
        """
        running: set[asyncio.Task[None]] = set()
        try:
            while (batch := await intake.next()) is not None or running:
                if batch is None:
                    running -= await _finished(running, within_seconds=intake.seconds_to_fresh())
                    continue
                while len(running) >= self._throttle.concurrency:
                    running -= await _finished(running)
                await self._spare_the_nodes()
                pool_ids = await self._restraints.sift(batch.pool_ids, batch.origin, now=batch.now)
                report.cut_short_by = self._restraints.gate.closed_by()
                if report.cut_short_by is not None:
                    break
                if pool_ids:
                    settling = self._settle(intake, replace(batch, pool_ids=pool_ids), report)
                    running.add(asyncio.create_task(settling, name="settle"))
        finally:
            results = await asyncio.gather(*running, return_exceptions=True)
            self._restraints.brake.passed()
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _spare_the_nodes(self) -> None:
        """Wait until more orders may be given, or a gate closes."""
        while True:
            wait_seconds = self._throttle.wait_seconds()
            if not wait_seconds or self._restraints.gate.closed_by() is not None:
                return
            await asyncio.sleep(min(wait_seconds, HEED_SECONDS))

    async def _settle(self, intake: Intake, batch: Batch, report: PassReport) -> None:
        try:
            await self._settle_whole(intake, batch, report)
        except OversizedBatchError:
            await self._settle_halves(intake, batch, report)
        except NOBODYS_FAULT:
            raise
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one pool must not stop the others
            if len(batch.pool_ids) > 1:
                await self._settle_halves(intake, batch, report)
            else:
                await self._set_aside(batch.pool_ids[0], error, batch.now, report)

    async def _settle_halves(self, intake: Intake, batch: Batch, report: PassReport) -> None:
        self._reports.halved()
        middle = len(batch.pool_ids) // 2
        for half in (batch.pool_ids[:middle], batch.pool_ids[middle:]):
            await self._settle(intake, replace(batch, pool_ids=half), report)

    async def _settle_whole(self, intake: Intake, batch: Batch, report: PassReport) -> None:
        """Settle a batch; the rest of a single pool that holds more workloads than fit is left to its next turn."""
        began_at = self._clock.monotonic()
        settlement = await self._store.decommissions.settle(
            batch.pool_ids, now=batch.now, most=batch.most, after=batch.after
        )
        self._note(settlement, report, seconds=self._clock.monotonic() - began_at)
        self._restraints.brake.settled(batch.pool_ids, lost=settlement.lost_something, now=batch.now)
        if settlement.continue_after is not None:
            intake.go_on(batch, after=settlement.continue_after)
        else:
            await self._restraints.quarantine.settled(batch.pool_ids)

    def _note(self, settlement: Settlement, report: PassReport, *, seconds: float) -> None:
        report.settled += len(settlement.cases)
        report.decommissioned += len(settlement.decommissioned)
        self._throttle.gave(len(settlement.decommissioned))
        self._agenda.look_again_at_all(settlement.look_again)
        self._reports.settlement(settlement, at=self._clock.now(), seconds=seconds)

    async def _set_aside(self, pool_id: int, error: Exception, now: int, report: PassReport) -> None:
        """Leave a pool that fails by itself to the quarantine, which says when it is tried again."""
        report.set_aside += 1
        retry_at = await self._restraints.quarantine.failed(pool_id, error, now)
        self._reports.set_aside(pool_id, error, retry_seconds=retry_at - now)

    async def _find_next(self, now: int, report: PassReport) -> None:
        report.next_at = self._agenda.next_at()
        following = await self._store.pools.next_deadline(now)
        if following is not None and (report.next_at is None or following.empty_at <= report.next_at):
            report.next_at = following.empty_at
            report.next_pool_id = following.pool_id


async def _finished(
    running: set[asyncio.Task[None]], *, within_seconds: float | None = None
) -> set[asyncio.Task[None]]:
    """Wait for the first of some tasks to finish, for a while at most; raise what it raised."""
    finished, _ = await asyncio.wait(running, timeout=within_seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in finished:
        task.result()
    return finished
