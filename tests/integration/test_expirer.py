"""A whole pass on a real server: what it settles, what it isolates, and what it leaves for the next one."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from actors import ME
from arithmetic_model import Rates
from bson import Int64
from deadline import until, wait_for_instant, wait_until
from explorer import CONTAINER, FREE, VOLUME, Explorer
from fail_point import fail_point, times_entered
from no_brake import NoBrake
from pymongo import MongoClient
from structlog.testing import capture_logs

from pool_daemon.clock import SystemClock
from pool_daemon.errors import StoreUnavailableError
from pool_daemon.expiry.expirer import Expirer
from pool_daemon.expiry.work_queue import Cause, WorkQueue
from pool_daemon.guards.gate import Closed
from pool_daemon.guards.guards import Guards
from pool_daemon.guards.quarantine import Quarantine
from pool_daemon.settings import Settings
from pool_daemon.settings.sections import Expiry, Log, Retry
from pool_daemon.settings.settings import LiveSettings
from pool_daemon.store.client import connect
from pool_daemon.store.quarantine import QuarantineStore
from pool_daemon.store.setup import create_collections, setup
from pool_daemon.store.store import Store
from pool_daemon.telemetry.observer import Observer
from pool_daemon.telemetry.reports import Reports

Client = MongoClient[dict[str, Any]]


@pytest.fixture
def queue() -> WorkQueue:
    return WorkQueue()


class Latch:
    """A gate that a test closes and opens."""

    reason: Closed | None = None

    def closed_by(self) -> Closed | None:
        return self.reason


@pytest.fixture
def latch() -> Latch:
    return Latch()


@pytest.fixture
def live() -> LiveSettings:
    """Hold what a test may change while the expirer lives, as a reload does."""
    return LiveSettings(Settings(expiry=Expiry(batch_workloads=20, concurrency=2)))


@pytest_asyncio.fixture
async def expirer(
    mongo_uri: str, database_name: str, queue: WorkQueue, latch: Latch, live: LiveSettings
) -> AsyncIterator[Expirer]:
    database = connect(uri=mongo_uri, name=database_name, timeout_seconds=2)
    await create_collections(database)
    await setup(database)
    clock = SystemClock()
    observer = Observer(identity="me", version="0", clock=clock)
    quarantine = Quarantine(
        store=QuarantineStore(database=database, identity="me"),
        settings=Retry(),
        clock=clock,
        look_again=lambda pools: queue.add_all(pools, cause=Cause.RETRY),
        observer=observer,
    )
    yield Expirer(
        store=Store(database=database, clock=clock, actor=ME),
        queue=queue,
        guards=Guards(gate=latch, brake=NoBrake(), quarantine=quarantine),
        reports=Reports(observer=observer, settings=Log()),
        clock=clock,
        settings=live.view(lambda settings: settings.expiry),
    )
    database.close()


def now() -> int:
    return int(time.time())


async def test_everything_overdue_is_settled_and_the_next_pool_is_found(explorer: Explorer, expirer: Expirer) -> None:
    overdue = [explorer.buy_expired(CONTAINER) for _ in range(30)]
    coming = explorer.buy(Rates(1000, 1e9, 0), [CONTAINER])
    report = await expirer.run_pass(now())
    assert (report.settled, report.decommissioned, report.failed_pools) == (30, 30, 0)
    assert (report.next_at, report.next_pool_id) == (coming.empty_at, coming.pool_id)
    gone = [workload for pool in overdue for workload in pool.workload_ids]
    assert set(explorer.next_actions(gone)) == {4}
    assert explorer.next_actions(coming.workload_ids) == [3]


async def test_the_next_pass_reads_only_what_fell_due_since(explorer: Explorer, expirer: Expirer) -> None:
    for _ in range(10):
        explorer.buy_expired(CONTAINER)
    await expirer.run_pass(now())
    assert (await expirer.run_pass(now() + 1)).settled == 0


async def test_a_pool_with_more_workloads_than_a_batch_holds_is_emptied_in_one_pass(
    explorer: Explorer, expirer: Expirer
) -> None:
    big = explorer.buy_expired(*[FREE[1]] * 25, *[CONTAINER] * 40)
    small = explorer.buy_expired(CONTAINER)
    report = await expirer.run_pass(now())
    assert report.decommissioned == 41
    assert explorer.next_actions(big.workload_ids) == [3] * 25 + [4] * 40
    assert explorer.next_actions(small.workload_ids) == [4]


async def test_with_a_gate_closed_nothing_that_is_due_keeps_the_daemon_awake_and_all_of_it_is_done_when_it_opens(
    explorer: Explorer, expirer: Expirer, queue: WorkQueue, latch: Latch
) -> None:
    await expirer.run_pass(now())
    latch.reason = Closed.STANDBY
    pool = explorer.buy_expired(CONTAINER)
    queue.add(pool.pool_id, at=pool.empty_at, cause=Cause.CHANGED)
    report = await expirer.run_pass(now())
    assert (report.settled, report.next_at) == (0, None)
    latch.reason = None
    assert (await expirer.run_pass(now())).decommissioned == 1


async def test_orders_leave_at_the_rate_that_is_set_those_due_longest_first(
    explorer: Explorer, expirer: Expirer, live: LiveSettings
) -> None:
    live.replace(Settings(expiry=Expiry(batch_workloads=20, concurrency=2, orders_per_second=20)))
    recent = [explorer.buy_expired(CONTAINER, empty_at=Int64(now() - 60)) for _ in range(20)]
    longest = [explorer.buy_expired(CONTAINER, empty_at=Int64(now() - 120)) for _ in range(20)]
    assert (await expirer.run_pass(now())).decommissioned == 40
    gone_at = {event["pool_id"]: event["decommissioned_at"] for event in explorer.events.find()}
    first, second = ([gone_at[pool.pool_id] for pool in pools] for pools in (longest, recent))
    assert max(first) < min(second)
    assert (min(second) - max(first)).total_seconds() > 0.9


async def test_one_pool_that_always_fails_waits_and_all_others_are_settled_in_the_same_pass(
    explorer: Explorer, expirer: Expirer
) -> None:
    pools = [explorer.buy_expired(CONTAINER) for _ in range(40)]
    poison = pools[17]
    explorer.database.create_collection("workqueue", validator={"pool_id": {"$ne": poison.pool_id}})
    moment = now()
    with capture_logs() as logs:
        report = await expirer.run_pass(moment)
    assert (report.decommissioned, report.failed_pools) == (39, 1)
    assert explorer.next_actions(poison.workload_ids) == [3]
    aside = [entry for entry in logs if entry["event"] == "pool_failed"]
    assert [entry["pool"] for entry in aside] == [poison.pool_id]
    assert report.next_at is not None
    assert 0 <= report.next_at - moment - aside[0]["retry_seconds"] <= now() - moment

    explorer.database.command("collMod", "workqueue", validator={})
    await asyncio.to_thread(wait_for_instant, report.next_at)
    report = await expirer.run_pass(report.next_at)
    assert report.decommissioned == 1
    assert explorer.next_actions(poison.workload_ids) == [4]


async def test_unreadable_documents_are_told_once_and_left_as_they_are(
    explorer: Explorer, expirer: Expirer, queue: WorkQueue
) -> None:
    good = explorer.buy_expired(CONTAINER)
    strange = explorer.buy_expired(CONTAINER, cus="many")
    never = explorer.buy_expired(empty_at="soon")
    unknown = explorer.new_workload(good.pool_id, CONTAINER, workload_type=99)
    explorer.workloads.insert_one(unknown)
    with capture_logs() as logs:
        for moment in (now(), now() + 1):
            queue.request_full_scan()
            await expirer.run_pass(moment)
    told = [
        (entry["event"], entry.get("pool", entry.get("workload"))) for entry in logs if "unreadable" in entry["event"]
    ]
    assert sorted(told) == [
        ("pool_unreadable", strange.pool_id),
        ("pool_unreadable", never.pool_id),
        ("workload_unreadable", unknown["_id"]),
    ]
    assert explorer.next_actions([*good.workload_ids, *strange.workload_ids, unknown["_id"]]) == [4, 3, 3]


async def test_a_pool_that_failed_is_late_from_its_end_and_not_from_its_next_try(
    explorer: Explorer, expirer: Expirer
) -> None:
    pool = explorer.buy_expired(CONTAINER)  # an hour ago
    explorer.buy_expired(CONTAINER)
    explorer.database.create_collection("workqueue", validator={"pool_id": {"$ne": pool.pool_id}})
    assert (await expirer.run_pass(now())).failed_pools == 1
    explorer.database.command("collMod", "workqueue", validator={})

    async def decommissions() -> int:
        return (await expirer.run_pass(now())).decommissioned

    with capture_logs() as logs:
        await until(decommissions, within_seconds=20, what="the next try", every_seconds=0.1)
    (gone,) = [entry for entry in logs if entry["event"] == "workload_decommissioned"]
    assert gone["lateness_ms"] > 3_500_000


async def test_an_outage_fails_the_pass_blames_no_pool_and_loses_nothing(
    explorer: Explorer, mongo: Client, expirer: Expirer, queue: WorkQueue
) -> None:
    pool = explorer.buy_expired(CONTAINER)
    queue.add(pool.pool_id, at=now(), cause=Cause.CHANGED)
    with (
        fail_point(mongo, "find", "aggregate", mode="alwaysOn", closeConnection=True),
        capture_logs() as logs,
        pytest.raises(StoreUnavailableError),
    ):
        await expirer.run_pass(now())
    assert [entry for entry in logs if entry["event"] == "pool_failed"] == []
    await expirer.run_pass(now())
    assert explorer.next_actions(pool.workload_ids) == [4]


async def test_a_closed_gate_lets_nothing_happen_loses_nothing_and_keeps_the_deadline_warm(
    explorer: Explorer, expirer: Expirer, latch: Latch
) -> None:
    pools = [explorer.buy_expired(CONTAINER) for _ in range(5)]
    coming = explorer.buy(Rates(1000, 1e9, 0), [CONTAINER])
    latch.reason = Closed.STANDBY
    report = await expirer.run_pass(now())
    assert (report.cut_short_by, report.settled, report.next_pool_id) == ("standby", 0, coming.pool_id)
    assert explorer.next_actions([pool.workload_ids[0] for pool in pools]) == [3] * 5
    latch.reason = None
    assert (await expirer.run_pass(now())).settled == 5


async def test_a_gate_that_closes_in_the_middle_of_a_pass_ends_it_between_batches_and_the_rest_is_not_lost(
    explorer: Explorer, mongo: Client, expirer: Expirer, latch: Latch
) -> None:
    pool = explorer.buy_expired(*[CONTAINER] * 60)  # three batches of one pool
    before = times_entered(mongo)
    with fail_point(mongo, "commitTransaction", blockConnection=True, blockTimeMS=300):
        passing = asyncio.create_task(expirer.run_pass(now()))
        await asyncio.to_thread(
            wait_until, lambda: times_entered(mongo) > before, within_seconds=5, what="the first commit"
        )
        latch.reason = Closed.STOPPING
        report = await passing
    assert (report.cut_short_by, report.decommissioned) == ("stopping", 20)
    assert sorted(explorer.next_actions(pool.workload_ids)) == [3] * 40 + [4] * 20
    latch.reason = None
    assert (await expirer.run_pass(now())).decommissioned == 40


async def test_the_pools_of_newly_deployed_workloads_are_looked_at(
    explorer: Explorer, expirer: Expirer, queue: WorkQueue
) -> None:
    pool = explorer.buy_expired(CONTAINER, VOLUME, next_action=1)
    await expirer.run_pass(now())
    for workload in pool.workload_ids:
        explorer.deploy(workload)
    queue.add_workloads([pool.workload_ids[0]])
    await expirer.run_pass(now())
    assert explorer.next_actions(pool.workload_ids) == [4, 4]


async def test_a_resource_that_runs_out_later_takes_its_workloads_then_although_nobody_touches_the_pool(
    explorer: Explorer, expirer: Expirer
) -> None:
    moment = now()
    pool = explorer.buy(Rates(0.5, 4500, 0), [CONTAINER, VOLUME], bought_at=moment - 3600)
    container, volume = pool.workload_ids
    report = await expirer.run_pass(moment)
    assert explorer.next_actions([container, volume]) == [4, 3]
    assert report.next_at is not None
    while explorer.next_action(volume) == 3:
        assert report.next_at is not None
        assert report.next_at <= moment + 3600
        report = await expirer.run_pass(report.next_at)
    drained = sum(explorer.rates[workload].su for workload in pool.workload_ids)
    saved = explorer.pools.find_one({"_id": pool.pool_id})
    assert saved is not None
    assert 0 <= saved["last_updated"] - (moment - 3600 + 4500 / drained) + 1 <= 2
