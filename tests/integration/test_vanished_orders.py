"""Delete orders that vanished, on a real server: which are put back, and what if the world changes meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import bson
import pytest
import pytest_asyncio
from arithmetic_model import Rates
from bson import Int64
from bson.raw_bson import RawBSONDocument
from deadline import wait_until
from explorer import CONTAINER, VOLUME, Explorer
from fail_point import fail_point, times_entered
from pymongo import MongoClient

from pool_daemon.store.client import Database, connect
from pool_daemon.store.paging import PAGE
from pool_daemon.store.setup import setup
from pool_daemon.store.vanished_orders import Restored, VanishedOrders

Client = MongoClient[dict[str, Any]]


@pytest.fixture
def explorer(mongo: Client, database_name: str) -> Explorer:
    return Explorer(database=mongo[database_name])


@pytest_asyncio.fixture
async def database(mongo_uri: str, database_name: str) -> AsyncIterator[Database]:
    database = connect(uri=mongo_uri, name=database_name, timeout_seconds=2)
    yield database
    database.close()


@pytest.fixture
def orders(database: Database) -> VanishedOrders:
    return VanishedOrders(database=database)


def being_deleted(explorer: Explorer, *, ordered: bool, next_action: Any = 4) -> int:
    """Create a workload that is to be deleted, with its order or without."""
    pool = explorer.buy(Rates(1e6, 1e6), [CONTAINER], next_action=next_action)
    (workload_id,) = pool.workload_ids
    workload = explorer.workloads.find_one({"_id": workload_id})
    if ordered and workload is not None:
        explorer.orders.insert_one(workload)
    return workload_id


def assert_ordered(explorer: Explorer, workload_id: int) -> None:
    """There is an order, and it is the workload's document, byte for byte."""
    order = explorer.bytes_of(explorer.orders, workload_id)
    assert order is not None
    assert order == explorer.bytes_of(explorer.workloads, workload_id)


async def missing(orders: VanishedOrders) -> list[int]:
    async with aclosing(orders.look()) as looks:
        return sorted([workload_id async for look in looks for workload_id in look.workload_ids])


async def test_only_workloads_to_be_deleted_miss_an_order(explorer: Explorer, orders: VanishedOrders) -> None:
    for next_action in (0, 1, 2, 3, 5, 6, 7):
        being_deleted(explorer, ordered=False, next_action=next_action)
    being_deleted(explorer, ordered=True)
    vanished = [being_deleted(explorer, ordered=False, next_action=four) for four in (4, Int64(4), 4.0)]
    assert await missing(orders) == vanished


async def test_more_than_a_round_trip_holds_are_found(explorer: Explorer, orders: VanishedOrders) -> None:
    count = PAGE + 500
    explorer.workloads.insert_many(explorer.new_workload(1, VOLUME, next_action=4) for _ in range(count))
    async with aclosing(orders.look()) as looks:
        found = [look async for look in looks]
    assert [look.looked_at for look in found] == [PAGE, 500]
    assert len({workload_id for look in found for workload_id in look.workload_ids}) == count


async def test_a_workload_whose_id_is_no_number_is_none(explorer: Explorer, orders: VanishedOrders) -> None:
    explorer.workloads.insert_many([{"_id": strange, "next_action": 4} for strange in ("a", {"b": 1}, 1.5)])
    vanished = being_deleted(explorer, ordered=False)
    assert await missing(orders) == [vanished]


async def test_the_order_of_a_workload_whose_id_is_a_whole_double_is_put_back(
    explorer: Explorer, orders: VanishedOrders
) -> None:
    explorer.workloads.insert_one({"_id": 7.0, "next_action": 4})
    (workload_id,) = await missing(orders)
    assert await orders.put_back(workload_id) == Restored(7, None)
    assert_ordered(explorer, 7)
    assert await missing(orders) == []


async def test_workloads_to_be_deleted_are_found_through_an_index(
    explorer: Explorer, database: Database, mongo: Client, database_name: str
) -> None:
    await setup(database)
    explorer.buy(Rates(1e6, 1e6), [CONTAINER] * 50)
    plan = mongo[database_name].workload.find({"next_action": 4}, {"_id": 1}).explain()
    assert plan["executionStats"]["totalDocsExamined"] == 0


