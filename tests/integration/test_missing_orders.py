"""Missing delete orders, on a real server: which are restored, and what if another writer comes in between."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, nullcontext
from datetime import UTC
from typing import Any

import bson
import pytest
import pytest_asyncio
from actors import ME
from arithmetic_model import Rates
from bson import Decimal128, Int64
from bson.raw_bson import RawBSONDocument
from deadline import wait_until
from explorer import CONTAINER, VOLUME, Explorer
from fail_point import fail_point, times_entered
from meanwhile import Meanwhile
from oplog import Oplog
from pymongo import MongoClient

from pool_daemon.errors import UnreadableDocumentError
from pool_daemon.store.client import PAGE, Database, connect
from pool_daemon.store.missing_orders import MissingOrders, RestoredOrder
from pool_daemon.store.setup import setup

Client = MongoClient[dict[str, Any]]

NOW = 1_796_040_000
"""When orders are restored; 2026-11-30 12:00 UTC."""


@pytest_asyncio.fixture
async def database(mongo_uri: str, database_name: str) -> AsyncIterator[Database]:
    database = connect(uri=mongo_uri, name=database_name, timeout_seconds=5)
    yield database
    database.close()


@pytest.fixture
def orders(database: Database) -> MissingOrders:
    return MissingOrders(database=database, actor=ME)


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


async def missing(orders: MissingOrders) -> list[int]:
    async with aclosing(orders.scan()) as pages:
        return sorted([workload_id async for page in pages for workload_id in page.workload_ids])


async def test_only_workloads_to_be_deleted_miss_an_order(explorer: Explorer, orders: MissingOrders) -> None:
    for next_action in (0, 1, 2, 3, 5, 6, 7):
        being_deleted(explorer, ordered=False, next_action=next_action)
    being_deleted(explorer, ordered=True)
    owed = [being_deleted(explorer, ordered=False, next_action=four) for four in (4, Int64(4), 4.0)]
    assert await missing(orders) == owed


async def test_more_than_a_round_trip_holds_are_found(explorer: Explorer, orders: MissingOrders) -> None:
    count = PAGE + 500
    workload_ids = explorer.buy(Rates(1e6, 1e6), [VOLUME] * count, next_action=4).workload_ids
    assert len(workload_ids) == count
    async with aclosing(orders.scan()) as pages:
        found = [page async for page in pages]
    assert [page.looked_at for page in found] == [PAGE, 500]
    assert len({workload_id for page in found for workload_id in page.workload_ids}) == count


async def test_a_workload_whose_id_is_no_number_is_none(explorer: Explorer, orders: MissingOrders) -> None:
    explorer.workloads.insert_many([{"_id": strange, "next_action": 4} for strange in ("a", {"b": 1}, 1.5)])
    owed = being_deleted(explorer, ordered=False)
    assert await missing(orders) == [owed]


async def test_the_order_of_a_workload_whose_id_is_a_whole_double_is_restored(
    explorer: Explorer, orders: MissingOrders
) -> None:
    pool = explorer.buy(Rates(1e6), [], active_workload_ids=[Int64(7)])
    explorer.workloads.insert_one({"_id": 7.0, "next_action": 4, "pool_id": pool.pool_id})
    (workload_id,) = await missing(orders)
    assert await orders.restore(workload_id, now=NOW) == RestoredOrder(7, pool.pool_id)
    assert_ordered(explorer, 7)
    assert await missing(orders) == []


async def test_documents_whose_ids_are_decimals_are_known_by_the_numbers_that_they_equal(
    explorer: Explorer, orders: MissingOrders
) -> None:
    ordered, owed = (being_deleted(explorer, ordered=False) for _ in range(2))
    explorer.orders.insert_one({"_id": Decimal128(str(ordered)), "next_action": 4})
    for pool in list(explorer.pools.find()):
        explorer.pools.delete_one({"_id": pool["_id"]})
        ids = [Decimal128(str(workload_id)) for workload_id in pool["active_workload_ids"]]
        explorer.pools.insert_one(pool | {"_id": Decimal128(str(pool["_id"])), "active_workload_ids": ids})
    assert await missing(orders) == [owed]
    assert await orders.restore(ordered, now=NOW) is None
    assert await orders.restore(owed, now=NOW) is not None


async def test_workloads_to_be_deleted_are_found_through_an_index(
    explorer: Explorer, database: Database, mongo: Client, database_name: str
) -> None:
    await setup(database)
    explorer.buy(Rates(1e6, 1e6), [CONTAINER] * 50)
    plan = mongo[database_name].workload.find({"next_action": 4}, {"_id": 1}).explain()
    assert plan["executionStats"]["totalDocsExamined"] == 0


@pytest.mark.parametrize("four", [4, Int64(4), 4.0])
async def test_an_order_is_restored_as_a_copy_to_the_byte_and_the_workload_stays_as_it_is(
    explorer: Explorer, orders: MissingOrders, four: Any
) -> None:
    workload_id = being_deleted(explorer, ordered=False, next_action=four)
    before = explorer.bytes_of(explorer.workloads, workload_id)
    restored = await orders.restore(workload_id, now=NOW)
    assert restored == RestoredOrder(workload_id, 910_000_001)
    assert explorer.bytes_of(explorer.workloads, workload_id) == before
    assert_ordered(explorer, workload_id)
    assert await missing(orders) == []


async def test_the_order_and_its_record_are_one_commit(
    mongo: Client, explorer: Explorer, orders: MissingOrders
) -> None:
    workload_id = being_deleted(explorer, ordered=False)
    oplog = Oplog(client=mongo, database_name=explorer.database.name)
    await orders.restore(workload_id, now=NOW)
    (commit,) = (each for each in oplog.commits() if any(change.collection == "workqueue" for change in each.changes))
    assert [change.collection for change in commit.changes].count("pool-daemon-events") == 1
    record = explorer.events.find_one()
    assert record is not None
    assert (record["kind"], record["actor"], record["by"]) == ("delete_order_restored", "daemon", "me")
    assert record["at"].replace(tzinfo=UTC).timestamp() == NOW
    assert (record["pool_id"], record["workload_id"], record["customer_tid"]) == (910_000_001, workload_id, 7)
    assert (record["workload_type"], record["node_id"][:4]) == (1, "2fi9")


async def test_no_record_is_left_of_an_order_that_was_not_restored(explorer: Explorer, orders: MissingOrders) -> None:
    assert await orders.restore(being_deleted(explorer, ordered=True), now=NOW) is None
    assert explorer.events.count_documents({}) == 0


@pytest.mark.parametrize("next_action", [3, 5, 6, 7])
async def test_no_order_is_written_for_a_workload_that_is_not_to_be_deleted(
    explorer: Explorer, orders: MissingOrders, next_action: int
) -> None:
    workload_id = being_deleted(explorer, ordered=False, next_action=next_action)
    assert await orders.restore(workload_id, now=NOW) is None
    assert explorer.orders.count_documents({}) == 0


async def test_no_order_is_written_for_a_workload_that_is_gone(orders: MissingOrders, explorer: Explorer) -> None:
    assert await orders.restore(404, now=NOW) is None
    assert explorer.orders.count_documents({}) == 0


async def test_an_order_that_is_there_stays_as_it_is(explorer: Explorer, orders: MissingOrders) -> None:
    workload_id = being_deleted(explorer, ordered=True)
    explorer.orders.update_one({"_id": workload_id}, {"$set": {"note": "theirs"}})
    before = explorer.bytes_of(explorer.orders, workload_id)
    assert await orders.restore(workload_id, now=NOW) is None
    assert explorer.bytes_of(explorer.orders, workload_id) == before


async def test_text_that_is_not_utf_8_is_copied_as_it_is(explorer: Explorer, orders: MissingOrders) -> None:
    pool = explorer.buy(Rates(1e6), [], active_workload_ids=[Int64(7)])
    workload = {"_id": Int64(7), "next_action": 4, "pool_id": pool.pool_id, "note": "text"}
    wrong = bson.encode(workload).replace(b"text", b"\xfftxt").replace(b"note", b"\xfeote")
    explorer.workloads.insert_one(RawBSONDocument(wrong))
    assert await orders.restore(7, now=NOW) == RestoredOrder(7, pool.pool_id)
    assert explorer.bytes_of(explorer.orders, 7) == wrong


async def during(uri: str, explorer: Explorer, workload_id: int, command: str, act: Any) -> RestoredOrder | None:
    """Restore an order, and act before the daemon's first command of that name reaches the server."""
    meanwhile = Meanwhile(command, act)
    database = connect(uri=uri, name=explorer.database.name, listeners=[meanwhile])
    restored = await MissingOrders(database=database, actor=ME).restore(workload_id, now=NOW)
    database.close()
    assert meanwhile.acted
    return restored


