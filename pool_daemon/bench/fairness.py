"""Fairness: the delay that one owner's many workloads cause for another owner's single pool."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from pool_daemon.bench.commits import Commit
from pool_daemon.bench.database import BenchDatabase, in_time, wait_until_armed
from pool_daemon.bench.figures import Figure
from pool_daemon.bench.grid import PoolBatch
from pool_daemon.bench.latenesses import milliseconds_late
from pool_daemon.bench.storm import SLOWEST
from pool_daemon.errors import BenchError
from pool_daemon.harness import DaemonProcess

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