@pytest.mark.parametrize("four", [4, Int64(4), 4.0])
async def test_an_order_is_put_back_as_a_copy_to_the_byte_and_the_workload_stays_as_it_is(
    explorer: Explorer, orders: VanishedOrders, four: Any
) -> None:
    workload_id = being_deleted(explorer, ordered=False, next_action=four)
    before = explorer.bytes_of(explorer.workloads, workload_id)
    restored = await orders.put_back(workload_id)
    assert restored == Restored(workload_id, 910_000_001)
    assert explorer.bytes_of(explorer.workloads, workload_id) == before
    assert_ordered(explorer, workload_id)
    assert await missing(orders) == []


async def test_no_event_is_recorded_for_an_order_that_is_put_back(explorer: Explorer, orders: VanishedOrders) -> None:
    await orders.put_back(being_deleted(explorer, ordered=False))
    assert explorer.events.count_documents({}) == 0


@pytest.mark.parametrize("next_action", [3, 5, 6, 7])
async def test_no_order_is_written_for_a_workload_that_is_not_to_be_deleted(
    explorer: Explorer, orders: VanishedOrders, next_action: int
) -> None:
    workload_id = being_deleted(explorer, ordered=False, next_action=next_action)
    assert await orders.put_back(workload_id) is None
    assert explorer.orders.count_documents({}) == 0


async def test_no_order_is_written_for_a_workload_that_is_gone(orders: VanishedOrders, explorer: Explorer) -> None:
    assert await orders.put_back(404) is None
    assert explorer.orders.count_documents({}) == 0


async def test_an_order_that_is_there_stays_as_it_is(explorer: Explorer, orders: VanishedOrders) -> None:
    workload_id = being_deleted(explorer, ordered=True)
    explorer.orders.update_one({"_id": workload_id}, {"$set": {"note": "theirs"}})
    before = explorer.bytes_of(explorer.orders, workload_id)
    assert await orders.put_back(workload_id) is None
    assert explorer.bytes_of(explorer.orders, workload_id) == before


async def test_text_that_is_not_utf_8_is_copied_as_it_is(explorer: Explorer, orders: VanishedOrders) -> None:
    wrong = bson.encode({"_id": Int64(7), "next_action": 4, "note": "text"}).replace(b"text", b"\xfftxt")
    explorer.workloads.insert_one(RawBSONDocument(wrong))
    assert await orders.put_back(7) == Restored(7, None)
    assert explorer.bytes_of(explorer.orders, 7) == wrong


async def during(client: Client, orders: VanishedOrders, workload_id: int, command: str, act: Any) -> Restored | None:
    """Put an order back, and act while the server holds back the daemon's first command of that name."""
    before = times_entered(client)
    with fail_point(client, command, blockConnection=True, blockTimeMS=400):
        putting_back = asyncio.create_task(orders.put_back(workload_id))
        await asyncio.to_thread(
            wait_until, lambda: times_entered(client) > before, within_seconds=5, what=f"the daemon's {command}"
        )
        await asyncio.to_thread(act)
        return await putting_back


def done(explorer: Explorer, workload_id: int) -> Callable[[], object]:
    """Let the explorer hear that the node has deleted a workload."""
    return lambda: explorer.workloads.update_one({"_id": workload_id}, {"$set": {"next_action": 6}})


async def test_a_workload_that_is_done_after_it_was_read_gets_no_order(
    explorer: Explorer, orders: VanishedOrders, mongo: Client
) -> None:
    workload_id = being_deleted(explorer, ordered=False)
    assert await during(mongo, orders, workload_id, "update", done(explorer, workload_id)) is None
    assert explorer.next_action(workload_id) == 6
    assert explorer.orders.count_documents({}) == 0


async def test_an_order_that_comes_back_by_itself_is_not_replaced(
    explorer: Explorer, orders: VanishedOrders, mongo: Client
) -> None:
    workload_id = being_deleted(explorer, ordered=False)
    theirs = {"_id": Int64(workload_id), "next_action": 4, "note": "theirs"}
    restored = await during(mongo, orders, workload_id, "update", lambda: explorer.orders.insert_one(dict(theirs)))
    assert restored is None
    assert explorer.orders.find_one({"_id": workload_id}) == theirs
