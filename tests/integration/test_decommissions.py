"""One batch, on a real server: what it writes, and what it does when the world changes in the middle of it."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from arithmetic_model import Rates
from bson import Decimal128, Int64
from deadline import wait_until
from explorer import CONTAINER, FREE, MISSING, PUBLIC_IP, VOLUME, Explorer, Purchase
from fail_point import fail_point, times_entered
from pymongo import MongoClient

from pool_daemon.clock import SystemClock
from pool_daemon.embedded import EmbeddedMongod
from pool_daemon.errors import StoreError, StoreUnavailableError
from pool_daemon.store.cases import OversizedBatchError, Settlement
from pool_daemon.store.client import Database, connect
from pool_daemon.store.decommissions import Decommissions
from pool_daemon.store.workloads import WorkloadStore

Client = MongoClient[dict[str, Any]]


@pytest.fixture
def explorer(mongo: Client, database_name: str) -> Explorer:
    return Explorer(database=mongo[database_name])


@pytest_asyncio.fixture
async def database(mongo_uri: str, database_name: str) -> AsyncIterator[Database]:
    database = connect(uri=mongo_uri, name=database_name, timeout_seconds=2)
    yield database
    database.close()


def decommissions_of(database: Database) -> Decommissions:
    return Decommissions(database=database, clock=SystemClock(), identity="me")


@pytest.fixture
def decommissions(database: Database) -> Decommissions:
    return decommissions_of(database)


def now() -> int:
    return int(time.time())


def assert_decommissioned(explorer: Explorer, workload_ids: list[int]) -> None:
    """Each has its one transition, its one order, which is the document itself, and its one record."""
    assert set(explorer.next_actions(workload_ids)) == {4}
    for workload_id in workload_ids:
        document = explorer.bytes_of(explorer.workloads, workload_id)
        assert explorer.bytes_of(explorer.orders, workload_id) == document
        assert explorer.events.count_documents({"workload_id": workload_id}) == 1


def assert_untouched(explorer: Explorer, workload_ids: list[int]) -> None:
    assert set(explorer.next_actions(workload_ids)) == {3}
    assert explorer.orders.count_documents({"_id": {"$in": workload_ids}}) == 0
    assert explorer.events.count_documents({"workload_id": {"$in": workload_ids}}) == 0


async def test_what_uses_an_exhausted_resource_goes_and_the_rest_stays(
    explorer: Explorer, decommissions: Decommissions
) -> None:
    pool = explorer.buy(Rates(0.5, 1e9, 0.5), [CONTAINER, VOLUME, PUBLIC_IP, FREE[0]], bought_at=now() - 3600)
    container, volume, address, free = pool.workload_ids
    settlement = await decommissions.settle([pool.pool_id], now=now())
    assert_decommissioned(explorer, [container, address])
    assert_untouched(explorer, [volume, free])
    assert {gone.workload_id: gone.resources for gone in settlement.decommissioned} == {
        container: ("cu",),
        address: ("ipv4u",),
    }


async def test_the_pool_is_asked_for_again_when_the_next_resource_runs_out(
    explorer: Explorer, decommissions: Decommissions
) -> None:
    moment = now()
    pool = explorer.buy(Rates(0.5, 5000, 0), [CONTAINER, VOLUME], bought_at=moment - 3600)
    settlement = await decommissions.settle([pool.pool_id], now=moment)
    drained = sum(explorer.rates[workload].su for workload in pool.workload_ids)
    assert settlement.look_again == {pool.pool_id: moment - 3600 + int(5000 / drained)}


async def test_settling_again_finds_nothing_left_to_do(explorer: Explorer, decommissions: Decommissions) -> None:
    pool = explorer.buy_expired(CONTAINER)
    await decommissions.settle([pool.pool_id], now=now())
    saved = explorer.bytes_of(explorer.pools, pool.pool_id)
    again = await decommissions.settle([pool.pool_id], now=now() + 5)
    assert again.decommissioned == []
    assert explorer.bytes_of(explorer.pools, pool.pool_id) == saved
    assert_decommissioned(explorer, pool.workload_ids)


@pytest.mark.parametrize(
    "missing",
    [("ipv4us", "active_ipv4", "sponsor_tid"), ("last_updated",), ("sus", "active_su", "customer_tid")],
    ids=str,
)
async def test_a_pool_of_an_old_explorer_is_settled_and_no_field_is_added(
    explorer: Explorer, decommissions: Decommissions, missing: tuple[str, ...]
) -> None:
    pool = explorer.buy_expired(CONTAINER, **dict.fromkeys(missing, MISSING))
    before = explorer.pools.find_one({"_id": pool.pool_id}) or {}
    await decommissions.settle([pool.pool_id], now=now())
    assert_decommissioned(explorer, pool.workload_ids)
    after = explorer.pools.find_one({"_id": pool.pool_id}) or {}
    assert list(after) == list(before)
    assert after["cus"] == 0.0
    saved = explorer.bytes_of(explorer.pools, pool.pool_id)
    explorer.deploy(pool.workload_ids[0])
    await decommissions.settle([pool.pool_id], now=now())
    assert explorer.bytes_of(explorer.pools, pool.pool_id) == saved


@pytest.mark.parametrize("last_updated", [Int64(2**63 - 1), Int64(-(2**63)), 2**31 - 1, 1.5e9], ids=str)
async def test_a_pool_is_protected_whatever_its_last_update_says(
    explorer: Explorer, decommissions: Decommissions, last_updated: float
) -> None:
    pool = explorer.buy_expired(CONTAINER, last_updated=last_updated, cus=0.0, active_cu=0.0)
    await decommissions.settle([pool.pool_id], now=now())
    assert_decommissioned(explorer, pool.workload_ids)


async def test_an_order_takes_the_place_of_an_older_one_though_a_field_of_the_workload_begins_with_a_dollar(
    explorer: Explorer, decommissions: Decommissions
) -> None:
    pool = explorer.buy_expired(CONTAINER)
    (workload_id,) = pool.workload_ids
    explorer.workloads.delete_one({"_id": workload_id})
    explorer.workloads.insert_one(pool.workloads[0] | {"$top": {"$inner": ["$x"], "a.b": 1}, "": "$$ROOT"})
    explorer.orders.insert_one({"_id": workload_id, "next_action": 3, "stale": True})
    await decommissions.settle([pool.pool_id], now=now())
    assert_decommissioned(explorer, pool.workload_ids)


async def test_a_pool_that_is_not_due_is_left_alone(explorer: Explorer, decommissions: Decommissions) -> None:
    pool = explorer.buy(Rates(100, 100, 0), [CONTAINER])
    settlement = await decommissions.settle([pool.pool_id, 404], now=now())
    assert list(settlement.cases) == []
    assert_untouched(explorer, pool.workload_ids)


async def test_a_pool_is_due_by_an_instant_apart_from_now(explorer: Explorer, decommissions: Decommissions) -> None:
    pool = explorer.buy_expired(CONTAINER)
    await decommissions.settle([pool.pool_id], now=now(), due_by=pool.empty_at - 1)
    assert_untouched(explorer, pool.workload_ids)
    await decommissions.settle([pool.pool_id], now=now(), due_by=pool.empty_at)
    assert_decommissioned(explorer, pool.workload_ids)


async def during(
    mongo: Client, decommissions: Decommissions, pool: Purchase, command: str, act: Any, *, mode: Any = None
) -> Settlement:
    """Settle a pool, and act while the server holds back the daemon's first command of that name."""
    before = times_entered(mongo)
    with fail_point(mongo, command, mode=mode, blockConnection=True, blockTimeMS=400):
        settling = asyncio.create_task(decommissions.settle([pool.pool_id], now=now()))
        await asyncio.to_thread(
            wait_until, lambda: times_entered(mongo) > before, within_seconds=5, what=f"the daemon's {command}"
        )
        await asyncio.to_thread(act)
        return await settling


