"""Changes that the watcher cannot understand, between those that it must."""

import time
from collections import Counter
from typing import Any

import pytest
from arithmetic_model import Rates
from bson import DBRef, MaxKey, ObjectId
from explorer import CONTAINER, YEAR_SECONDS, Explorer
from faults.daemons import daemon_on
from faults.figures import Figures
from faults.streams import DEAF, expire
from ledger import Ledger

GONE_SECONDS = 30


@pytest.mark.parametrize("count", [3, pytest.param(60, marks=pytest.mark.faults)])
def test_45_changes_that_nobody_understands_end_nothing_and_hide_nothing(
    count: int, mongo_uri: str, explorer: Explorer, ledger: Ledger, figures: Figures
) -> None:
    strange: list[Any] = [{"a": 1}, DBRef("workload", {"a": 1}), {"a": {"b": []}}, ObjectId(), "x", 0.5, MaxKey()]
    late: list[float] = []
    gone: list[int] = []
    with daemon_on(mongo_uri, explorer, **DEAF) as daemon:
        ledger.settle()
        for trial in range(count):
            pool = explorer.buy(Rates(cu=YEAR_SECONDS), [CONTAINER])
            workloads = [{"_id": {"trial": trial, "id": each}, "next_action": 2} for each in strange]
            workloads += [{"_id": each, "next_action": 2} for each in strange] if trial == 0 else []
            explorer.workloads.insert_many(workloads)
            explorer.workloads.update_many({"next_action": 2}, {"$set": {"next_action": 3}})
            expired_at = expire(explorer, pool)
            explorer.wait_until_gone(pool.workload_ids, within_seconds=GONE_SECONDS)
            late.append(time.time() - expired_at)
            gone += pool.workload_ids
        told = len(daemon.said("change_not_understood"))
        assert daemon.is_running
    events = Counter(event["workload_id"] for event in explorer.events.find({"workload_id": {"$in": gone}}))
    violations = [f"{workload_id}: {events[workload_id]} records" for workload_id in gone if events[workload_id] != 1]
    figures.record(
        45,
        "changes of workloads with ids of every type",
        trials=count,
        violations=violations,
        figure=f"what came behind them is acted on within {max(late):.2f} s; told: {told}",
    )
    assert violations == []
    assert told
