"""An idle grid: the cost of starting on it, and of waiting on it, at any size."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pool_daemon.bench.database import BenchDatabase
from pool_daemon.bench.figures import Figure, exponent
from pool_daemon.bench.grid import PoolBatch
from pool_daemon.bench.latenesses import bystanders
from pool_daemon.bench.server import counted_commands
from pool_daemon.harness import DaemonProcess, Entry, logged_at

OVERDUE: Final = 1000
FIRST_OVERDUE_ID: Final = 8_000_000
SETTLE_SECONDS: Final = 3
"""Interval between a start and a wait, so that neither counts for the other."""


SHORT_SHARE: Final = 1 / 3


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleResult:
    """The measurements at one size."""

    armed_seconds: float
    done_seconds: float
    memory_mb: float
    idle_percent: float
    idle_commands: float


@dataclass(frozen=True, slots=True)
class Idle:
    """A start with some pools overdue, then a wait, in grids of several sizes; the bounds apply to the largest.

    The start is counted from the daemon's log entry that it has reached the database to the one that it is armed, and
    to the last commit in the server's oplog. Memory is what the process uses afterwards. During the wait, the processor
    time is read from /proc, and the server counts the commands besides the stream's getMore, the lease and the drivers'
    heartbeats. The wait on the largest grid is long enough to include a full scan, the others are a third of that,
    which makes the growth look larger than it is.
    """

    sizes: tuple[int, ...]
    idle_seconds: float
    name: str = "start-and-idle"

    @property
    def work(self) -> str:
        """A description of the work."""
        return f"start and idle with {', '.join(f'{size:,}' for size in self.sizes)} pools, up to {OVERDUE:,} overdue"

    def measure(self, stage: BenchDatabase) -> Sequence[Figure]:
        """Start and wait at each size."""
        stands = {size: self._stand(stage, size) for size in self.sizes}
        largest = stands[max(self.sizes)]
        others_mb = next(
            stand.memory_mb for size, stand in stands.items() if size >= OVERDUE * 10 or size == max(stands)
        )
        return [
            Figure("start: armed after connecting", largest.armed_seconds, "s", at_most=2),
            Figure("start: the overdue done", largest.done_seconds, "s", at_most=3),
            Figure("memory", largest.memory_mb, "MB", at_most=120),
            Figure("memory above that of 10,000 pools", largest.memory_mb - others_mb, "MB", at_most=5),
            Figure("idle: processor", largest.idle_percent, "% of a core", at_most=0.5),
            Figure("idle: commands", largest.idle_commands, "/s", at_most=0.2),
            *_growth("start: armed", "s", {size: stand.armed_seconds for size, stand in stands.items()}),
            *_growth("idle: processor", "%", {size: stand.idle_percent for size, stand in stands.items()}),
        ]

    def _stand(self, stage: BenchDatabase, size: int) -> IdleResult:
        stage.tell(f"{size:,} pools")
        idle_seconds = self.idle_seconds * (1 if size == max(self.sizes) else SHORT_SHARE)
        stage.fill(*_with_overdue(size))
        commits = stage.commits()
        with stage.daemon() as daemon:
            armed = armed_after_first_pass(daemon)
            reached_at = logged_at(daemon.first("database_reached"))
            time.sleep(SETTLE_SECONDS)
            cpu_seconds = daemon.cpu_seconds()
            began_at = time.monotonic()
            with counted_commands(stage.database) as commands:
                time.sleep(idle_seconds)
            elapsed = time.monotonic() - began_at
            cpu_seconds = daemon.cpu_seconds() - cpu_seconds
            memory_mb = daemon.memory_mb()
        return IdleResult(
            armed_seconds=logged_at(armed) - reached_at,
            done_seconds=commits.decommissionings()[-1].committed_at - reached_at,
            memory_mb=memory_mb,
            idle_percent=cpu_seconds / elapsed * 100,
            idle_commands=commands.total / elapsed,
        )


@dataclass(frozen=True, slots=True)
class StartWithoutIndexes:
    """A start on a new database: the index on `empty_at` has yet to be built.

    Measured are the last commit of an overdue pool, and the end of the index build, both in the server's oplog.
    """

    pools: int
    name: str = "start-without-indexes"

    @property
    def work(self) -> str:
        """A description of the work."""
        return f"start with {self.pools:,} pools, {OVERDUE:,} overdue, the indexes still to be built"

    def measure(self, stage: BenchDatabase) -> Sequence[Figure]:
        """Start once."""
        stage.fill(*_with_overdue(self.pools), indexes=False)
        commits = stage.commits()
        with stage.daemon() as daemon:
            armed = armed_after_first_pass(daemon)
            reached_at = logged_at(daemon.first("database_reached"))
            built_at = commits.index_built_at(within_seconds=120)
        done_at = commits.decommissionings()[-1].committed_at
        return [
            Figure("the overdue done after connecting", done_at - reached_at, "s", at_most=3),
            Figure("the index built after connecting", built_at - reached_at, "s"),
            Figure("armed after connecting", logged_at(armed) - reached_at, "s"),
        ]


def armed_after_first_pass(daemon: DaemonProcess) -> Entry:
    """Wait until the daemon is armed after its first pass that settled anything, and return that log entry."""
    settled_at = logged_at(daemon.first("pass_completed"))
    return daemon.first("armed", holds=lambda entry: logged_at(entry) >= settled_at)


def _with_overdue(size: int) -> tuple[PoolBatch, PoolBatch]:
    overdue = min(OVERDUE, size // 10)
    now = int(time.time())
    return (
        bystanders(now, pools=size - overdue),
        PoolBatch(pools=overdue, first_pool_id=FIRST_OVERDUE_ID, empty_at=now - 3600),
    )


def _growth(what: str, unit: str, costs: dict[int, float]) -> list[Figure]:
    return [
        *(Figure(f"{what}, {size:,} pools", cost, unit) for size, cost in costs.items()),
        Figure(f"{what}, grows with the exponent", exponent(costs), ""),
    ]