async def test_a_top_up_committed_between_reading_and_writing_keeps_every_workload(
    explorer: Explorer, mongo: Client, decommissions: Decommissions
) -> None:
    pool = explorer.buy_expired(CONTAINER, VOLUME)
    await during(mongo, decommissions, pool, "aggregate", lambda: explorer.top_up(pool.pool_id, Rates(1e6, 1e6, 1e6)))
    assert_untouched(explorer, pool.workload_ids)


async def test_a_top_up_is_noticed_even_if_the_daemon_had_nothing_to_change_in_the_pool(
    explorer: Explorer, mongo: Client, decommissions: Decommissions
) -> None:
    """A pool that is empty since this very second: syncing it again changes nothing, and yet it must be written."""
    pool = explorer.buy_expired(CONTAINER)
    explorer.pools.update_one({"_id": pool.pool_id}, {"$set": {"cus": 0.0, "sus": 0.0, "ipv4us": 0.0}})
    explorer.rewrite(pool.pool_id, lambda document: document.update(last_updated=now() + 60))
    await during(mongo, decommissions, pool, "aggregate", lambda: explorer.top_up(pool.pool_id, Rates(1e6, 1e6, 1e6)))
    assert_untouched(explorer, pool.workload_ids)


async def test_a_pool_empty_since_this_very_second_is_decommissioned_and_stays_as_it_is(
    explorer: Explorer, decommissions: Decommissions
) -> None:
    pool = explorer.buy_expired(CONTAINER)
    moment = now()
    explorer.pools.update_one(
        {"_id": pool.pool_id},
        {"$set": {"cus": 0.0, "sus": 0.0, "ipv4us": 0.0}, "$max": {"last_updated": moment, "empty_at": moment}},
    )
    saved = explorer.bytes_of(explorer.pools, pool.pool_id)
    await decommissions.settle([pool.pool_id], now=moment)
    assert_decommissioned(explorer, pool.workload_ids)
    assert explorer.bytes_of(explorer.pools, pool.pool_id) == saved


