"""Starts the parts in order, watches over them, and stops them in order."""

import asyncio
import contextlib
import math
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

from pool_daemon import events
from pool_daemon.backoff import Backoff
from pool_daemon.errors import ConfigurationError, PartDiedError, StoreError, StoreRefusedError
from pool_daemon.expiry.pass_report import PassReport
from pool_daemon.guards.gate import StopGate
from pool_daemon.settings import Settings
from pool_daemon.store.changes import require_stream
from pool_daemon.store.setup import create_collections, has_pools
from pool_daemon.telemetry.logs import set_level, tell
from pool_daemon.wiring import Wiring

WATCH_FIRST_SECONDS: Final = 3.0
"""Time for which the first pass waits for the change stream to open. It opens in milliseconds or not for a while. In
the latter case the pass goes ahead, and the opening requests another full scan."""

FOLLOWING_PASSES: Final = 7
"""Passes that may follow a single one, a second apart: the brake counts many late pools for five seconds before it lets
them go, and most writers that have locked a pool commit within seconds."""

LEASE_BESIDE_ARBITER_SECONDS: Final = 15.0
"""With an arbiter, one secondary away leaves no majority. A longer lease would delay the report of that as long."""

T = TypeVar("T")
Companion = Callable[[], Coroutine[Any, Any, None]]


