"""What telemetry asks of a real server, and hears of it."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from bson import Int64
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo.errors import OperationFailure

from pool_daemon.capacity.pool import NEVER
from pool_daemon.store import density
from pool_daemon.store.client import CommandLog, Database, connect
from pool_daemon.store.pool_counts import PoolCounts, Upcoming
from pool_daemon.store.setup import setup

NOW = 1_700_000_000
HORIZONS = {"1d": 86_400, "1h": 3600, "7d": 604_800}


@pytest_asyncio.fixture
async def database(mongo_uri: str, database_name: str) -> AsyncIterator[Database]:
    database = connect(uri=mongo_uri, name=database_name)
    await setup(database)
    yield database
    database.close()


async def insert(database: Database, *deadlines: object) -> None:
    pools = [
        {"_id": Int64(number), "customer_tid": Int64(7), "empty_at": Int64(at) if isinstance(at, int) else at}
        for number, at in enumerate(deadlines, start=1)
    ]
    await database.collection("capacity-pools").insert_many(pools)


async def test_pools_are_counted_within_each_horizon(database: Database) -> None:
    hour, day, week = 3600, 86_400, 604_800
    await insert(
        database,
        NOW - 5,
        NOW,
        NOW + 1,
        NOW + hour,
        NOW + hour + 1,
        NOW + day,
        NOW + week,
        NOW + week + 1,
        NEVER,
        "soon",
    )
    counts = await PoolCounts(database=database).expiring_counts(NOW, HORIZONS)
    assert counts == {"1h": 2, "1d": 4, "7d": 5}
    assert list(counts) == ["1h", "1d", "7d"]


async def test_a_count_reads_nothing_but_the_index(database: Database) -> None:
    await insert(database, *(NOW + number for number in range(100)))
    plan = await database.motor.command(
        "explain",
        {"count": "capacity-pools", "query": {"empty_at": {"$gt": Int64(NOW), "$lte": Int64(NOW + 50)}}},
        verbosity="executionStats",
    )
    assert plan["executionStats"]["totalDocsExamined"] == 0


async def test_pools_are_counted_by_intervals(database: Database) -> None:
    last = density.HORIZON
    await insert(
        database,
        NOW,
        NOW + 1,
        NOW + 10,
        NOW + 11,
        NOW + 11.5,
        NOW + 300,
        NOW + 301,
        NOW + last,
        NOW + last + 1,
        NEVER,
        "x",
    )
    counted = await PoolCounts(database=database).density(NOW)
    found = [(each.after - NOW, each.until - NOW, each.pools) for each in counted.intervals]
    assert found == [(0, 10, 2), (10, 20, 2), (290, 300, 1), (300, 360, 1), (583_200, last, 1)]
    assert counted.until == NOW + last


async def test_a_count_by_intervals_reads_the_nearest_pools_and_nothing_but_the_index(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await insert(database, *(NOW + 1000 - number for number in range(100)))
    monkeypatch.setattr(density, "MOST", 30)
    counted = await PoolCounts(database=database).density(NOW)
    assert sum(each.pools for each in counted.intervals) == 30
    assert (counted.intervals[0].after, counted.until) == (NOW + 900, NOW + 900)
    aggregation = {"aggregate": "capacity-pools", "pipeline": density.pipeline(NOW, most=30), "cursor": {}}
    plan = await database.motor.command("explain", aggregation, verbosity="executionStats")
    stats = plan.get("executionStats") or plan["stages"][0]["$cursor"]["executionStats"]
    assert (stats["totalKeysExamined"], stats["totalDocsExamined"]) == (30, 0)


async def test_what_is_overdue_is_counted_between_its_bounds(database: Database) -> None:
    await insert(database, NOW - 20, NOW - 10, NOW, NOW + 1)
    horizon = PoolCounts(database=database)
    assert await horizon.due_count(after=NOW - 20, until=NOW) == 2
    assert await horizon.due_count(after=None, until=NOW) == 3


async def test_the_next_pools_come_in_order_and_what_cannot_be_read_is_left_out(database: Database) -> None:
    await insert(database, NOW + 30, NOW, NOW + 10, NEVER, NOW + 20.5, NOW + 40)
    ahead = await PoolCounts(database=database).upcoming(NOW, limit=3)
    assert ahead == [Upcoming(3, 7, NOW + 10), Upcoming(1, 7, NOW + 30)]


async def test_every_command_is_told_with_its_duration_and_whether_it_failed(
    mongo_uri: str, database_name: str
) -> None:
    told: list[tuple[str, float, bool]] = []

    def hear(name: str, seconds: float, /, *, failed: bool) -> None:
        told.append((name, seconds, failed))

    client: AsyncIOMotorClient[dict[str, object]] = AsyncIOMotorClient(mongo_uri, event_listeners=[CommandLog(hear)])
    collection = client[database_name]["any"]
    try:
        await collection.insert_one({"_id": 1})
        await asyncio.gather(*(collection.find_one({"_id": 1}) for _ in range(20)))
        told_before = len(told)
        assert [(name, failed) for name, _, failed in told].count(("find", False)) == 20
        assert all(0 < seconds < 10 for _, seconds, _ in told)
        with pytest.raises(OperationFailure, match="noSuchCommand"):
            await client[database_name].command("noSuchCommand")
        assert [(name, failed) for name, _, failed in told[told_before:]] == [("noSuchCommand", True)]
    finally:
        client.close()
