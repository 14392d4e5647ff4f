"""Reconciliation as the daemon's users see it: in the database, in the log, and through the next deadline."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from arithmetic_model import Rates
from daemon_process import DaemonProcess, running_daemon
from deadline import wait_until
from explorer import CONTAINER, VOLUME, Explorer
from fail_point import fail_point
from indexes import build_indexes
from pymongo import MongoClient

QUICK = {"RECONCILE__INTERVAL_SECONDS": "0.2", "RECONCILE__CONFIRM_SECONDS": "0.5", "LOG__LEVEL": "debug"}

IN_SMALL_STEPS = {"EXPIRY__BATCH_WORKLOADS": "4", "EXPIRY__CONCURRENCY": "1", "BRAKE__ENABLED": "false"}


@pytest.fixture
def daemon(mongo_uri: str, database_name: str) -> Iterator[DaemonProcess]:
    with running_daemon(uri=mongo_uri, database_name=database_name, **QUICK) as daemon:
        wait_until(lambda: daemon.said("reconciliation_completed"), within_seconds=30, what="the first round")
        yield daemon


def test_a_lost_removal_is_repaired_and_the_pool_lasts_as_long_as_it_should(
    explorer: Explorer, daemon: DaemonProcess
) -> None:
    """Of two workloads one is deleted, but still counts: at that rate the pool would run empty twice as soon."""
    pool = explorer.buy(Rates(cu=20.0), [CONTAINER, CONTAINER])
    deleted, running = pool.workload_ids
    explorer.workloads.update_one({"_id": deleted}, {"$set": {"next_action": 6}})
    daemon.wait_for_log(
        lambda record: record["event"] == "drift_repaired", within_seconds=8, what="the pool to be repaired"
    )
    (repaired,) = daemon.said("drift_repaired")
    assert (repaired["pool"], repaired["dropped"], repaired["workloads"]) == (pool.pool_id, 1, [deleted])
    found = explorer.pools.find_one({"_id": pool.pool_id})
    assert found is not None
    assert (found["active_workload_ids"], found["active_cu"]) == ([running], 1.0)
    assert found["empty_at"] > pool.empty_at
    wait_until(lambda: time.time() > pool.empty_at + 1, within_seconds=15, what="the old end to pass")
    assert explorer.next_action(running) == 3


def test_a_missing_order_is_restored_and_no_second_decommission_recorded(
    explorer: Explorer, daemon: DaemonProcess
) -> None:
    pool = explorer.buy_expired(CONTAINER, VOLUME)
    orders = {"_id": {"$in": pool.workload_ids}}
    wait_until(lambda: explorer.orders.count_documents(orders) == 2, within_seconds=10, what="the orders")
    explorer.orders.delete_many(orders)
    wait_until(
        lambda: len(daemon.said("delete_order_restored")) == 2, within_seconds=10, what="the orders to be restored"
    )
    for workload_id in pool.workload_ids:
        order = explorer.bytes_of(explorer.orders, workload_id)
        assert order is not None
        assert order == explorer.bytes_of(explorer.workloads, workload_id)
    for kind in ("decommissioned", "delete_order_restored"):
        assert explorer.events.count_documents({"kind": kind}) == 2


def test_what_the_first_pass_is_about_to_settle_is_not_handed_to_it_a_second_time(
    mongo: MongoClient[dict[str, Any]], mongo_uri: str, database_name: str, explorer: Explorer
) -> None:
    """The scans go past the pools again and again while the pass is at work, long enough to take up more meanwhile.

    The indexes are there: while they are built, transactions are refused their locks and passes fail.
    """
    build_indexes(mongo_uri, database_name)
    count = 40
    for _ in range(count):
        explorer.buy_expired(CONTAINER)
    namespace = explorer.pools.full_name
    with (
        fail_point(mongo, "update", mode="alwaysOn", blockConnection=True, blockTimeMS=300, namespace=namespace),
        running_daemon(uri=mongo_uri, database_name=database_name, **QUICK | IN_SMALL_STEPS) as daemon,
    ):
        wait_until(lambda: daemon.said("pass_completed"), within_seconds=20, what="the pass")
        rounds = daemon.said("reconciliation_completed")
        settled = [each["settled"] for each in daemon.said("pass_completed")]
    assert len(rounds) > 2
    assert sum(each["overdue"] for each in rounds) == 0
    assert settled == [count]


def test_a_restored_backup_that_the_reconciler_meets_before_anybody_tells_of_it_is_held(
    mongo: MongoClient[dict[str, Any]], mongo_uri: str, database_name: str, explorer: Explorer
) -> None:
    """The stream is away, and the next full scan is far off."""
    backup = [explorer.draft(Rates(cu=1.0), [CONTAINER], bought_at=int(time.time()) - 3600) for _ in range(10)]
    blind = {"BRAKE__MIN_POOLS": "4"}
    namespace = f"{database_name}.$cmd.aggregate"
    with (
        fail_point(mongo, "aggregate", mode="alwaysOn", errorCode=40573, namespace=namespace),
        running_daemon(uri=mongo_uri, database_name=database_name, **QUICK | blind) as daemon,
    ):
        wait_until(lambda: daemon.said("stream_lost"), within_seconds=20, what="the daemon to be blind")
        rounds = len(daemon.said("reconciliation_completed"))
        wait_until(lambda: len(daemon.said("reconciliation_completed")) > rounds + 1, within_seconds=20, what="a round")
        explorer.create(backup)
        wait_until(lambda: daemon.said("brake_held"), within_seconds=20, what="the backup to be held")
    assert set(explorer.next_actions([workload for pool in backup for workload in pool.workload_ids])) == {3}
