"""Reconciliation of a large grid: its rate, its writes, and the lateness it causes."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pool_daemon.bench.database import BenchDatabase
from pool_daemon.bench.figures import Figure
from pool_daemon.bench.grid import PoolBatch
from pool_daemon.bench.latenesses import FAR_SECONDS, fall_due_one_by_one, lateness_figures, milliseconds_late
from pool_daemon.bench.server import Commits

REPAIR_SECONDS: Final = 60

UNTHROTTLED: Final = {
    "RECONCILE__ENABLED": "true",
    "RECONCILE__POOLS_PER_SECOND": "0",
    "RECONCILE__INTERVAL_SECONDS": "0.1",
    "RECONCILE__CONFIRM_SECONDS": "0",
    "LOG__LEVEL": "debug",
}


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """One scan of all pools at full speed, and the part of the second one that repairs the findings of the first.

    Every drifted pool lists one workload that is deleted. The rate is the daemon's own, from its log. Which pools were
    written is read from the server's oplog, and so is the lateness of single pools that fall due meanwhile, one a
    second.
    """

    pools: int
    workloads_each: int
    drifted: int
    trials: int
    name: str = "reconciliation"

    @property
    def work(self) -> str:
        """A description of the work."""
        workloads = self.pools * self.workloads_each
        return f"reconciliation of {self.pools:,} pools with {workloads:,} workloads, {self.drifted:,} pools drifted"

    def measure(self, stage: BenchDatabase) -> Sequence[Figure]:
        """Let the daemon scan while single pools fall due."""
        drifted, sound = self._lots()
        stage.fill(drifted, sound)
        commits = stage.commits()
        with stage.daemon(**UNTHROTTLED) as daemon:
            daemon.first("expiry_active")
            due_at = fall_due_one_by_one(stage, trials=self.trials)
            scan = daemon.first("reconciliation_completed", within_seconds=600)
            wrong = set(range(drifted.first_pool_id, drifted.first_pool_id + drifted.pools))
            written = _written(commits, wrong) - set(due_at)
        late = milliseconds_late(commits.decommissionings(), due_at)
        return [
            Figure("pace", scan["pools"] / scan["active_seconds"], "pools/s", at_least=10_000),
            Figure("drifted pools written", len(written & wrong) / len(wrong) * 100, "%", at_least=100),
            Figure("other pools written", len(written - wrong), "pools", at_most=0),
            *lateness_figures(late, half_at_most=None, most_at_most=100),
        ]

    def _lots(self) -> tuple[PoolBatch, PoolBatch]:
        """Return the drifted pools and the others, in the order of the scan."""
        start, far = 1_000_000, int(time.time()) + FAR_SECONDS
        drifted = PoolBatch(
            pools=self.drifted,
            first_pool_id=start,
            empty_at=far,
            apart_seconds=1,
            workloads_each=self.workloads_each + 1,
            deleted_each=1,
        )
        sound = PoolBatch(
            pools=self.pools - self.drifted,
            first_pool_id=start + self.drifted,
            empty_at=far,
            apart_seconds=1,
            workloads_each=self.workloads_each,
        )
        return drifted, sound


def _written(commits: Commits, expected: set[int]) -> set[int]:
    """Wait until the expected pools are written, for a limited time, and return all that are."""
    deadline = time.monotonic() + REPAIR_SECONDS
    while not expected <= (written := set(commits.updates())) and time.monotonic() < deadline:
        time.sleep(1)
    return written
