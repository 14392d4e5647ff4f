"""Nodes that never answer: what pools that stay expired for ever cost the others."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pool_daemon.bench.database import BenchDatabase
from pool_daemon.bench.figures import Figure, median
from pool_daemon.bench.grid import PoolBatch
from pool_daemon.bench.idle import FIRST_OVERDUE_ID, armed_after_first_pass
from pool_daemon.bench.latenesses import bystanders, rearm
from pool_daemon.capacity.workload import NextAction
from pool_daemon.harness import logged_at

FIRST_SILENT_ID: Final = 3_000_000
DAY_SECONDS: Final = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """The duration of a pass and of a full scan, in milliseconds."""

    pass_milliseconds: float
    rescan_milliseconds: float


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
        return f"{self.pools:,} expired pools whose nodes never answer"

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
            Figure("a rescan", beside.rescan_milliseconds / without.rescan_milliseconds, "× without", at_most=2),
            Figure("a pass", beside.pass_milliseconds, "ms"),
            Figure("a rescan", beside.rescan_milliseconds, "ms"),
            Figure("a rescan without them", without.rescan_milliseconds, "ms"),
        ]

    def _costs(self, stage: BenchDatabase, *lots: PoolBatch) -> Costs:
        stage.fill(*lots)
        with stage.daemon() as daemon:
            armed = armed_after_first_pass(daemon)
            full_scan_seconds = logged_at(armed) - logged_at(daemon.first("stream_opened"))
            passes = rearm(stage, daemon, trials=self.trials, apart_seconds=0.1)
        return Costs(pass_milliseconds=median(passes), rescan_milliseconds=full_scan_seconds * 1000)
