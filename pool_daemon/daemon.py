"""Puts the parts together, starts them in order, and stops them in order."""

import asyncio
import contextlib
import math
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

import structlog

from pool_daemon.clock import Clock, SystemClock
from pool_daemon.errors import PartDiedError, StoreError, StoreRefusedError
from pool_daemon.scheduling.agenda import Agenda
from pool_daemon.scheduling.alarm import Alarm
from pool_daemon.scheduling.backoff import Backoff
from pool_daemon.scheduling.expirer import Expirer, PassReport
from pool_daemon.scheduling.gate import Gates, StopGate
from pool_daemon.scheduling.reports import Reports
from pool_daemon.scheduling.rounds import Rounds
from pool_daemon.scheduling.watcher import Watcher
from pool_daemon.settings import Settings
from pool_daemon.store.changes import open_stream
from pool_daemon.store.client import connect
from pool_daemon.store.setup import create_collections, setup
from pool_daemon.store.store import Store

WATCH_FIRST_SECONDS: Final = 3.0
"""How long the first pass waits for the change stream to be open. It opens in milliseconds or not for a while; in
that case the pass goes ahead, and the opening brings another look at everything."""

T = TypeVar("T")

log = structlog.get_logger("pool_daemon")


class Daemon:
    """The daemon on one database: `run` goes on until the gate `stop` closes, `run_once` makes a single pass.

    `uri` is the MongoDB's address; `identity` names this process in the records that it writes. In a `dry_run` it
    does everything but write.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        uri: str,
        identity: str,
        stop: StopGate,
        dry_run: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self._settings = settings
        self._dry_run = dry_run
        clock = clock or SystemClock()
        self._clock = clock
        self._stop = stop
        self._database = connect(
            uri=uri,
            name=settings.database.name,
            timeout_seconds=settings.database.timeout_seconds,
            server_selection_seconds=settings.database.server_selection_seconds,
        )
        self._agenda = Agenda()
        self._alarm = Alarm(clock=clock, safety_seconds=settings.expiry.safety_seconds)
        self._watcher = Watcher(
            open_stream=lambda token: open_stream(self._database, token=token),
            agenda=self._agenda,
            alarm=self._alarm,
            clock=clock,
            poll_seconds=settings.stream.poll_seconds,
            silence_seconds=settings.stream.silence_seconds,
        )
        self._expirer = Expirer(
            store=Store(
                database=self._database,
                clock=clock,
                identity=identity,
                batch_workloads=settings.expiry.batch_workloads,
                dry_run=dry_run,
            ),
            agenda=self._agenda,
            reports=Reports(dry_run=dry_run),
            clock=clock,
            gate=Gates([self._stop]),
            concurrency=settings.expiry.concurrency,
        )
        self._rounds = Rounds(expirer=self._expirer, alarm=self._alarm, clock=clock, stop=self._stop.stopped)

    async def run(self, companion: Callable[[], Coroutine[Any, Any, None]] | None = None) -> None:
        """Expire pools until told to stop, or until `companion` ends, which the daemon cannot do without.

        Raises StoreRefusedError if MongoDB refuses the credentials at the start, and PartDiedError if a part of the
        daemon ends by itself or a pass outlives the drain timeout.
        """
        try:
            if await self._connected():
                await self._work(companion)
        finally:
            self._database.close()

    async def run_once(self) -> PassReport:
        """Make one pass over everything overdue.

        Raises StoreUnavailableError or StoreRefusedError.
        """
        try:
            await self._prepare()
            return await self._expirer.run_pass(math.floor(self._clock.now()))
        finally:
            self._database.close()

    async def _connected(self) -> bool:
        """Wait for MongoDB, however long it takes; return False if told to stop first."""
        backoff = Backoff()
        while True:
            reached = await self._unless_stopped(self._reached())
            if reached is not False:
                return bool(reached)
            await self._unless_stopped(asyncio.sleep(backoff.next_seconds()))

    async def _reached(self) -> bool:
        try:
            await self._database.ping()
            await self._prepare()
        except StoreRefusedError:
            raise
        except StoreError as error:
            log.warning("database_unavailable", reason=str(error))
            return False
        log.info("database_reached", database=self._database.name)
        return True

    async def _prepare(self) -> None:
        if not self._dry_run:
            await create_collections(self._database)

    async def _work(self, companion: Callable[[], Coroutine[Any, Any, None]] | None) -> None:
        """Run the parts until one ends or the daemon is told to stop; either way the pass under way is finished."""
        self._alarm.start()
        parts = [asyncio.create_task(self._watcher.run(), name="watcher")]
        if companion is not None:
            parts.append(asyncio.create_task(companion(), name="embedded mongod"))
        indexes = asyncio.create_task(self._create_indexes(), name="setup")
        await self._watching()
        rounds = asyncio.create_task(self._rounds.run(), name="rounds")
        stopped = asyncio.create_task(self._stop.stopped.wait(), name="stop")
        try:
            await asyncio.wait({*parts, rounds, stopped}, return_when=asyncio.FIRST_COMPLETED)
            died = [] if stopped.done() else [task for task in (*parts, rounds) if task.done()]
            self._stop.close()
            self._alarm.wake()
            log.info("stopping", drain_seconds=self._settings.expiry.drain_seconds)
            await asyncio.wait({rounds}, timeout=self._settings.expiry.drain_seconds)
            drained = rounds.done()
        finally:
            self._alarm.stop()
            await _cancelled(*parts, indexes, rounds, stopped)
        if died:
            raise PartDiedError(f"{died[0].get_name()} ended by itself: {_why(died[0])}") from died[0].exception()
        if not drained:
            raise PartDiedError("the pass under way took longer than expiry.drain_seconds and was cut off")

    async def _watching(self) -> None:
        """Wait until changes are watched, for a moment: what is read after that cannot change unseen."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WATCH_FIRST_SECONDS):
                await self._watcher.watching.wait()

    async def _create_indexes(self) -> None:
        """Build the indexes that are missing, behind everybody's back: a big collection takes minutes."""
        backoff = Backoff()
        while not self._dry_run:
            try:
                if await setup(self._database):
                    self._agenda.rescan()
                    self._alarm.wake()
            except StoreRefusedError as error:
                log.warning("index_missing", reason=str(error))
                return
            except StoreError as error:
                log.warning("setup_failed", reason=str(error))
                await asyncio.sleep(backoff.next_seconds())
            else:
                return

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Return what `work` returns; None, and the work cancelled, if the daemon is told to stop first."""
        task = asyncio.create_task(work)
        stopped = asyncio.create_task(self._stop.stopped.wait())
        try:
            await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() and not stopped.done() else None
        finally:
            await _cancelled(task, stopped)


def _why(task: asyncio.Task[Any]) -> str:
    error = task.exception()
    return "no reason given" if error is None else str(error) or type(error).__name__


async def _cancelled(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
