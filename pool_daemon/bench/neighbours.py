"""Neighbours: what one owner's many workloads, and nodes that never answer, cost everybody else."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from pool_daemon.bench.database import BenchDatabase, in_time, wait_until_armed
from pool_daemon.bench.figures import Figure, median
from pool_daemon.bench.grid import PoolBatch
from pool_daemon.bench.idle import FIRST_OVERDUE_ID, armed_after_first_pass
from pool_daemon.bench.latenesses import bystanders, milliseconds_late, rearm
from pool_daemon.bench.server import Commit
from pool_daemon.bench.storm import SLOWEST
from pool_daemon.capacity.workload import NextAction
from pool_daemon.errors import BenchError
from pool_daemon.harness import DaemonProcess, logged_at

FIRST_SMALL_ID: Final = 6_000_001

HOG: Final = 4711
"""The owner of all those workloads, who owns nothing else."""


@dataclass(frozen=True, slots=True)
class Fairness:
    """One owner's pools run empty, all in one second; a single pool of another owner does in each second after it.

    The lateness of each single pool is read from the server's oplog.
    """

    workloads: int
    pools: int
    singles: int
    name: str

    @property
    def work(self) -> str:
        """A description of the work."""
        whose = "pool" if self.pools == 1 else f"{self.pools:,} pools"
        return f"fairness: {self.workloads:,} workloads in one owner's {whose}, {self.singles} single pools of others"

    def measure(self, stage: BenchDatabase) -> Sequence[Figure]:
        """Let all pools fall due on one daemon."""
        mass = PoolBatch(pools=self.pools, workloads_each=self.workloads // self.pools, empty_at=0, owner=HOG)
        return in_time([mass], lambda due_at: self._measure_at(stage, mass, due_at))

    def _measure_at(self, stage: BenchDatabase, mass: PoolBatch, due_at: int) -> Sequence[Figure]:
        singles = PoolBatch(pools=self.singles, first_pool_id=FIRST_SMALL_ID, empty_at=due_at, apart_seconds=1)
        stage.fill(replace(mass, empty_at=due_at), singles)
        commits = stage.commits()
        with stage.daemon() as daemon:
            wait_until_armed(daemon, due_at)
            _until_done(daemon, due_at, mass.workloads + singles.workloads)
        settled = commits.decommissionings()
        late = milliseconds_late(settled, {FIRST_SMALL_ID + number: due_at + number for number in range(self.singles)})
        return [
            Figure("the latest of the single pools", max(late) / 1000, "s", at_most=1),
            Figure("the mass done after", _last_of_mass(settled) - due_at, "s"),
        ]


def _last_of_mass(commits: Sequence[Commit]) -> float:
    return max(commit.committed_at for commit in commits if min(commit.pool_ids) < FIRST_SMALL_ID)


def _until_done(daemon: DaemonProcess, due_at: int, workloads: int) -> None:
    patience_seconds = 60 + workloads / SLOWEST
    while sum(entry["decommissioned"] for entry in daemon.entries("pass_completed")) < workloads:
        if time.time() > due_at + patience_seconds:
            raise BenchError(f"the daemon did not decommission {workloads} workloads in {patience_seconds:g} s")
        time.sleep(0.5)


FIRST_SILENT_ID: Final = 3_000_000
DAY_SECONDS: Final = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """The duration of a pass and of a full scan, in milliseconds."""

    pass_milliseconds: float
    full_scan_milliseconds: float


@dataclass(frozen=True, slots=True)
class StuckPools:
    """Pools that ran empty long ago, their workloads decommissioned and never deleted, beside a grid without any.

    A pass is measured from the commit of a write that brings the next deadline forward until the daemon is armed for
    it, the median of several. A full scan is the first pass of a daemon that has just started: from the log entry that
    its stream is open to the one that it is armed. A single overdue pool distinguishes that pass from one in which the
    daemon still waited for the lease.
    """

    pools: int
    trials: int
    name: str = "silent-nodes"

    @property
    def work(self) -> str:
        """A description of the work."""
        return f"{self.pools:,} due pools whose nodes never answer"

    def measure(self, stage: BenchDatabase) -> Sequence[Figure]:
        """Start and pass, without and with them."""
        overdue = PoolBatch(pools=1, first_pool_id=FIRST_OVERDUE_ID, empty_at=int(time.time()) - DAY_SECONDS)
        without = self._costs(stage, overdue, bystanders(time.time()))
        silent = PoolBatch(
            pools=self.pools,
            first_pool_id=FIRST_SILENT_ID,
            empty_at=int(time.time()) - DAY_SECONDS,
            next_action=NextAction.DELETE,
            settled=True,
        )
        beside = self._costs(stage, overdue, bystanders(time.time()), silent)
        return [
            Figure("a pass", beside.pass_milliseconds / without.pass_milliseconds, "× without", at_most=2),
            Figure(
                "a full scan", beside.full_scan_milliseconds / without.full_scan_milliseconds, "× without", at_most=2
            ),
            Figure("a pass", beside.pass_milliseconds, "ms"),
            Figure("a full scan", beside.full_scan_milliseconds, "ms"),
            Figure("a full scan without them", without.full_scan_milliseconds, "ms"),
        ]

    def _costs(self, stage: BenchDatabase, *lots: PoolBatch) -> Costs:
        stage.fill(*lots)
        with stage.daemon() as daemon:
            armed = armed_after_first_pass(daemon)
            full_scan_seconds = logged_at(armed) - logged_at(daemon.first("stream_opened"))
            passes = rearm(stage, daemon, trials=self.trials, apart_seconds=0.1)
        return Costs(pass_milliseconds=median(passes), full_scan_milliseconds=full_scan_seconds * 1000)
