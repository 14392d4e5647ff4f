"""Which pools another transaction has locked, on a real server."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import pytest_asyncio
from bson import Int64
from explorer import CONTAINER, Explorer, Purchase
from fail_point import fail_point
from pymongo import MongoClient
from pymongo.collection import Collection
from waiting_build import waiting_build

from pool_daemon.store.client import CommandLog, Database, connect
from pool_daemon.store.locks import MOST_BYTES, Locks

Client = MongoClient[dict[str, Any]]


class Commands:
    """Counts the commands of a client by name."""

    def __init__(self) -> None:
        self.sent: Counter[str] = Counter()

    def __call__(self, name: str, seconds: float, /, *, failed: bool) -> None:
        del seconds, failed
        self.sent[name] += 1


@pytest.fixture
def commands() -> Commands:
    return Commands()


@pytest_asyncio.fixture
async def database(mongo_uri: str, database_name: str, commands: Commands) -> AsyncIterator[Database]:
    database = connect(uri=mongo_uri, name=database_name, timeout_seconds=2, listeners=[CommandLog(commands)])
    for _ in range(20):  # the driver's sessions have been in use before
        await database.collection("pool-daemon-events").insert_one({})
    yield database
    database.close()


@pytest.fixture
def locks(database: Database) -> Locks:
    return Locks(database=database)


@pytest.fixture
def pools(explorer: Explorer) -> list[Purchase]:
    return [explorer.buy_expired(CONTAINER) for _ in range(100)]


def ids(pools: list[Purchase]) -> list[int]:
    return [pool.pool_id for pool in pools]


@contextmanager
def locked(mongo: Client, collection: Collection[dict[str, Any]], document_ids: list[int]) -> Iterator[None]:
    """Have another program's open transaction write some documents."""
    with mongo.start_session() as session, session.start_transaction():
        collection.update_many({"_id": {"$in": document_ids}}, {"$set": {"x_note": 1}}, session=session)
        yield
        session.abort_transaction()


async def test_locked_pools_are_found_among_others_and_nothing_is_changed(
    mongo: Client, explorer: Explorer, locks: Locks, pools: list[Purchase]
) -> None:
    before = explorer.bytes_by_id("capacity-pools"), explorer.bytes_by_id("workload")
    some = ids([pools[0], *pools[30:50], pools[99]])
    with locked(mongo, explorer.pools, some):
        assert await locks.locked_among(ids(pools)) == set(some)
    assert await locks.locked_among(ids(pools)) == set()
    assert (explorer.bytes_by_id("capacity-pools"), explorer.bytes_by_id("workload")) == before


async def test_a_pool_whose_workload_is_locked_is_locked(
    mongo: Client, explorer: Explorer, locks: Locks, pools: list[Purchase]
) -> None:
    with locked(mongo, explorer.workloads, pools[7].workload_ids):
        assert await locks.locked_among(ids(pools)) == {pools[7].pool_id}


async def test_a_collection_that_is_locked_as_a_whole_locks_no_pool(
    mongo: Client, explorer: Explorer, locks: Locks, pools: list[Purchase]
) -> None:
    with waiting_build(mongo, explorer.pools):
        assert await locks.locked_among(ids(pools)) == set()


async def test_no_more_is_written_than_the_server_has_room_for(
    mongo: Client, explorer: Explorer, locks: Locks, pools: list[Purchase]
) -> None:
    """It reports a conflict, too, when its cache is full, and the pool would count as locked for ever."""
    first, second = (int(each["_id"]) for each in explorer.workloads.find({}, {"_id": 1}).sort("_id", 1).limit(2))
    pool_id = pools[0].pool_id
    explorer.workloads.update_many({"_id": {"$in": [first, second]}}, {"$set": {"pool_id": Int64(pool_id)}})
    for workload_id in (first, second):
        explorer.workloads.update_one({"_id": workload_id}, {"$set": {"metadata": "m" * (MOST_BYTES * 2 // 3)}})
    with locked(mongo, explorer.workloads, [first]):
        assert await locks.locked_among([pool_id]) == {pool_id}
    with locked(mongo, explorer.workloads, [second]):
        assert await locks.locked_among([pool_id]) == set()


@pytest.mark.parametrize("collection", ["pools", "workloads"])
async def test_a_locked_pool_costs_one_command(
    collection: str, mongo: Client, explorer: Explorer, locks: Locks, pools: list[Purchase], commands: Commands
) -> None:
    workload_ids = [workload_id for pool in pools for workload_id in pool.workload_ids]
    some = ids(pools) if collection == "pools" else workload_ids
    with locked(mongo, getattr(explorer, collection), some):
        await locks.locked_among(ids(pools))
    assert commands.sent["abortTransaction"] == 0
    assert commands.sent["update"] < 1.2 * len(pools)


async def test_the_pools_that_are_not_locked_are_free_for_other_transactions_at_once(
    mongo: Client, explorer: Explorer, locks: Locks, pools: list[Purchase]
) -> None:
    assert await locks.locked_among(ids(pools)) == set()
    with locked(mongo, explorer.pools, ids(pools)), locked(mongo, explorer.workloads, pools[0].workload_ids):
        pass


async def test_a_successor_can_end_the_session_in_which_locks_are_looked_for(
    mongo: Client, mongo_uri: str, explorer: Explorer, database: Database, pools: list[Purchase]
) -> None:
    """A daemon may freeze at any moment."""
    successor = connect(uri=mongo_uri, name=database.name)
    sessions = await database.session_ids()
    async with database.probe() as run:
        update = {"q": {"_id": pools[0].pool_id}, "u": {"$set": {"x_note": 1}}}
        transaction = {"txnNumber": Int64(1), "autocommit": False, "startTransaction": True}
        run({"update": "capacity-pools", "updates": [update], **transaction})
        await successor.end_sessions(sessions)
        with locked(mongo, explorer.pools, ids(pools[:1])):
            pass
    successor.close()


async def test_what_the_last_search_has_left_locked_the_next_one_frees(
    mongo: Client, explorer: Explorer, locks: Locks, pools: list[Purchase]
) -> None:
    with fail_point(mongo, "abortTransaction", errorCode=8000):
        await locks.locked_among(ids(pools))
    assert await locks.locked_among(ids(pools)) == set()
    with locked(mongo, explorer.pools, ids(pools)):
        pass


@pytest.mark.parametrize("command", ["update", "find"])
async def test_what_cannot_be_found_out_is_left_to_the_settlement(
    mongo: Client, explorer: Explorer, locks: Locks, pools: list[Purchase], command: str
) -> None:
    with fail_point(mongo, command, errorCode=8000):
        assert await locks.locked_among(ids(pools)) == set()
    with locked(mongo, explorer.pools, ids(pools)):
        assert await locks.locked_among(ids(pools)) == set(ids(pools))