def done(explorer: Explorer, workload_id: int) -> Callable[[], object]:
    """Let the explorer hear that the node has deleted a workload."""
    return lambda: explorer.workloads.update_one({"_id": workload_id}, {"$set": {"next_action": 6}})


async def test_a_workload_that_is_done_after_it_was_read_gets_no_order(explorer: Explorer, mongo_uri: str) -> None:
    workload_id = being_deleted(explorer, ordered=False)
    assert await during(mongo_uri, explorer, workload_id, "update", done(explorer, workload_id)) is None
    assert explorer.next_action(workload_id) == 6
    assert explorer.orders.count_documents({}) == 0


async def test_an_order_that_comes_back_by_itself_is_not_replaced(explorer: Explorer, mongo_uri: str) -> None:
    workload_id = being_deleted(explorer, ordered=False)
    theirs = {"_id": Int64(workload_id), "next_action": 4, "note": "theirs"}
    restored = await during(
        mongo_uri, explorer, workload_id, "update", lambda: explorer.orders.insert_one(dict(theirs))
    )
    assert restored is None
    assert explorer.orders.find_one({"_id": workload_id}) == theirs


def remove_from_pool(explorer: Explorer, workload_id: int) -> None:
    """Take a workload out of its pool, as the explorer does when a node reports that its deployment failed."""
    explorer.pools.update_many({}, {"$pull": {"active_workload_ids": workload_id}})


