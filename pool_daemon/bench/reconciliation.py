"""Reconciliation of a large grid: how fast it goes past everything, what it writes, and who waits for it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from pool_daemon.bench.commits import Commits
from pool_daemon.bench.figures import Figure
from pool_daemon.bench.grid import Lot
from pool_daemon.bench.latenesses import FAR_SECONDS, fall_due_one_by_one, lateness_figures, milliseconds_late
from pool_daemon.bench.stage import Stage

SOUND_FIRST: Final = 10
"""So many times more pools are sound than drifted before the first drifted one comes: the daemon mends none while
half of what it has seen seems wrong."""

MENDING_SECONDS: Final = 60

UNTHROTTLED: Final = {
    "RECONCILE__ENABLED": "true",
    "RECONCILE__POOLS_PER_SECOND": "0",
    "RECONCILE__INTERVAL_SECONDS": "0.1",
    "RECONCILE__ORDER_GRACE_SECONDS": "0",
}


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """One walk past all pools at full speed, and as much of the second as it takes to mend what the first has found.

    In every drifted pool one workload is listed that does not exist. The pace is the daemon's own, from its log;
    which pools were written is read from the server's log of operations, and so is the lateness of single pools that
    fall due meanwhile, one a second.
    """

    pools: int
    workloads_each: int
    drifted: int
    trials: int
    name: str = "reconciliation"

    @property
    def work(self) -> str:
        """What is done."""
        workloads = self.pools * self.workloads_each
        return f"reconciliation of {self.pools:,} pools with {workloads:,} workloads, {self.drifted:,} pools drifted"

    def measure(self, stage: Stage) -> Sequence[Figure]:
        """Let the daemon walk while single pools fall due."""
        before, drifted, behind = self._lots()
        stage.fill(before, drifted, behind)
        commits = stage.commits()
        with stage.daemon(**UNTHROTTLED) as daemon:
            daemon.first("acting")
            due_at = fall_due_one_by_one(stage, trials=self.trials)
            walk = daemon.first("reconciliation_completed", within_seconds=600)
            wrong = set(range(drifted.first_pool_id, drifted.first_pool_id + drifted.pools))
            written = _written(commits, wrong) - set(due_at)
        late = milliseconds_late(commits.decommissionings(), due_at)
        return [
            Figure("pace", walk["pools"] / walk["seconds"], "pools/s", at_least=10_000),
            Figure("drifted pools written", len(written & wrong) / len(wrong) * 100, "%", at_least=100),
            Figure("other pools written", len(written - wrong), "pools", at_most=0),
            *lateness_figures(late, half_at_most=None, most_at_most=100),
        ]

    def _lots(self) -> tuple[Lot, Lot, Lot]:
        """Return the pools in front of the drifted ones, those, and the rest, in the order of the walk."""
        start, far = 1_000_000, int(time.time()) + FAR_SECONDS
        in_front = self.drifted * SOUND_FIRST
        sizes = (in_front, self.drifted, self.pools - self.drifted - in_front)
        first_ids = (start, start + sizes[0], start + sizes[0] + sizes[1])
        before, wrong, behind = (
            Lot(pools=pools, first_pool_id=first_id, empty_at=far, apart_seconds=1, workloads_each=self.workloads_each)
            for pools, first_id in zip(sizes, first_ids, strict=True)
        )
        return before, replace(wrong, workloads_each=self.workloads_each + 1, missing_each=1), behind


def _written(commits: Commits, expected: set[int]) -> set[int]:
    """Wait for a while until the expected pools are written, and return all that are."""
    deadline = time.monotonic() + MENDING_SECONDS
    while not expected <= (written := set(commits.updates())) and time.monotonic() < deadline:
        time.sleep(1)
    return written
