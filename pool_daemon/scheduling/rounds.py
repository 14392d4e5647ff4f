"""The daemon's round: disarm, pass, arm, wait; whatever happens in a pass, it ends in an armed alarm."""

import asyncio
import math
from typing import Final

import structlog

from pool_daemon.clock import Clock
from pool_daemon.errors import StoreError
from pool_daemon.expiry.expirer import Expirer
from pool_daemon.expiry.expiry_pass import PassReport
from pool_daemon.scheduling.alarm import Alarm
from pool_daemon.scheduling.backoff import Backoff
from pool_daemon.scheduling.gate import STOPPING
from pool_daemon.telemetry.observer import Observer
from pool_daemon.telemetry.snapshot import PassOutcome

NOT_YET: Final = "not begun"
"""What keeps the daemon from acting before its first pass, so that this one says whether it acts."""

LONGEST_RETRY_SECONDS: Final = 5.0
"""A pass that failed is repeated this often at least: soon after the cure all is to be done."""

log = structlog.get_logger("pool_daemon.rounds")


class Rounds:
    """Goes round until `stop` is set; the setter wakes the alarm too."""

    def __init__(
        self, *, expirer: Expirer, alarm: Alarm, clock: Clock, stop: asyncio.Event, observer: Observer
    ) -> None:
        self._expirer = expirer
        self._alarm = alarm
        self._clock = clock
        self._stop = stop
        self._observer = observer
        self._backoff = Backoff(longest_seconds=LONGEST_RETRY_SECONDS)
        self._cut_short_by: str | None = NOT_YET

    async def run(self) -> None:
        """Pass after pass, each when the alarm rings for it."""
        while not self._stop.is_set():
            await self._round()
            await self._alarm.wait()

    async def _round(self) -> None:
        self._alarm.disarm()
        deadline: float | None = None
        pool_id: int | None = None
        began_at = self._clock.monotonic()
        try:
            report = await self._expirer.run_pass(math.floor(self._clock.now()))
            deadline, pool_id = report.next_at, report.next_pool_id
            if report.failure is None:
                self._passed(report, seconds=self._clock.monotonic() - began_at)
            else:
                retry_at = self._failed(report.failure, seconds=self._clock.monotonic() - began_at)
                if deadline is None or retry_at < deadline:
                    deadline, pool_id = retry_at, None
        except StoreError as error:
            deadline = self._failed(error, seconds=self._clock.monotonic() - began_at)
        except Exception as error:  # noqa: BLE001 - a bug in one pass must not leave the alarm unarmed
            deadline = self._failed(error, seconds=self._clock.monotonic() - began_at)
        finally:
            self._alarm.arm(deadline, pool_id=pool_id)
            self._observer.armed(deadline, pool_id=pool_id)

    def _passed(self, report: PassReport, *, seconds: float) -> None:
        self._backoff.reset()
        if report.cut_short_by != self._cut_short_by:
            self._cut_short_by = report.cut_short_by
            log.info("acting" if report.cut_short_by is None else "not_acting", reason=report.cut_short_by)
        if report.settled or report.set_aside:
            counted = "would_decommission" if self._observer.status.snapshot.dry_run else "decommissioned"
            log.info(
                "pass_completed",
                settled=report.settled,
                **{counted: report.decommissioned},
                seconds=round(seconds, 3),
            )
        self._observer.pass_finished(
            seconds=seconds,
            settled=report.settled,
            decommissioned=report.decommissioned,
            set_aside=report.set_aside,
            outcome=_outcome(report),
            reason=report.cut_short_by,
        )
        log.debug("armed", pool=report.next_pool_id, at=report.next_at)

    def _failed(self, error: Exception, *, seconds: float) -> float:
        """Tell that a pass failed; return when to try again (unix seconds)."""
        wait_seconds = self._backoff.next_seconds()
        log.error(
            "pass_failed",
            reason=str(error),
            retry_seconds=round(wait_seconds, 3),
            exc_info=None if isinstance(error, StoreError) else error,
        )
        self._observer.pass_failed(seconds=seconds, reason=str(error))
        return self._clock.now() + wait_seconds


def _outcome(report: PassReport) -> PassOutcome:
    """Tell how a pass that did not fail has ended."""
    if report.cut_short_by is None:
        return PassOutcome.COMPLETED
    return PassOutcome.STOPPED if report.cut_short_by == STOPPING else PassOutcome.HELD