class Daemon:
    """The daemon on one database: `run` lasts until the gate `stop` closes, `run_once` makes a single pass.

    `uri` is the MongoDB's address; `identity` names this process in the lease and in its records, unless the settings
    do. Without a lease (`leased` is False) it acts whether or not another daemon does; in a `dry_run` it does
    everything except writing.
    """

    def __init__(
        self, *, settings: Settings, uri: str, identity: str, stop: StopGate, leased: bool = True, dry_run: bool = False
    ) -> None:
        self._drain_seconds = settings.expiry.drain_seconds
        self._lease_seconds = settings.lease.seconds if leased and not dry_run else 0.0
        self._dry_run = dry_run
        self._stop = stop
        self._parts = Wiring(settings=settings, uri=uri, identity=identity, stop=stop, leased=leased, dry_run=dry_run)

    async def run(self, companion: Companion | None = None) -> None:
        """Settle pools as they fall due until a stop is requested, or until `companion`, which the daemon needs, ends.

        Raises StoreRefusedError if MongoDB refuses the credentials at the start, ConfigurationError if it is a
        standalone server, and PartDiedError if a part of the daemon ends by itself or a pass outlives the drain
        timeout.
        """
        parts = self._parts
        telling = [asyncio.create_task(parts.heartbeat.run(), name="heartbeat")]
        if parts.server is not None:
            telling.append(asyncio.create_task(parts.server.serve(), name="http"))
        try:
            if await self._connected():
                await self._work(telling, companion)
        finally:
            parts.notifier.stopping()
            await _cancelled(*telling)
            if parts.server is not None:
                parts.server.stop()
            await parts.journal.close()
            parts.database.close()

    def reload(self, load: Callable[[], Settings]) -> None:
        """Put the settings that `load` returns in force, as far as that is possible without a restart.

        If it raises ConfigurationError the old settings stay in force.
        """
        parts = self._parts
        parts.notifier.reloading()
        try:
            changed, waiting = parts.live.replace(load())
        except ConfigurationError as error:
            parts.observer.settings_rejected(str(error))
        else:
            set_level(parts.live.current.log.level)
            parts.observer.settings_reloaded(changed=changed, needs_restart=waiting)
            parts.queue.request_full_scan()  # pools that a limit held back may now be free to go
        parts.heartbeat.ready_again()

    async def run_once(self) -> PassReport:
        """Make one pass over everything due; more if the brake counts before it decides, or pools are locked.

        Raises StoreUnavailableError, StoreRefusedError, or ConfigurationError if the MongoDB is a standalone server or
        the database has no collection of pools.
        """
        parts = self._parts
        try:
            await parts.database.ping()
            if not await has_pools(parts.database):
                raise ConfigurationError(
                    f"database.name: the database {parts.database.name} has no collection capacity-pools, so it is not "
                    "the explorer's: correct the name"
                )
            await self._prepare()
            await parts.clock_guard.check()
            report = await parts.expirer.run_pass(math.floor(parts.clock.now()))
            for _ in range(FOLLOWING_PASSES):
                brake_counts = parts.queue.full_scan_is_ahead
                if not brake_counts and not report.locked:
                    break
                if not parts.queue.full_scan_requested:
                    await asyncio.sleep(1)
                if brake_counts:
                    parts.queue.request_full_scan()
                report = await self._next_pass(report)
            if not self._dry_run:  # pools held by earlier passes are reported, too
                await parts.held_pools.review(parts.gate)
            await parts.quarantine.look()
            return report
        finally:
            await parts.journal.close()
            parts.database.close()

    async def _next_pass(self, earlier: PassReport) -> PassReport:
        """Make another pass; return its report with the numbers of the earlier ones added."""
        report = await self._parts.expirer.run_pass(math.floor(self._parts.clock.now()))
        report.settled += earlier.settled
        report.decommissioned += earlier.decommissioned
        report.failed_pools += earlier.failed_pools
        return report

    def left_undone(self, report: PassReport) -> dict[str, Any]:
        """Return what a single pass has left undone: numbers of pools by reason, and a closed gate's reason."""
        now, queue = self._parts.observer.status.snapshot, self._parts.queue
        left = {
            "gate": report.cut_short_by,
            "held": {hold.reason: hold.detail if hold.pools is None else hold.pools for hold in now.holds},
            "failure": None if report.failure is None else str(report.failure),
            "failed": report.failed_pools,
            "locked": report.locked,
            "waiting": "for another full scan" if queue.full_scan_is_ahead and not self._dry_run else None,
            "quarantined": now.quarantined,
            "unreadable": now.unreadable,
        }
        return {name: what for name, what in left.items() if what}

    async def _connected(self) -> bool:
        """Wait for MongoDB without a limit; return False if a stop is requested first."""
        backoff = Backoff()
        while True:
            reached = await self._unless_stopped(self._reached())
            if reached is not False:
                return bool(reached)
            await self._unless_stopped(asyncio.sleep(backoff.next_seconds()))

    async def _reached(self) -> bool:
        try:
            await self._parts.database.ping()
            await self._warn_of_mistakes()
            await self._prepare()
            await require_stream(self._parts.database)
        except StoreRefusedError:
            raise
        except StoreError as error:
            tell(events.DATABASE_UNAVAILABLE, reason=str(error))
            return False
        tell(events.DATABASE_REACHED, database=self._parts.database.name)
        return True

    async def _warn_of_mistakes(self) -> None:
        """Warn of probable mistakes. They may be intended on a new grid, or harmless while all members are up."""
        database = self._parts.database
        if not await has_pools(database):
            reason = "it has no collection capacity-pools"
            self._parts.observer.tell(
                events.DATABASE_WITHOUT_POOLS, database=database.name, reason=reason, remedy="check database.name"
            )
        if database.has_arbiter and self._lease_seconds > LEASE_BESIDE_ARBITER_SECONDS:
            self._parts.observer.tell(
                events.LEASE_TOO_LONG_FOR_ARBITER,
                reason="with one secondary away there is no majority, which is reported only after lease.seconds",
                remedy=f"set lease.seconds to {LEASE_BESIDE_ARBITER_SECONDS:g} or less, or replace the arbiter",
            )

    async def _prepare(self) -> None:
        if not self._dry_run:
            notices, grace = self._parts.notices is not None, self._parts.grace is not None
            await create_collections(self._parts.database, notices=notices, grace=grace)
        await self._parts.quarantine.load()
        if self._parts.grace is not None:
            await self._parts.grace.policies.load()

    async def _work(self, telling: Sequence[asyncio.Task[None]], companion: Companion | None) -> None:
        """Run the parts until one ends or a stop is requested; in both cases the pass in progress is finished."""
        parts = self._parts
        parts.timer.start()
        background_tasks = parts.background_tasks()
        if companion is not None:
            background_tasks["embedded mongod"] = companion()
        tasks = [asyncio.create_task(work, name=name) for name, work in background_tasks.items()]
        stopped = asyncio.create_task(self._stop.stopped.wait(), name="stop")
        await self._watching()
        loop = asyncio.create_task(parts.loop.run(self._stop.stopped), name="loop")
        try:
            await asyncio.wait({*tasks, *telling, loop, stopped}, return_when=asyncio.FIRST_COMPLETED)
            died = [] if stopped.done() else [task for task in (*tasks, *telling, loop) if task.done()]
            await self._drain(loop)
        finally:
            parts.timer.stop()
            await _cancelled(*tasks, loop, stopped)
        if died:
            error = _error_of(died[0])
            reason = "no reason given" if error is None else str(error) or type(error).__name__
            raise PartDiedError(f"{died[0].get_name()} ended by itself: {reason}") from error

    async def _drain(self, loop: asyncio.Task[None]) -> None:
        """Wait for the pass in progress, then release the lease."""
        parts = self._parts
        self._stop.close()
        parts.queue.ring()
        parts.observer.stopping(drain_seconds=self._drain_seconds)
        parts.notifier.stopping()
        await asyncio.wait({loop}, timeout=self._drain_seconds)
        if not loop.done():  # the lease is left to expire: the pass may still be committing
            raise PartDiedError("the pass under way took longer than expiry.drain_seconds and was cut off")
        await parts.leadership.release()

    async def _watching(self) -> None:
        """Wait a moment for the change stream to open: later changes of what is then read are reported."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WATCH_FIRST_SECONDS):
                await self._parts.watcher.watching.wait()

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Return what `work` returns; if a stop is requested first, cancel the work and return None."""
        task = asyncio.create_task(work, name="until a stop")
        stopped = asyncio.create_task(self._stop.stopped.wait(), name="stop")
        try:
            await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() and not stopped.done() else None
        finally:
            await _cancelled(task, stopped)


def _error_of(task: asyncio.Task[Any]) -> BaseException | None:
    """Return the error that ended a task: CancelledError if it was cancelled, None if there was none."""
    return asyncio.CancelledError() if task.cancelled() else task.exception()


async def _cancelled(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
