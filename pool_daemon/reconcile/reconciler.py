"""The reconciler: one scan after the other in the background, repeatedly, at a bounded rate."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, Final

from pool_daemon.backoff import Backoff
from pool_daemon.errors import StoreError
from pool_daemon.guards.gate import Gate
from pool_daemon.reconcile.findings import Findings
from pool_daemon.reconcile.scans import Scan
from pool_daemon.settings.sections import Reconcile

PAUSE_SECONDS: Final = 1.0
"""Interval at which a closed gate is asked again; the reconciliation is not urgent."""


class Reconciler:
    """Runs the scans in turn, then sleeps, until `stop` is set.

    While the gate is closed it pauses at its position. It holds no resources, so it may also be cancelled at any
    moment. Its rate is measured by the clock of the event loop, on which it sleeps.
    """

    def __init__(
        self,
        *,
        scans: Sequence[Scan],
        findings: Findings,
        gate: Gate,
        stop: asyncio.Event,
        settings: Reconcile,
        sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep,
    ) -> None:
        self._findings = findings
        self._gate = gate
        self._stop = stop
        self._settings = settings
        self._sleep = sleep
        self._backoff = Backoff()
        self._scans = scans
        self._active_seconds = 0.0

    async def run(self) -> None:
        """Scan and sleep; return soon after `stop` is set."""
        while not self._stop.is_set():
            await self.run_round()
            sleeping = asyncio.create_task(self._sleep(self._settings.interval_seconds), name="between reconciliations")
            stopped = asyncio.create_task(self._stop.wait(), name="stop of the reconciliation")
            try:
                await asyncio.wait({sleeping, stopped}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                sleeping.cancel()
                stopped.cancel()

    async def run_round(self) -> None:
        """Run each scan to its end once, however often an outage or a gate interrupts it."""
        self._active_seconds = 0.0
        for scan in self._scans:
            await self._finish(scan)
        if not self._stop.is_set():
            self._findings.completed(active_seconds=self._active_seconds)

    async def _finish(self, scan: Scan) -> None:
        while await self._may_act():
            try:
                if await self._go_on(scan):
                    return
            except StoreError as error:
                wait_seconds = self._backoff.next_seconds()
                self._findings.failed(error, retry_seconds=wait_seconds)
                await self._rest(wait_seconds)

    async def _go_on(self, scan: Scan) -> bool:
        """Run the steps of a scan, no faster than the settings allow; False if a gate closed before the end."""
        loop = asyncio.get_running_loop()
        began_monotonic = loop.time()
        async with aclosing(scan.steps()) as steps:
            async for step in steps:
                self._backoff.reset()
                taken_seconds = loop.time() - began_monotonic
                self._active_seconds += taken_seconds
                await self._rest(max(step.wait_seconds, self._seconds_for(step.documents) - taken_seconds))
                if self._gate.closed_by() is not None or self._stop.is_set():
                    return False
                began_monotonic = loop.time()
        return True

    async def _may_act(self) -> bool:
        """Wait while the gate is closed; False once a stop is requested."""
        while not self._stop.is_set():
            reason = self._gate.closed_by()
            if reason is None:
                return True
            self._findings.paused(reason)
            await self._rest(PAUSE_SECONDS)
        return False

    def _seconds_for(self, documents: int) -> float:
        rate = self._settings.pools_per_second
        return documents / rate if rate else 0.0

    async def _rest(self, seconds: float) -> None:
        """Sleep, but no longer than until a stop is requested."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()
