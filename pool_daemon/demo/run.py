"""The demo from the first process to the last: starts the programs, plays the scenario, and judges the daemon."""

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from pool_daemon.clock import SystemClock
from pool_daemon.demo.customer import Customer, Explorer
from pool_daemon.demo.scenario import BEFORE_THE_DAEMON, PlannedPool, Timetable
from pool_daemon.demo.scene import DatabaseState, Record, Scene, SceneEvent, Voice
from pool_daemon.demo.screen import Screen
from pool_daemon.demo.verdict import Finding, Observations, judge, milliseconds
from pool_daemon.embedded import EmbeddedMongod
from pool_daemon.errors import DemoError
from pool_daemon.harness import DaemonProcess
from pool_daemon.store.error_mapping import translated

TICK_SECONDS: Final = 0.1
"""Interval between readings of the database and the log: a countdown shows tenths of a second."""

READY_SECONDS: Final = 60
"""Time for the daemon to settle what was overdue: on a slow machine imports are slow."""

DATABASE: Final = "explorer"

ENVELOPE: Final = frozenset({"event", "level", "timestamp", "logger", "exception"})
"""Fields of a log entry that are not shown beside the event's name."""


class DemoRun:
    """One run of a scenario, its data and logs in `folder`; to be run once."""

    def __init__(
        self, *, plans: Sequence[PlannedPool], folder: Path, screen: Screen, mongod: Path | None = None
    ) -> None:
        self._folder = folder
        self._screen = screen
        self._mongod = EmbeddedMongod(folder=folder / "mongod", mongod=mongod)
        self._clock = SystemClock()
        now = self._clock.now()
        self._scene = Scene(plans=plans, timetable=Timetable(opened_at=int(now)), now=now)

    async def run(self) -> list[Finding]:
        """Play the scenario and return the verdict; all processes are stopped in any case.

        Raises DemoError if the daemon does not start or ends by itself, EmbeddedError or StoreError if mongod does.
        """
        workloads = sum(len(plan.all_workloads) for plan in self._scene.plans)
        self._happened(Voice.STAGE, f"{len(self._scene.plans)} pools, {workloads} workloads, about half a minute")
        self._screen.show(self._scene)
        async with self._mongod as mongod:
            self._happened(Voice.STAGE, f"mongod is up: process {mongod.pid}, port {mongod.port}")
            explorer = Explorer(uri=mongod.uri, database=DATABASE)
            daemon = DaemonProcess(
                uri=mongod.uri, database=DATABASE, log=self._folder / "daemon.log", error=DemoError, settings={}
            )
            try:
                with translated("playing the demo"):
                    return await self._play(explorer, daemon)
            finally:
                await asyncio.to_thread(daemon.stop)
                await explorer.close()

    async def _play(self, explorer: Explorer, daemon: DaemonProcess) -> list[Finding]:
        plans = self._scene.plans
        customer = Customer(
            explorer=explorer,
            plans=plans,
            tell=lambda text: self._happened(Voice.CUSTOMER, text),
            clock=self._clock,
        )
        await customer.buy_what_is_there_before(self._scene.timetable)
        daemon.start()
        self._happened(Voice.STAGE, f"the daemon starts: process {daemon.pid}")
        await self._until_the_daemon_is_up(explorer, daemon)
        await self._begin(customer)
        playing = asyncio.create_task(customer.play(self._scene.timetable), name="customer")
        try:
            await self._watch(explorer, daemon, until=self._is_over)
            await playing
        finally:
            playing.cancel()
        exit_code = await asyncio.to_thread(daemon.stop)
        observed = Observations(
            timetable=self._scene.timetable,
            snapshot=await explorer.snapshot(),
            written=explorer.written,
            belated=customer.belated,
            exit_code=exit_code,
        )
        return judge(plans, observed)

    async def _until_the_daemon_is_up(self, explorer: Explorer, daemon: DaemonProcess) -> None:
        try:
            async with asyncio.timeout(READY_SECONDS):
                await self._watch(explorer, daemon, until=self._is_overdue_handled)
        except TimeoutError:
            raise DemoError(f"after {READY_SECONDS} s the daemon has not stopped what was overdue") from None

    async def _begin(self, customer: Customer) -> None:
        """Make second 0 the next whole second, and buy what exists at first."""
        started_at = math.ceil(self._clock.now())
        self._scene = replace(self._scene, timetable=replace(self._scene.timetable, started_at=started_at))
        await customer.buy_what_is_there_at_first(self._scene.timetable)

    async def _watch(self, explorer: Explorer, daemon: DaemonProcess, *, until: Callable[[], bool]) -> None:
        """Show what happens until the condition is true.

        Raises DemoError if the daemon ends meanwhile.
        """
        while not until():
            daemon.ensure_alive()
            for entry in daemon.new_entries():
                self._overheard(entry)
            self._look(await explorer.snapshot())
            await asyncio.sleep(TICK_SECONDS)

    def _is_overdue_handled(self) -> bool:
        overdue = (plan for plan in self._scene.plans if plan.appears == BEFORE_THE_DAEMON)
        return all(len(self._scene.snapshot.records_of(plan)) >= len(plan.leaving) for plan in overdue)

    def _is_over(self) -> bool:
        return (self._scene.second or 0) > self._scene.last_second

    def _look(self, snapshot: DatabaseState) -> None:
        known = set(self._scene.snapshot.records)
        self._scene = replace(self._scene, snapshot=snapshot, now=self._clock.now())
        for plan in self._scene.plans:
            new = [record for record in snapshot.records_of(plan) if record not in known]
            if new:
                self._happened(Voice.DAEMON, _told(plan, new), at=new[-1].decommissioned_at.timestamp())
        self._screen.show(self._scene)

    def _overheard(self, entry: Mapping[str, Any]) -> None:
        if entry.get("level") in ("warning", "error", "critical"):
            details = " ".join(f"{key}={value}" for key, value in entry.items() if key not in ENVELOPE)
            self._happened(Voice.WARNING, f"{entry.get('event')} {details}")

    def _happened(self, voice: Voice, text: str, *, at: float | None = None) -> None:
        started_at = self._scene.timetable.started_at
        second = None if started_at is None else (at or self._clock.now()) - started_at
        self._scene = replace(self._scene, events=[*self._scene.events, SceneEvent(second, voice, text)])


def _told(plan: PlannedPool, records: Sequence[Record]) -> str:
    resources = ", ".join(dict.fromkeys(resource for record in records for resource in record.resources))
    count = f"{len(records)} workloads" if len(records) > 1 else "1 workload"
    if plan.appears == BEFORE_THE_DAEMON:
        return f"{plan.name}: {count} stopped at once ({resources})"
    latest = milliseconds(max(record.lateness for record in records))
    return f"{plan.name}: {count} stopped, {latest} ms late ({resources})"
