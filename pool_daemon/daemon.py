"""Puts the parts together, starts them in order, and stops them in order."""

import asyncio
import contextlib
import math
from typing import Any, Final

import structlog

from pool_daemon.clock import Clock, SystemClock
from pool_daemon.errors import PartDiedError, StoreError, StoreRefusedError
from pool_daemon.scheduling.agenda import Agenda
from pool_daemon.scheduling.alarm import Alarm
from pool_daemon.scheduling.backoff import Backoff
from pool_daemon.scheduling.expirer import Expirer, PassReport
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

log = structlog.get_logger("pool_daemon")


class Daemon:
    """The daemon on one database: `run` goes on until `stop`, `run_once` makes a single pass.

    `uri` is the MongoDB's address; `identity` names this process in the records that it writes.
    """

    def __init__(self, *, settings: Settings, uri: str, identity: str, clock: Clock | None = None) -> None:
        self._settings = settings
        clock = clock or SystemClock()
        self._clock = clock
        self._stop = asyncio.Event()
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
            ),
            agenda=self._agenda,
            reports=Reports(),
            clock=clock,
            stop=self._stop,
            concurrency=settings.expiry.concurrency,
        )
        self._rounds = Rounds(expirer=self._expirer, alarm=self._alarm, clock=clock, stop=self._stop)

    def stop(self) -> None:
        """Finish the batches in hand, then return from `run`."""
        self._stop.set()
        self._alarm.wake()

    async def run(self) -> None:
        """Expire pools until `stop` is called.

        Raises StoreRefusedError if MongoDB refuses the credentials at the start, and PartDiedError if a part of the
        daemon ends by itself or a pass outlives the drain timeout.
        """
        try:
            if await self._connected():
                await self._work()
        finally:
            self._database.close()

    async def run_once(self) -> PassReport:
        """Make one pass over everything overdue.

        Raises StoreUnavailableError or StoreRefusedError.
        """
        try:
            await create_collections(self._database)
            return await self._expirer.run_pass(math.floor(self._clock.now()))
        finally:
            self._database.close()

    async def _connected(self) -> bool:
        """Wait for MongoDB, however long it takes; return False if told to stop first."""
        backoff = Backoff()
        while not self._stop.is_set():
            try:
                await self._database.ping()
                await create_collections(self._database)
            except StoreRefusedError:
                raise
            except StoreError as error:
                wait_seconds = backoff.next_seconds()
                log.warning("database_unavailable", reason=str(error), retry_seconds=round(wait_seconds, 3))
                await self._stopped_within(wait_seconds)
            else:
                log.info("database_reached", database=self._database.name)
                return True
        return False

    async def _work(self) -> None:
        """Run the parts until one ends or `stop` is called; whichever it is, the pass under way is finished."""
        self._alarm.start()
        watcher = asyncio.create_task(self._watcher.run(), name="watcher")
        indexes = asyncio.create_task(self._create_indexes(), name="setup")
        await self._watching()
        rounds = asyncio.create_task(self._rounds.run(), name="rounds")
        stopped = asyncio.create_task(self._stop.wait(), name="stop")
        try:
            await asyncio.wait({watcher, rounds, stopped}, return_when=asyncio.FIRST_COMPLETED)
            died = [] if self._stop.is_set() else [task for task in (watcher, rounds) if task.done()]
            self.stop()
            log.info("stopping", drain_seconds=self._settings.expiry.drain_seconds)
            await asyncio.wait({rounds}, timeout=self._settings.expiry.drain_seconds)
            drained = rounds.done()
        finally:
            self._alarm.stop()
            await _cancelled(watcher, indexes, rounds, stopped)
        if died:
            raise PartDiedError(f"{died[0].get_name()} ended by itself") from died[0].exception()
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
        while True:
            try:
                if await setup(self._database):
                    self._agenda.rescan()
                    self._alarm.wake()
            except StoreRefusedError as error:
                log.warning("index_missing", reason=str(error))
                return
            except StoreError as error:
                log.warning("setup_failed", reason=str(error))
                await self._stopped_within(backoff.next_seconds())
            else:
                return

    async def _stopped_within(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()


async def _cancelled(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
