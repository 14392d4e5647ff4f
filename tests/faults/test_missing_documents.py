"""Documents of workloads are missing for a while, as in a restore; and orders are missing that nobody is owed."""

import random
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from itertools import pairwise

import pytest
from arithmetic_model import Rates
from daemon_process import DaemonProcess, Record
from deadline import wait_until
from explorer import CONTAINER, Explorer
from faults.daemons import STORM, daemon_on
from faults.figures import Figures
from ledger import DELETE, Ledger

RECONCILING = {
    "RECONCILE__INTERVAL_SECONDS": "0.2",
    "RECONCILE__CONFIRM_SECONDS": "0.5",
    "RECONCILE__POOLS_PER_SECOND": "0",
    "LOG__LEVEL": "debug",
}

ROUNDS = 6
"""Rounds of the reconciliation while the documents are missing: a confirmed finding is acted on by the second of them
that lies far enough behind the first."""

ORDERS_PER_SECOND = 20


@pytest.fixture
def pools(request: pytest.FixtureRequest, trials_of: Callable[[int], int]) -> int:
    return trials_of(request.param)


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("pools", "percent"),
    [(100, 25), *(pytest.param(1_000, percent, marks=pytest.mark.faults) for percent in (1, 10, 33, 66, 100))],
    indirect=["pools"],
)
def test_37_pools_whose_workloads_have_no_documents_for_a_while_are_what_they_were_and_go_in_time(
    pools: int,
    percent: int,
    explorer: Explorer,
    ledger: Ledger,
    mongo_uri: str,
    chance: random.Random,
    figures: Figures,
) -> None:
    bought_at, lasting_seconds = int(time.time()), 20 + pools // 40
    bought = [
        explorer.draft(Rates(cu=2.0 * (lasting_seconds + number % 4)), [CONTAINER, CONTAINER], bought_at=bought_at)
        for number in range(pools)
    ]
    explorer.create(bought)
    workloads = [workload for pool in bought for workload in pool.workloads]
    missing = chance.sample(workloads, len(workloads) * percent // 100)
    with daemon_on(mongo_uri, explorer, **RECONCILING, **STORM) as daemon:
        wait_for_rounds(daemon, 1)
        before = explorer.bytes_by_id("capacity-pools")
        explorer.workloads.delete_many({"_id": {"$in": [workload["_id"] for workload in missing]}})
        wait_until(lambda: daemon.said("workload_documents_missing"), within_seconds=20, what="the warning")
        wait_for_rounds(daemon, ROUNDS)
        explorer.workloads.insert_many(missing)
        wait_until(lambda: daemon.said("workload_documents_complete"), within_seconds=20, what="the all-clear")
        wait_for_rounds(daemon, 2)
        after = explorer.bytes_by_id("capacity-pools")
        restored_at = time.time()
        explorer.wait_until_gone([each["_id"] for each in workloads], within_seconds=lasting_seconds + 30)
    changed = [pool_id for pool_id, document in before.items() if after[pool_id] != document]
    violations = ledger.violations()
    late = max(ledger.lateness([workload["_id"] for workload in workloads]))
    figures.record(
        37,
        f"{percent} % of the workloads' documents missing",
        trials=pools,
        violations=[*violations, *changed],
        figure=f"pools changed: {len(changed)}; late by at most {late:.1f} s",
    )
    assert changed == []
    assert violations == []
    assert restored_at < bought_at + lasting_seconds
    assert daemon.said("drift_repaired") == []


@pytest.mark.timeout(180)
@pytest.mark.parametrize("failed", [200, pytest.param(3_000, marks=pytest.mark.faults)])
def test_38_after_a_failed_deployment_no_order_is_restored_and_those_that_are_leave_no_faster_than_orders_may(
    failed: int, explorer: Explorer, mongo_uri: str, figures: Figures
) -> None:
    """What failed to deploy is to be deleted for good, is in no pool, and has no order."""
    pools = [explorer.buy(Rates(cu=1e9), []) for _ in range(50)]
    explorer.workloads.insert_many(
        explorer.new_workload(pools[number % 50].pool_id, CONTAINER, next_action=DELETE) for number in range(failed)
    )
    lost = explorer.buy(Rates(cu=1e9), [CONTAINER] * 3 * ORDERS_PER_SECOND, next_action=DELETE)
    bounded = RECONCILING | {"EXPIRY__ORDERS_PER_SECOND": str(ORDERS_PER_SECOND)}
    with daemon_on(mongo_uri, explorer, **bounded) as daemon:
        wait_until(
            lambda: explorer.orders.count_documents({"_id": {"$in": lost.workload_ids}}) == len(lost.workload_ids),
            within_seconds=90,
            what="the orders that were lost",
        )
        wait_for_rounds(daemon, ROUNDS)
    ordered = {order["_id"] for order in explorer.orders.find({}, {"_id": 1})}
    not_owed = ordered.difference(lost.workload_ids)
    restored = daemon.said("reconciliation_completed")
    rates = [later["orders"] / seconds_between(earlier, later) for earlier, later in pairwise(restored)]
    figures.record(
        38,
        "failed deployments, and orders that were lost",
        trials=failed,
        violations=not_owed,
        figure=f"restored: {len(ordered) - len(not_owed)}, at {max(rates):.0f} a second at most",
    )
    assert not_owed == set()
    assert max(rates) <= ORDERS_PER_SECOND * 1.1
    records = Counter(record["kind"] for record in explorer.events.find({"pool_id": {"$exists": True}}))
    assert records == {"delete_order_restored": len(lost.workload_ids)}


def wait_for_rounds(daemon: DaemonProcess, rounds: int) -> None:
    """Wait until so many more rounds of the reconciliation have begun and ended."""
    wanted = len(daemon.said("reconciliation_completed")) + rounds + 1
    wait_until(
        lambda: len(daemon.said("reconciliation_completed")) >= wanted, within_seconds=60, what="the reconciliation"
    )


def seconds_between(earlier: Record, later: Record) -> float:
    """Return how long a round took, with the rest before it, by the instants at which the log was written."""
    first, last = (datetime.fromisoformat(record["timestamp"]) for record in (earlier, later))
    return (last - first).total_seconds()