async def test_no_order_is_owed_for_a_workload_that_its_pool_does_not_list(
    explorer: Explorer, orders: MissingOrders
) -> None:
    failed, listed = (being_deleted(explorer, ordered=False) for _ in range(2))
    remove_from_pool(explorer, failed)
    for pool_id in (Int64(404), "a text", None):
        explorer.workloads.insert_one(explorer.new_workload(1, CONTAINER, next_action=4) | {"pool_id": pool_id})
    assert await missing(orders) == [listed]
    for workload in explorer.workloads.find({"_id": {"$ne": listed}}):
        assert await orders.restore(workload["_id"], now=NOW) is None
    assert explorer.orders.count_documents({}) == 0


async def test_a_pool_other_than_the_workloads_own_is_not_asked(explorer: Explorer, orders: MissingOrders) -> None:
    moved = being_deleted(explorer, ordered=False)
    other = explorer.buy(Rates(1e6), [])
    explorer.workloads.update_one({"_id": moved}, {"$set": {"pool_id": other.pool_id}})
    assert await missing(orders) == []
    assert await orders.restore(moved, now=NOW) is None


@pytest.mark.parametrize("last_updated", [0, -1, 1, 2**31, 2**63 - 1, -(2**63)])
@pytest.mark.parametrize("kind", [Int64, float])
async def test_the_pool_stays_as_it_is_whatever_its_numbers_are(
    explorer: Explorer, orders: MissingOrders, last_updated: int, kind: Any
) -> None:
    workload_id = being_deleted(explorer, ordered=False)
    explorer.pools.update_one({}, {"$set": {"last_updated": kind(last_updated)}})
    (pool,) = explorer.pools.find({}, {"_id": 1})
    before = explorer.bytes_of(explorer.pools, pool["_id"])
    assert await orders.restore(workload_id, now=NOW) is not None
    assert explorer.bytes_of(explorer.pools, pool["_id"]) == before


@pytest.mark.parametrize("missing", [["last_updated"], ["last_updated", "empty_at"]])
async def test_a_pool_without_last_updated_gets_none(
    explorer: Explorer, orders: MissingOrders, missing: list[str]
) -> None:
    workload_id = being_deleted(explorer, ordered=False)
    explorer.pools.update_one({}, {"$unset": dict.fromkeys(missing, 1)})
    (pool,) = explorer.pools.find({}, {"_id": 1})
    before = explorer.bytes_of(explorer.pools, pool["_id"])
    with nullcontext() if len(missing) == 1 else pytest.raises(UnreadableDocumentError):
        assert await orders.restore(workload_id, now=NOW) is not None
    assert explorer.bytes_of(explorer.pools, pool["_id"]) == before


@pytest.mark.parametrize(
    ("command", "which"),
    [("update", 0), ("update", 1), ("insert", 0), ("commitTransaction", 0)],
    ids=["before the claim", "at the second claim", "before the order", "before the commit"],
)
async def test_a_workload_that_is_taken_out_of_its_pool_meanwhile_never_keeps_an_order_that_is_not_owed(
    explorer: Explorer, orders: MissingOrders, mongo: Client, command: str, which: int
) -> None:
    """Either the removal comes first, and there is no order; or it waits until the order is there."""
    workload_id = being_deleted(explorer, ordered=False)
    order_at_removal: list[bool] = []

    def take_out() -> None:
        remove_from_pool(explorer, workload_id)
        order_at_removal.append(explorer.orders.count_documents({"_id": workload_id}) == 1)

    before = times_entered(mongo)
    with fail_point(mongo, command, mode={"skip": which}, blockConnection=True, blockTimeMS=400):
        restoring = asyncio.create_task(orders.restore(workload_id, now=NOW))
        await asyncio.to_thread(
            wait_until, lambda: times_entered(mongo) > before, within_seconds=5, what=f"the daemon's {command}"
        )
        await asyncio.to_thread(take_out)
        restored = await restoring
    assert order_at_removal == [restored is not None]
    assert explorer.orders.count_documents({}) == (restored is not None)
