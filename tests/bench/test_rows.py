"""Every row of the benchmark in miniature: that it measures what it says, not how fast that is."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pool_daemon.bench import storm
from pool_daemon.bench.busy_grid import BusyGrid, Deployments
from pool_daemon.bench.database import BenchDatabase
from pool_daemon.bench.figures import Figure, Row
from pool_daemon.bench.idle import Idle, StartWithoutIndexes
from pool_daemon.bench.latenesses import OneAtATime, Rearming
from pool_daemon.bench.neighbours import Fairness, StuckPools
from pool_daemon.bench.reconciliation import Reconciliation
from pool_daemon.bench.storm import Storm, StormGrowth
from pool_daemon.bench.suite import Result, full, quick, results
from pool_daemon.errors import BenchError

MINIATURES = (
    Storm(name="storm-one-pool", pools=1, workloads_each=120, patience_seconds=1),
    StormGrowth(sizes=(50, 100)),
    OneAtATime(trials=3),
    Rearming(trials=3),
    BusyGrid(updates_a_second=200, seconds=4),
    Deployments(deployments=20),
    Idle(sizes=(1_000, 10_000), idle_seconds=1),
    StartWithoutIndexes(pools=1_000),
    Reconciliation(pools=2_000, workloads_each=2, drifted=20, trials=1),
    StuckPools(pools=100, trials=2),
    Fairness(name="fairness-pools", workloads=1_500, pools=1_500, singles=2),
    Fairness(name="fairness-one-pool", workloads=600, pools=1, singles=2),
)

ANYWHERE = {"grows with the exponent", "memory", "idle: processor"}
"""Figures that a miniature may leave without a value, or below zero: it is too small or too short for them."""


class Impossible:
    """A row that cannot be measured here."""

    name = "impossible"
    work = "the impossible"

    def measure(self, _stage: BenchDatabase) -> Sequence[Figure]:
        raise BenchError("this machine was too busy")


@pytest.fixture
def stage(mongo_uri: str, database_name: str, tmp_path: Path) -> Iterator[BenchDatabase]:
    with BenchDatabase(uri=mongo_uri, name=database_name, folder=tmp_path, tell=print) as stage:
        yield stage


def figure_of(result: Result, name: str, unit: str | None = None) -> Figure:
    return next(each for each in result.figures if each.name == name and unit in {None, each.unit})


@pytest.mark.parametrize("row", MINIATURES, ids=lambda row: row.name)
def test_a_row_measures_something_and_leaves_nothing_behind(stage: BenchDatabase, row: Row) -> None:
    (result,) = results([row], stage)
    assert result.failure is None
    unmeasured = [each.name for each in result.figures if not math.isfinite(each.value)]
    assert [name for name in unmeasured if not any(part in name for part in ANYWHERE)] == []
    assert stage.database.list_collection_names() == []


def test_a_storm_is_counted_from_its_second_and_by_all_three(stage: BenchDatabase) -> None:
    (result,) = results([Storm(name="storm-pools", pools=100, patience_seconds=1)], stage)
    assert figure_of(result, "first decommissioning after the second").value >= 0
    daemon, raw, plain = (figure_of(result, name).value for name in ("daemon", "raw limit", "one by one"))
    assert figure_of(result, "pace", "× raw limit").value == pytest.approx(daemon / raw)
    assert figure_of(result, "pace", "× one by one").value == pytest.approx(daemon / plain)


def test_a_reconciliation_writes_the_pools_that_drifted_and_no_others(stage: BenchDatabase) -> None:
    (result,) = results([Reconciliation(pools=2_000, workloads_each=2, drifted=20, trials=1)], stage)
    assert figure_of(result, "drifted pools written").value == 100
    assert figure_of(result, "other pools written").value == 0


@pytest.mark.parametrize(("saturating", "bound"), [(20, 5), (1000, None)])
def test_memory_must_be_constant_only_from_where_every_batch_is_full(
    stage: BenchDatabase, monkeypatch: pytest.MonkeyPatch, saturating: int, bound: float | None
) -> None:
    monkeypatch.setattr(storm, "SATURATING", saturating)
    (result,) = results([StormGrowth(sizes=(10, 30))], stage)
    (memory,) = (each for each in result.figures if each.name.startswith("peak memory above"))
    assert memory.at_most == bound


def test_a_row_that_cannot_be_measured_is_not_reached_and_the_next_one_is_measured(stage: BenchDatabase) -> None:
    failed, measured = results([Impossible(), StartWithoutIndexes(pools=100)], stage)
    assert (failed.reached, failed.failure) == (False, "this machine was too busy")
    assert measured.failure is None


def test_a_quick_run_has_every_row_of_the_full_one_and_each_figure_to_reach_is_stated() -> None:
    assert [row.name for row in quick()] == [row.name for row in full()]
    assert len({row.name for row in full()}) == len(full())