async def test_a_workload_deleted_by_its_customer_meanwhile_is_not_decommissioned_too(
    explorer: Explorer, mongo: Client, decommissions: Decommissions
) -> None:
    pool = explorer.buy_expired(CONTAINER, CONTAINER)
    theirs, other = pool.workload_ids
    await during(
        mongo,
        decommissions,
        pool,
        "update",
        lambda: explorer.workloads.update_one({"_id": theirs}, {"$set": {"next_action": 6}}),
    )
    assert explorer.next_action(theirs) == 6
    assert explorer.orders.count_documents({"_id": theirs}) == 0
    assert_decommissioned(explorer, [other])


@pytest.mark.parametrize(
    "answer_lost", [{"closeConnection": True}, {"errorCode": 6, "errorLabels": ["RetryableWriteError"]}]
)
async def test_a_commit_that_fails_once_is_repeated_and_happens_once(
    explorer: Explorer, mongo: Client, decommissions: Decommissions, answer_lost: dict[str, Any]
) -> None:
    pool = explorer.buy_expired(CONTAINER)
    with fail_point(mongo, "commitTransaction", **answer_lost):
        await decommissions.settle([pool.pool_id], now=now())
    assert_decommissioned(explorer, pool.workload_ids)


async def test_a_commit_whose_answer_never_comes_raises_and_settling_again_does_it_once(
    explorer: Explorer, mongo: Client, decommissions: Decommissions
) -> None:
    pool = explorer.buy_expired(CONTAINER)
    with (
        fail_point(mongo, "commitTransaction", mode="alwaysOn", closeConnection=True),
        pytest.raises(StoreUnavailableError),
    ):
        await decommissions.settle([pool.pool_id], now=now())
    await decommissions.settle([pool.pool_id], now=now())
    assert_decommissioned(explorer, pool.workload_ids)


async def test_several_pools_with_more_workloads_than_a_batch_holds_are_refused_whole(
    explorer: Explorer, database: Database
) -> None:
    pools = [explorer.buy_expired(*[CONTAINER] * 3) for _ in range(2)]
    with pytest.raises(OversizedBatchError):
        await decommissions_of(database).settle([pool.pool_id for pool in pools], now=now(), most=5)
    for pool in pools:
        assert_untouched(explorer, pool.workload_ids)


async def test_one_pool_with_more_workloads_than_a_batch_holds_is_done_in_steps_even_if_the_first_ones_stay(
    explorer: Explorer, database: Database
) -> None:
    pool = explorer.buy_expired(*[FREE[0]] * 12, *[CONTAINER] * 13)
    decommissions = decommissions_of(database)
    steps, after = 0, None
    while True:
        settlement = await decommissions.settle([pool.pool_id], now=now(), most=5, after=after)
        steps += 1
        after = settlement.continue_after
        if after is None:
            break
    assert steps == 5
    assert_untouched(explorer, pool.workload_ids[:12])
    assert_decommissioned(explorer, pool.workload_ids[12:])


async def test_an_older_order_is_replaced_and_the_others_of_the_batch_are_not_held_up(
    explorer: Explorer, decommissions: Decommissions
) -> None:
    pools = [explorer.buy_expired(CONTAINER) for _ in range(3)]
    workload_ids = [pool.workload_ids[0] for pool in pools]
    explorer.orders.insert_one({"_id": workload_ids[1], "next_action": 3, "left": "over"})
    await decommissions.settle([pool.pool_id for pool in pools], now=now())
    assert_decommissioned(explorer, workload_ids)


