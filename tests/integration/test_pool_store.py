"""Pools and reservations, read and written plainly; the same tests on a real server and on one in memory."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from bson import Int64
from deadline import wait_until
from fail_point import APP_NAME
from mock_database import MockDatabase
from pymongo import MongoClient

from pool_daemon.capacity.pool import NEVER, Pool, new_pool
from pool_daemon.capacity.reservation import Reservation, ReservationData
from pool_daemon.errors import (
    PoolNotFoundError,
    ReservationNotFoundError,
    StoreConflictError,
    StoreError,
    UnreadableDocumentError,
)
from pool_daemon.store.client import Database, connect
from pool_daemon.store.codec import pool_to_document
from pool_daemon.store.pools import Deadline, DuePage, PoolStore, ReservationStore, next_id
from pool_daemon.store.setup import INDEXES, Index, build_index, create_collections, missing_indexes, setup


@pytest_asyncio.fixture(params=["mongod", "mongomock"])
async def database(request: pytest.FixtureRequest, mongo_uri: str, database_name: str) -> AsyncIterator[Database]:
    database = MockDatabase() if request.param == "mongomock" else connect(uri=mongo_uri, name=database_name)
    yield database
    database.close()


@pytest.fixture
def pools(database: Database) -> PoolStore:
    return PoolStore(database=database)


def pool(pool_id: int, *, empty_at: int = NEVER, owner: int = 7) -> Pool:
    return replace(new_pool(pool_id, owner, 0, ["a"], now=1000), empty_at=empty_at)


def ids_of(page: DuePage) -> list[int]:
    return [pool.pool_id for pool in page.pools]


async def test_a_pool_comes_back_as_it_was_saved(pools: PoolStore) -> None:
    saved = await pools.capacity_pool_create(pool(5, empty_at=2000))
    assert await pools.get_pool(5) == saved


async def test_a_pool_without_id_draws_the_next_of_the_sequence_it_shares_with_reservations(
    pools: PoolStore, database: Database
) -> None:
    first = await pools.capacity_pool_create(pool(0))
    reservation = await ReservationStore(database=database).capacity_reservation_create(RESERVATION)
    second = await pools.capacity_pool_create(pool(0))
    assert (first.pool_id, reservation.reservation_id, second.pool_id) == (1, 2, 3)
    counter = await database.collection("counters").find_one({"_id": "capacity-reservations"})
    assert counter == {"_id": "capacity-reservations", "sequence": 3}


async def test_an_id_that_is_taken_is_refused(pools: PoolStore) -> None:
    await pools.capacity_pool_create(pool(5))
    with pytest.raises(StoreConflictError, match="pool 5 exists already"):
        await pools.capacity_pool_create(pool(5))


async def test_a_pool_that_is_not_there_is_not_found(pools: PoolStore) -> None:
    with pytest.raises(PoolNotFoundError, match="pool 404"):
        await pools.get_pool(404)


async def test_an_update_is_saved_while_the_pool_is_as_it_was_read(pools: PoolStore) -> None:
    await pools.capacity_pool_create(pool(5))
    as_read = await pools.get_pool(5)
    changed = replace(as_read)
    changed.add_capacity(10, 20, 30, now=1500)
    assert await pools.update_pool(changed, as_read=as_read)
    assert await pools.get_pool(5) == changed


@pytest.mark.parametrize(
    "change",
    [{"cus": 1.0}, {"empty_at": Int64(5)}, {"node_ids": ["a", "b"]}, {"active_workload_ids": [Int64(5)]}],
)
async def test_an_update_never_overwrites_what_somebody_else_changed(
    pools: PoolStore, database: Database, change: dict[str, Any]
) -> None:
    await pools.capacity_pool_create(pool(5))
    as_read = await pools.get_pool(5)
    await database.collection("capacity-pools").update_one({"_id": 5}, {"$set": change})
    theirs = await database.collection("capacity-pools").find_one({"_id": 5})
    assert not await pools.update_pool(replace(as_read, sus=99.0), as_read=as_read)
    assert await database.collection("capacity-pools").find_one({"_id": 5}) == theirs


async def test_an_update_of_nothing_still_tells_whether_the_pool_is_as_it_was_read(pools: PoolStore) -> None:
    saved = await pools.capacity_pool_create(pool(5))
    assert await pools.update_pool(saved, as_read=saved)
    other = replace(saved, cus=1.0)
    assert not await pools.update_pool(other, as_read=other)


async def test_an_update_leaves_fields_that_nobody_here_knows(pools: PoolStore, database: Database) -> None:
    saved = await pools.capacity_pool_create(pool(5))
    await database.collection("capacity-pools").update_one({"_id": 5}, {"$set": {"note": "theirs"}})
    assert await pools.update_pool(replace(saved, cus=1.0), as_read=saved)
    assert await database.collection("capacity-pools").find_one({"_id": 5, "note": "theirs"})


OLD_FIELDS = ("cus", "sus", "node_ids", "last_updated", "active_cu", "active_su", "empty_at", "customer_tid")


@pytest_asyncio.fixture
async def old(real: Database) -> Pool:
    """Write a pool as an explorer did that knew neither IPv4 units nor sponsors, and read it."""
    document = {"_id": Int64(5)} | {name: pool_to_document(pool(5))[name] for name in OLD_FIELDS}
    await real.collection("capacity-pools").insert_one(document)
    return await PoolStore(database=real).get_pool(5)


async def test_a_pool_of_an_old_explorer_is_updated_and_no_field_is_added(old: Pool, real: Database) -> None:
    changed = replace(old)
    changed.add_capacity(10, 20, 0, now=1500)
    assert await PoolStore(database=real).update_pool(changed, as_read=old)
    document = await real.collection("capacity-pools").find_one({"_id": 5})
    assert document is not None
    assert list(document) == ["_id", *OLD_FIELDS]
    assert (document["cus"], document["sus"], document["last_updated"]) == (10.0, 20.0, 1500)
    assert await PoolStore(database=real).update_pool(changed, as_read=changed)


@pytest.mark.parametrize(
    "change", [{"ipv4us": 1.0}, {"ipv4us": 0.0}, {"sponsor_tid": Int64(9)}, {"active_ipv4": None}, {"sus": "5"}]
)
async def test_a_field_that_somebody_adds_meanwhile_is_a_change(
    old: Pool, real: Database, change: dict[str, Any]
) -> None:
    await real.collection("capacity-pools").update_one({"_id": 5}, {"$set": change})
    assert not await PoolStore(database=real).update_pool(replace(old, cus=9.0), as_read=old)


async def test_an_unreadable_pool_comes_out_of_the_stream_as_an_error_and_the_stream_goes_on(
    pools: PoolStore, database: Database
) -> None:
    for pool_id in (1, 3):
        await pools.capacity_pool_create(pool(pool_id))
    await database.collection("capacity-pools").insert_one({"_id": Int64(2), "cus": "many"})
    results = [result async for result in pools.get_pools()]
    assert [(result.document_id, result.pool is not None) for result in results] == [(1, True), (2, False), (3, True)]
    assert "cus" in str(results[1].error)
    with pytest.raises(UnreadableDocumentError, match="cus"):
        await pools.get_pool(2)


async def test_an_owner_gets_the_pools_of_its_own(pools: PoolStore) -> None:
    for pool_id, owner in ((1, 7), (2, 8), (3, 7)):
        await pools.capacity_pool_create(pool(pool_id, owner=owner))
    assert [found.pool_id for found in await pools.get_pools_by_owner(7)] == [1, 3]


async def test_expired_pools_are_those_empty_by_then_the_longest_empty_first(pools: PoolStore) -> None:
    for pool_id, empty_at in ((1, 300), (2, 100), (3, 301), (4, NEVER), (5, -1)):
        await pools.capacity_pool_create(pool(pool_id, empty_at=empty_at))
    assert [found.pool_id for found in await pools.get_expired_pools(300)] == [5, 2, 1]


async def test_the_next_pool_to_expire_is_the_first_after_that_second(pools: PoolStore, database: Database) -> None:
    for pool_id, empty_at in ((1, 300), (2, 100), (3, 301), (4, NEVER)):
        await pools.capacity_pool_create(pool(pool_id, empty_at=empty_at))
    await database.collection("capacity-pools").insert_one({"_id": Int64(9), "empty_at": Int64(250), "cus": "many"})
    assert (await pools.get_next_expired_pool(100)).pool_id == 1
    assert (await pools.get_next_expired_pool(300)).pool_id == 3
    with pytest.raises(PoolNotFoundError):
        await pools.get_next_expired_pool(301)


async def test_the_next_deadline_is_two_numbers_of_the_first_pool_whose_id_is_one(real: Database) -> None:
    pools = PoolStore(database=real)
    for pool_id, empty_at in ((1, 300), (2, 100), (4, NEVER)):
        await pools.capacity_pool_create(pool(pool_id, empty_at=empty_at))
    raw = real.collection("capacity-pools")
    await raw.insert_one({"_id": Int64(9), "empty_at": Int64(250), "node_ids": ["n" * 1_000_000]})
    await raw.insert_one({"_id": "x", "empty_at": Int64(240)})
    assert await pools.next_deadline(100) == Deadline(9, 250)
    assert await pools.next_deadline(99) == Deadline(2, 100)
    assert await pools.next_deadline(300) is None


async def test_what_is_due_comes_between_the_bounds_and_an_id_that_is_none_apart(real: Database) -> None:
    pools = PoolStore(database=real)
    for pool_id, empty_at in ((1, 300), (2, 100), (3, 301), (4, 200)):
        await pools.capacity_pool_create(pool(pool_id, empty_at=empty_at))
    await real.collection("capacity-pools").insert_one({"_id": "x", "empty_at": Int64(250)})
    batches = [batch async for batch in pools.due(after=100, until=300)]
    assert [pool_id for batch in batches for pool_id in ids_of(batch)] == [4, 1]
    assert [result.document_id for batch in batches for result in batch.unreadable] == ["x"]
    assert [ids_of(batch) async for batch in pools.due(after=None, until=100)] == [[2]]


RESERVATION = Reservation(
    reservation_id=0,
    json='{"pool_id":0}',
    data_reservation=ReservationData(pool_id=0, cus=1, sus=2, ipv4us=3, node_ids=["a"], currencies=None),
    customer_tid=7,
    customer_signature="aa",
    sponsor_tid=0,
    sponsor_signature="",
)


async def test_a_reservation_comes_back_as_it_was_saved(database: Database) -> None:
    store = ReservationStore(database=database)
    saved = await store.capacity_reservation_create(RESERVATION)
    assert await store.capacity_reservation_get(saved.reservation_id) == saved
    with pytest.raises(ReservationNotFoundError, match="reservation 404"):
        await store.capacity_reservation_get(404)


@pytest_asyncio.fixture
async def real(mongo_uri: str, database_name: str) -> AsyncIterator[Database]:
    database = connect(uri=mongo_uri, name=database_name)
    yield database
    database.close()


async def test_setup_makes_the_missing_indexes_and_leaves_those_that_are_there(real: Database) -> None:
    await real.collection("capacity-pools").create_index("empty_at", name="theirs")
    assert await setup(real) == sum(map(len, INDEXES.values())) - 1
    assert await setup(real) == 0
    names = await real.collection("capacity-pools").index_information()
    assert set(names) == {"_id_", "theirs", "customer_tid_1"}
    for collection, wanted in INDEXES.items():
        keys = {tuple(index["key"]) for index in (await real.collection(collection).index_information()).values()}
        assert keys >= set(wanted)


KEYS = ("empty_at", 1)


@pytest.mark.parametrize(
    "options",
    [
        {"hidden": True},
        {"sparse": True},
        {"partialFilterExpression": {"cus": {"$gt": 0}}},
        {"collation": {"locale": "de"}},
        {"expireAfterSeconds": 0},
    ],
    ids=lambda options: next(iter(options)),
)
async def test_an_index_that_does_not_serve_every_read_counts_as_missing(real: Database, options: Any) -> None:
    pools = real.collection("capacity-pools")
    await pools.create_index([KEYS], name="theirs", **options)
    assert Index("capacity-pools", (KEYS,)) in await missing_indexes(real)


async def test_indexes_of_a_collection_with_a_collation_of_its_own_are_there_once_they_are_built(
    real: Database, mongo: MongoClient[Any]
) -> None:
    for collection in INDEXES:
        await asyncio.to_thread(mongo[real.name].create_collection, collection, collation={"locale": "de"})
    assert await setup(real) == sum(map(len, INDEXES.values()))
    assert await missing_indexes(real) == []


async def test_an_index_without_the_collation_of_its_collection_counts_as_missing_until_there_is_another(
    real: Database, mongo: MongoClient[Any]
) -> None:
    await asyncio.to_thread(mongo[real.name].create_collection, "capacity-pools", collation={"locale": "de"})
    await real.collection("capacity-pools").create_index([KEYS], collation={"locale": "simple"})
    assert Index("capacity-pools", (KEYS,)) in await missing_indexes(real)
    await setup(real)
    assert await missing_indexes(real) == []


async def test_an_index_whose_name_is_taken_gets_another_one(real: Database) -> None:
    pools = real.collection("capacity-pools")
    await pools.create_index("cus", name="empty_at_1")
    await setup(real)
    assert await missing_indexes(real) == []
    assert set(await pools.index_information()) > {"empty_at_1", "pool-daemon_empty_at"}


async def test_an_index_that_cannot_be_built_says_why(real: Database) -> None:
    await real.collection("workload").insert_one({"_id": "garbage", "pool_id": [1, 2], "next_action": [3, 4]})
    index = next(
        index for index in await missing_indexes(real) if len(index.keys) > 1 and index.collection == "workload"
    )
    with pytest.raises(StoreError, match="Index build failed: cannot index parallel arrays"):
        await build_index(real, index)


async def test_the_sequence_is_an_int64_from_the_first_id_on(real: Database) -> None:
    assert await next_id(real) == 1
    counter = await real.collection("counters").find_one({"_id": "capacity-reservations"})
    assert counter is not None
    assert isinstance(counter["sequence"], Int64)


async def test_the_daemons_own_collections_are_created_once(real: Database) -> None:
    await create_collections(real)
    await create_collections(real)
    assert "pool-daemon-events" in await real.motor.list_collection_names()


async def test_daemons_that_start_at_once_are_not_in_each_others_way(real: Database) -> None:
    await asyncio.gather(*(create_collections(real) for _ in range(8)))
    assert "pool-daemon-events" in await real.motor.list_collection_names()


async def test_a_missing_deadline_is_none(real: Database) -> None:
    await setup(real)
    await real.collection("capacity-pools").insert_one({"_id": Int64(9), "node_ids": ["n" * 1000]})
    (found,) = await PoolStore(database=real).unreadable_deadlines()
    assert (found.document_id, str(found.error)) == (9, "empty_at is missing, not a whole number")


@pytest.mark.parametrize("stored", ["never", None, float("nan"), True, {"at": 5}, float("inf")])
async def test_a_deadline_that_is_no_number_is_found_by_the_index_alone(real: Database, stored: Any) -> None:
    await setup(real)
    pools = PoolStore(database=real)
    for pool_id in range(1, 6):
        await pools.capacity_pool_create(pool(pool_id, empty_at=pool_id * 1000))
    await real.collection("capacity-pools").insert_one({"_id": Int64(9), "empty_at": stored})
    assert [result.document_id for result in await pools.unreadable_deadlines()] == [9]


async def test_more_pools_than_a_batch_holds_stream_through(real: Database) -> None:
    pools = PoolStore(database=real)
    documents = [{"_id": Int64(number), "empty_at": Int64(number)} for number in range(2500)]
    await real.collection("capacity-pools").insert_many(documents)
    batches = [ids_of(batch) async for batch in pools.due(after=None, until=2498)]
    assert [pool_id for batch in batches for pool_id in batch] == list(range(2499))
    assert max(len(batch) for batch in batches) <= 1000


async def test_an_index_that_takes_longer_than_any_command_may_is_built_all_the_same(
    mongo: MongoClient[dict[str, Any]], mongo_uri: str, database_name: str
) -> None:
    mongo[database_name]["capacity-pools"].insert_many([{"_id": number, "empty_at": number} for number in range(100)])
    impatient = connect(uri=mongo_uri, name=database_name, timeout_seconds=0.5)
    hanging = {"configureFailPoint": "hangAfterStartingIndexBuild"}
    mongo.admin.command(hanging | {"mode": "alwaysOn"})
    try:
        setting_up = asyncio.create_task(setup(impatient))
        await asyncio.to_thread(
            wait_until,
            lambda: running_for(mongo, "createIndexes") >= 2,
            within_seconds=10,
            what="a build of two seconds",
        )
    finally:
        mongo.admin.command(hanging | {"mode": "off"})
    assert await setting_up == sum(map(len, INDEXES.values()))
    impatient.close()


def running_for(mongo: MongoClient[dict[str, Any]], command: str) -> int:
    """Return for how many seconds the longest of the daemon's commands of that name has been at work."""
    operations = mongo.admin.command({"currentOp": 1, f"command.{command}": {"$exists": True}})["inprog"]
    return max((each.get("secs_running", 0) for each in operations if each.get("appName") == APP_NAME), default=0)
