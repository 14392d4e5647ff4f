"""The two references write what the daemon writes, so that their pace can stand beside the daemon's."""

import time
from pathlib import Path
from typing import Any

import pytest
from arithmetic_model import Document
from pymongo import MongoClient

from pool_daemon.bench import references
from pool_daemon.bench.database import BenchDatabase, TooBusyError, in_time
from pool_daemon.bench.figures import Figure, exponent, percentile
from pool_daemon.bench.grid import PoolBatch
from pool_daemon.bench.references import one_by_one
from pool_daemon.errors import BenchError

WORKLOADS = 60


@pytest.fixture
def stage(mongo_uri: str, database_name: str, tmp_path: Path) -> BenchDatabase:
    return BenchDatabase(uri=mongo_uri, name=database_name, folder=tmp_path, tell=print)


def storm(stage: BenchDatabase) -> int:
    now = int(time.time())
    stage.fill(PoolBatch(pools=20, workloads_each=3, empty_at=now))
    return now


def outcome(stage: BenchDatabase) -> dict[str, Any]:
    """Return all that decommissioning writes, without the instants and the synced amounts."""
    workloads = list(stage.database["workload"].find().sort("_id", 1))
    orders = list(stage.database["workqueue"].find().sort("_id", 1))
    # A daemon records more than that: when it takes over, for one.
    decommissioned = stage.database["pool-daemon-events"].find({"kind": "decommissioned"})
    events = [event["_id"] for event in decommissioned.sort("_id", 1)]
    return {"workloads": workloads, "orders": orders, "events": events}


def test_the_raw_limit_writes_what_the_daemon_does_with_and_without_transactions(stage: BenchDatabase) -> None:
    with stage:
        written = []
        for transactions in (False, True):
            now = storm(stage)
            batches = references.prepare(stage.database, now=now)
            assert references.write(stage.database, batches, threads=2, transactions=transactions) > 0
            written.append(outcome(stage) | {"events": len(outcome(stage)["events"])})
        now = storm(stage)
        commits = stage.commits()
        with stage.daemon() as daemon:
            daemon.first("pass_completed", holds=lambda entry: entry["decommissioned"] == WORKLOADS)
        assert sum(commit.workloads for commit in commits.decommissionings()) == WORKLOADS
        written.append(outcome(stage) | {"events": len(outcome(stage)["events"])})
    assert written[0] == written[1] == written[2]
    assert {order["next_action"] for order in written[0]["orders"]} == {4}
    assert len(written[0]["orders"]) == written[0]["events"] == WORKLOADS


def test_one_by_one_marks_every_workload_and_orders_it(stage: BenchDatabase) -> None:
    with stage:
        assert one_by_one(stage.database, now=storm(stage), patience_seconds=60) > 0
        found = outcome(stage)
    assert found["orders"] == found["workloads"]
    assert [workload["next_action"] for workload in found["workloads"]] == [4] * WORKLOADS


def test_a_database_that_is_not_empty_is_refused_and_left_as_it_is(
    stage: BenchDatabase, mongo: MongoClient[Document], database_name: str
) -> None:
    mongo[database_name]["customers"].insert_one({"_id": 1})
    with pytest.raises(BenchError, match="is not empty"), stage:
        pass
    assert mongo[database_name]["customers"].count_documents({}) == 1


def test_a_figure_is_reached_within_its_bounds_and_not_if_it_could_not_be_measured() -> None:
    assert Figure("pace", 15.0, "×", at_least=15).reached is True
    assert Figure("pace", 14.9, "×", at_least=15).reached is False
    assert Figure("lateness", float("nan"), "ms", at_most=50).reached is False
    assert Figure("pace", 7, "/s").reached is None


def test_percentiles_and_exponents() -> None:
    assert (percentile(range(1, 201), 50), percentile(range(1, 201), 99)) == (100, 198)
    assert exponent({10: 1.0, 1000: 100.0}) == pytest.approx(1)
    assert exponent({10: 3.0, 1000: 3.0}) == pytest.approx(0)


def test_a_deadline_that_comes_before_all_is_ready_is_put_off() -> None:
    leads = []

    def attempt(due_at: int) -> str:
        leads.append(due_at - time.time())
        if len(leads) < 3:
            raise TooBusyError("too busy")
        return "measured"

    assert in_time([PoolBatch(pools=1, empty_at=0)], attempt) == "measured"
    assert leads == pytest.approx([3, 6, 12], abs=1.5)