async def test_a_workload_that_is_deployed_again_and_goes_again_at_the_same_end_leaves_two_records(
    explorer: Explorer, decommissions: Decommissions
) -> None:
    pool = explorer.buy_expired(CONTAINER)
    (workload_id,) = pool.workload_ids
    await decommissions.settle([pool.pool_id], now=now())
    explorer.workloads.update_one({"_id": workload_id}, {"$set": {"next_action": 3}})
    await decommissions.settle([pool.pool_id], now=now())
    assert explorer.next_actions([workload_id]) == [4]
    assert explorer.events.count_documents({"workload_id": workload_id}) == 2


async def test_the_portions_of_a_pool_leave_out_no_id_whatever_its_type(
    explorer: Explorer, decommissions: Decommissions
) -> None:
    pool = explorer.buy_expired(CONTAINER)
    ids = [1, 2, 3, "a", "b"]
    explorer.workloads.insert_many([explorer.new_workload(pool.pool_id, CONTAINER) | {"_id": each} for each in ids])
    after = (await decommissions.settle([pool.pool_id], now=now(), most=2)).continue_after
    while after is not None:
        after = (await decommissions.settle([pool.pool_id], now=now(), most=2, after=after)).continue_after
    assert set(explorer.next_actions([*ids, *pool.workload_ids])) == {4}


async def test_the_pools_of_workloads_are_found_whatever_number_they_are_stored_as(
    explorer: Explorer, database: Database
) -> None:
    documents = [
        explorer.new_workload(1, CONTAINER) | {"pool_id": pool_id} for pool_id in (1, 2.0, "3", Decimal128("4"))
    ]
    explorer.workloads.insert_many(documents)
    workloads = WorkloadStore(database=database)
    assert set(await workloads.pools_of([document["_id"] for document in documents])) == {1, 2, 4}
    assert await workloads.deploying([1, 2, 3, 4]) == {1, 2, 4}


async def test_more_ids_than_one_command_could_hold_are_asked_for_in_several(database: Database) -> None:
    assert await WorkloadStore(database=database).pools_of(range(1_200_000)) == []


@pytest_asyncio.fixture
async def in_turn(standalone: EmbeddedMongod, database_name: str) -> AsyncIterator[Decommissions]:
    database = connect(uri=standalone.uri, name=database_name)
    yield decommissions_of(database)
    database.close()


async def test_without_transactions_a_batch_is_written_step_by_step(
    lone_explorer: Explorer, in_turn: Decommissions
) -> None:
    pool = lone_explorer.buy(Rates(0.5, 1e9, 0), [CONTAINER, VOLUME], bought_at=now() - 3600)
    container, volume = pool.workload_ids
    settlement = await in_turn.settle([pool.pool_id], now=now())
    assert [gone.workload_id for gone in settlement.decommissioned] == [container]
    assert_decommissioned(lone_explorer, [container])
    assert_untouched(lone_explorer, [volume])


async def test_without_transactions_a_top_up_before_the_first_write_keeps_every_workload(
    lone_explorer: Explorer, lone_client: Client, in_turn: Decommissions
) -> None:
    pool = lone_explorer.buy_expired(CONTAINER)
    settlement = await during(
        lone_client, in_turn, pool, "update", lambda: lone_explorer.top_up(pool.pool_id, Rates(1e6, 1e6, 1e6))
    )
    assert_untouched(lone_explorer, pool.workload_ids)
    assert list(settlement.look_again) == [pool.pool_id]


async def test_without_transactions_a_top_up_before_the_order_takes_the_marks_back(
    lone_explorer: Explorer, lone_client: Client, in_turn: Decommissions
) -> None:
    """The daemon's second aggregate command counts whether the pool is still as it was saved."""
    pool = lone_explorer.buy_expired(CONTAINER)
    settlement = await during(
        lone_client,
        in_turn,
        pool,
        "aggregate",
        lambda: lone_explorer.top_up(pool.pool_id, Rates(1e6, 1e6, 1e6)),
        mode={"skip": 1},
    )
    assert_untouched(lone_explorer, pool.workload_ids)
    assert list(settlement.look_again) == [pool.pool_id]


