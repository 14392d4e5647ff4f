"""The rows of the benchmark, in the sizes of a full run and of a quick one; and the run, row by row.

Each row is measured on an empty database, even if the row before has failed.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pymongo.errors import PyMongoError

from pool_daemon.bench.busy_grid import BusyGrid, Deployments
from pool_daemon.bench.database import BenchDatabase
from pool_daemon.bench.figures import Figure, Row
from pool_daemon.bench.idle import Idle, StartWithoutIndexes
from pool_daemon.bench.latenesses import OneAtATime, Rearming
from pool_daemon.bench.neighbours import Fairness, StuckPools
from pool_daemon.bench.reconciliation import Reconciliation
from pool_daemon.bench.storm import Storm, StormGrowth
from pool_daemon.errors import PoolDaemonError


def full() -> Sequence[Row]:
    """Return all rows in the sizes for which the bounds are meant."""
    return (
        Storm(name="storm-pools", pools=10_000, rounds=3),
        Storm(name="storm-workloads", pools=100, workloads_each=1000),
        Storm(name="storm-one-pool", pools=1, workloads_each=20_000),
        StormGrowth(sizes=(1_000, 10_000, 100_000)),
        OneAtATime(trials=200),
        Rearming(trials=200),
        BusyGrid(updates_a_second=2000, seconds=60),
        Deployments(deployments=200),
        Idle(sizes=(1_000, 10_000, 100_000, 1_000_000), idle_seconds=60),
        StartWithoutIndexes(pools=1_000_000),
        Reconciliation(pools=1_000_000, workloads_each=2, drifted=1_000, trials=60),
        StuckPools(pools=100_000, trials=50),
        Fairness(name="fairness-pools", workloads=50_000, pools=50_000, singles=30),
        Fairness(name="fairness-large-pools", workloads=50_000, pools=50, singles=30),
        Fairness(name="fairness-one-pool", workloads=50_000, pools=1, singles=30),
    )


def quick() -> Sequence[Row]:
    """Return the same rows, small enough for a quick check."""
    return (
        Storm(name="storm-pools", pools=2_000, patience_seconds=1),
        Storm(name="storm-workloads", pools=20, workloads_each=150, patience_seconds=1),
        Storm(name="storm-one-pool", pools=1, workloads_each=3_000, patience_seconds=1),
        StormGrowth(sizes=(200, 2_000)),
        OneAtATime(trials=5),
        Rearming(trials=20),
        BusyGrid(updates_a_second=2000, seconds=5),
        Deployments(deployments=50),
        Idle(sizes=(1_000, 10_000), idle_seconds=3),
        StartWithoutIndexes(pools=20_000),
        Reconciliation(pools=20_000, workloads_each=2, drifted=200, trials=3),
        StuckPools(pools=5_000, trials=5),
        Fairness(name="fairness-pools", workloads=5_000, pools=5_000, singles=2),
        Fairness(name="fairness-large-pools", workloads=5_000, pools=5, singles=2),
        Fairness(name="fairness-one-pool", workloads=5_000, pools=1, singles=2),
    )


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a row: its figures, or why there are none."""

    row: Row
    figures: Sequence[Figure]
    seconds: float
    failure: str | None = None

    @property
    def reached(self) -> bool:
        """Whether every figure keeps its bounds."""
        return self.failure is None and all(figure.reached is not False for figure in self.figures)


def results(rows: Sequence[Row], stage: BenchDatabase) -> Iterator[Result]:
    """Measure row after row and yield the result of each.

    A row that cannot be measured counts as not reached, and the others are measured all the same.
    """
    for row in rows:
        stage.begin(row.work)
        started_at = time.monotonic()
        figures: Sequence[Figure] = ()
        failure = None
        try:
            figures = row.measure(stage)
        except (PoolDaemonError, PyMongoError) as error:
            failure = str(error)
        yield Result(row, figures, time.monotonic() - started_at, failure)
        stage.clear()
