"""A busy grid: other writers change pools all the time, and no change concerns the daemon."""

import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, NamedTuple

from bson import Int64
from pymongo import UpdateOne

from pool_daemon.bench.database import BenchDatabase
from pool_daemon.bench.figures import Figure, percentile
from pool_daemon.bench.grid import OWNERS, PoolBatch, deploy
from pool_daemon.bench.idle import SETTLE_SECONDS
from pool_daemon.bench.latenesses import FAR_SECONDS, bystanders, rearm
from pool_daemon.bench.server import CommandCount, counted_commands
from pool_daemon.harness import DaemonProcess
from pool_daemon.store.pools import CAPACITY_POOLS

BATCH: Final = 20
"""Updates that the other writer sends at once; the server logs and streams each one separately."""

QUIET_SHARE: Final = 0.4
"""Share of the writing time without moved deadlines, preceded by the same time without writes; in the rest deadlines
move."""

APART_SECONDS: Final = 0.2
"""Interval between bringing a deadline forward and putting it back: a stream that lags longer would not show the
former."""


BETWEEN_DEPLOYMENTS_SECONDS: Final = 0.02
"""Interval between deployments: long enough for each to be noticed separately."""


@dataclass(frozen=True, slots=True)
class BusyGrid:
    """Another writer changes pools at a fixed rate, their deadlines included, and none becomes the next deadline.

    The server counts the commands it is sent besides those updates: before the writes, and for the same time during the
    writes. So the daemon's regular commands can be told from those that the updates cause. All of this lies between two
    full scans. The processor time is read from /proc. After that, deadlines are brought forward: the time from the
    commit until the daemon is armed is an upper bound on the stream's lag.
    """

    updates_a_second: int
    seconds: int
    name: str = "busy-grid"

    @property
    def work(self) -> str:
        """A description of the work."""
        return f"busy grid: {self.updates_a_second:,} pool updates/s from outside for {self.seconds} s, none due"

    def measure(self, stage: BenchDatabase) -> Sequence[Figure]:
        """Write as another writer, and measure the daemon."""
        watched_seconds = self.seconds * QUIET_SHARE
        with (
            _quiet_grid(stage, seconds=watched_seconds) as (lot, daemon, anyway),
            _writing(stage, lot, updates_a_second=self.updates_a_second) as written,
        ):
            updates, cpu_seconds, began_at = written.updates, daemon.cpu_seconds(), time.monotonic()
            with counted_commands(stage.database) as commands:
                time.sleep(watched_seconds)
            elapsed = time.monotonic() - began_at
            updates, cpu_seconds = written.updates - updates, daemon.cpu_seconds() - cpu_seconds
            trials = max(1, int((self.seconds - watched_seconds) / (2 * APART_SECONDS)))
            lags = rearm(stage, daemon, trials=trials, apart_seconds=APART_SECONDS)
        del commands.by_name["update"]
        return [
            Figure("lag of the stream, 99 of 100", percentile(lags, 99), "ms", at_most=100),
            Figure("lag of the stream, half of them", percentile(lags, 50), "ms"),
            Figure("processor", cpu_seconds / elapsed * 100, "% of a core", at_most=50),
            Figure("queries besides those of a quiet grid", commands.total - anyway.total, "commands", at_most=0),
            Figure("updates written", updates / elapsed, "/s", at_least=self.updates_a_second * 0.95),
        ]


@dataclass(frozen=True, slots=True)
class Deployments:
    """Workloads are deployed, one after the other, into pools that last for months.

    No pool falls due by that, so each deployment costs one indexed read, no pass and no transaction. The server counts
    the commands it is sent, those of a quiet grid left out.
    """

    deployments: int
    name: str = "deployments"

    @property
    def work(self) -> str:
        """A description of the work."""
        return f"busy grid: {self.deployments:,} deployments into pools that last"

    def measure(self, stage: BenchDatabase) -> Sequence[Figure]:
        """Deploy, and measure the daemon."""
        seconds = self.deployments * BETWEEN_DEPLOYMENTS_SECONDS
        with _quiet_grid(stage, seconds=seconds + SETTLE_SECONDS) as (lot, daemon, anyway):
            passes = sum(1 for _ in daemon.entries("pass_began"))
            with counted_commands(stage.database) as commands:
                for number in range(self.deployments):
                    deploy(stage.database, lot, number)
                    time.sleep(BETWEEN_DEPLOYMENTS_SECONDS)
                time.sleep(SETTLE_SECONDS)
            passes = sum(1 for _ in daemon.entries("pass_began")) - passes
        del commands.by_name["insert"]
        transactions = commands.by_name["commitTransaction"] + commands.by_name["abortTransaction"]
        reads = (commands.total - anyway.total) / self.deployments
        return [
            Figure("passes", passes, "passes", at_most=0),
            Figure("transactions", transactions, "transactions", at_most=0),
            Figure("queries for each", reads, "commands", at_most=1.1),
        ]


class _QuietGrid(NamedTuple):
    """Pools of which none is due, an armed daemon, and the commands that it sends anyway."""

    lot: PoolBatch
    daemon: DaemonProcess
    commands: CommandCount


@contextmanager
def _quiet_grid(stage: BenchDatabase, *, seconds: float) -> Iterator[_QuietGrid]:
    """Start a daemon on a grid where nothing is due, and count its commands for so many seconds."""
    lot = bystanders(time.time())
    stage.fill(lot)
    with stage.daemon() as daemon:
        daemon.first("armed")
        time.sleep(SETTLE_SECONDS)
        with counted_commands(stage.database) as commands:
            time.sleep(seconds)
        yield _QuietGrid(lot, daemon, commands)


class _Written:
    """The progress of the other writer."""

    def __init__(self) -> None:
        self.updates = 0
        self.enough = threading.Event()


@contextmanager
def _writing(stage: BenchDatabase, lot: PoolBatch, *, updates_a_second: int) -> Iterator[_Written]:
    written = _Written()
    writer = threading.Thread(target=_write, args=(stage, lot, updates_a_second, written), name="explorer")
    writer.start()
    try:
        yield written
    finally:
        written.enough.set()
        writer.join()


def _write(stage: BenchDatabase, lot: PoolBatch, updates_a_second: int, written: _Written) -> None:
    rng = random.Random(lot.pools)  # noqa: S311 - which pool is changed next
    began_at = time.monotonic()
    while not written.enough.is_set():
        batch = [_update(rng.randrange(1, lot.pools), lot, written.updates + number) for number in range(BATCH)]
        stage.database[CAPACITY_POOLS].bulk_write(batch, ordered=False)
        written.updates += BATCH
        time.sleep(max(0.0, began_at + written.updates / updates_a_second - time.monotonic()))


def _update(number: int, lot: PoolBatch, step: int) -> UpdateOne:
    """Return an update of all that a customer's action changes in a pool; its end stays behind the lot's first."""
    change = {
        "cus": float(FAR_SECONDS + step),
        "last_updated": Int64(int(time.time())),
        "active_cu": 1.0 + step % OWNERS,
        "empty_at": Int64(lot.empty_at + FAR_SECONDS + step),
    }
    return UpdateOne({"_id": Int64(lot.first_pool_id + number)}, {"$set": change})