async def test_without_transactions_what_a_node_finishes_meanwhile_gets_no_order_and_no_record(
    lone_explorer: Explorer, lone_client: Client, in_turn: Decommissions
) -> None:
    pool = lone_explorer.buy_expired(CONTAINER, CONTAINER)
    finished, running = pool.workload_ids
    settlement = await during(
        lone_client,
        in_turn,
        pool,
        "update",
        lambda: lone_explorer.workloads.update_one({"_id": finished}, {"$set": {"next_action": 6}}),
    )
    assert [gone.workload_id for gone in settlement.decommissioned] == [running]
    assert_decommissioned(lone_explorer, [running])
    assert lone_explorer.next_actions([finished]) == [6]
    assert lone_explorer.orders.count_documents({"_id": finished}) == 0
    assert lone_explorer.events.count_documents({"workload_id": finished}) == 0


AT_THE_END = ("delete", 0)

EVERY_STEP = [
    pytest.param("distinct", 0, id="before its intents are written"),
    pytest.param("update", 1, id="at its intents"),
    pytest.param("update", 2, id="at the first mark"),
    pytest.param("update", 3, id="at the second mark"),
    pytest.param("aggregate", 1, id="at the look whether it was topped up"),
    pytest.param("update", 4, id="at the orders"),
    pytest.param("update", 5, id="at the records"),
    pytest.param(*AT_THE_END, id="at the end"),
]
"""The commands after which a pool with two workloads is half done: the name, and how many come before it."""

BAD_VALUE = 2


async def cut_off(mongo: Client, decommissions: Decommissions, pool: Purchase, command: str, skip: int) -> None:
    """Settle a pool until a command of the daemon fails."""
    with (
        fail_point(mongo, command, mode={"skip": skip}, errorCode=BAD_VALUE),
        pytest.raises(StoreError),
    ):
        await decommissions.settle([pool.pool_id], now=now())


@pytest.mark.parametrize(("command", "skip"), EVERY_STEP)
async def test_without_transactions_what_was_cut_off_is_made_up_for_by_the_next(
    command: str, skip: int, lone_explorer: Explorer, lone_client: Client, in_turn: Decommissions
) -> None:
    pool = lone_explorer.buy_expired(CONTAINER, CONTAINER)
    await cut_off(lone_client, in_turn, pool, command, skip)

    await in_turn.make_up()
    await in_turn.settle([pool.pool_id], now=now())

    assert_decommissioned(lone_explorer, pool.workload_ids)
    assert lone_explorer.database["pool-daemon-intents"].count_documents({}) == 0


@pytest.mark.parametrize(("command", "skip"), EVERY_STEP[:-3])
async def test_without_transactions_what_was_cut_off_before_an_order_stays_if_the_pool_is_topped_up(
    command: str, skip: int, lone_explorer: Explorer, lone_client: Client, in_turn: Decommissions
) -> None:
    pool = lone_explorer.buy_expired(CONTAINER, CONTAINER)
    await cut_off(lone_client, in_turn, pool, command, skip)
    lone_explorer.top_up(pool.pool_id, Rates(1e6, 1e6, 1e6))

    await in_turn.make_up()
    await in_turn.settle([pool.pool_id], now=now())

    assert_untouched(lone_explorer, pool.workload_ids)


@pytest.mark.parametrize(("command", "skip"), EVERY_STEP[-2:])
async def test_without_transactions_what_was_ordered_is_not_undone(
    command: str, skip: int, lone_explorer: Explorer, lone_client: Client, in_turn: Decommissions
) -> None:
    pool = lone_explorer.buy_expired(CONTAINER, CONTAINER)
    await cut_off(lone_client, in_turn, pool, command, skip)
    lone_explorer.top_up(pool.pool_id, Rates(1e6, 1e6, 1e6))

    await in_turn.make_up()

    assert_decommissioned(lone_explorer, pool.workload_ids)


async def test_intents_that_make_no_sense_are_passed_over(
    lone_explorer: Explorer, lone_client: Client, in_turn: Decommissions
) -> None:
    pool = lone_explorer.buy_expired(CONTAINER)
    nonsense: list[Any] = [
        {},
        {"record": 7},
        {"record": {"_id": 7}},
        {"record": {"_id": "x", "workload_id": {"$x": 1}}},
    ]
    lone_explorer.database["pool-daemon-intents"].insert_many(nonsense)
    await cut_off(lone_client, in_turn, pool, *AT_THE_END)

    await in_turn.make_up()

    assert_decommissioned(lone_explorer, pool.workload_ids)
    assert lone_explorer.database["pool-daemon-intents"].count_documents({}) == len(nonsense)
