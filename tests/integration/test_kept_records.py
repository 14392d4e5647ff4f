"""For how long records are kept: the server removes those that are older, and nothing else."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from actors import ME
from deadline import until
from telemetry_scene import new_observer

from pool_daemon.embedded import EmbeddedMongod
from pool_daemon.index_setup import IndexSetup
from pool_daemon.store.client import Database, connect
from pool_daemon.store.records import EVENTS, EventKind, Subject, envelope
from pool_daemon.store.setup import build_index, create_collections, missing_indexes, setup

DAY_SECONDS = 86_400
SOON_SECONDS = 20


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def hasty(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedMongod]:
    """Run a server that looks for what has expired every second."""
    options = ["--setParameter=ttlMonitorSleepSecs=1"]
    async with EmbeddedMongod(folder=tmp_path_factory.mktemp("hasty"), options=options) as server:
        yield server


@pytest_asyncio.fixture
async def database(hasty: EmbeddedMongod, database_name: str) -> AsyncIterator[Database]:
    database = connect(uri=hasty.uri, name=database_name)
    await create_collections(database)
    await setup(database)
    yield database
    await database.motor.client.drop_database(database_name)
    database.close()


async def keep(database: Database, days: int) -> None:
    for index in await missing_indexes(database, keep_days=days):
        await build_index(database, index)
    assert await missing_indexes(database, keep_days=days) == []


async def record(database: Database, **days_ago: float) -> None:
    """Have a record of each name, made so many days ago."""
    for name, days in days_ago.items():
        document = envelope(EventKind.HELD, at=time.time() - days * DAY_SECONDS, actor=ME, subject=Subject(17))
        await database.collection(EVENTS).insert_one(document | {"_id": name})


async def left(database: Database) -> list[Any]:
    return sorted(await database.collection(EVENTS).distinct("_id"))


async def remain(database: Database, *names: str) -> None:
    async def are_left() -> bool:
        return await left(database) == sorted(names)

    await until(are_left, within_seconds=SOON_SECONDS, what=f"only {names} to be left")


async def looked_for_expired(database: Database) -> None:
    """Wait until the server has looked for what has expired, from beginning to end."""

    async def looks() -> int:
        status = await database.motor.client.admin.command("serverStatus")
        passes: int = status["metrics"]["ttl"]["passes"]
        return passes

    async def have_been_enough() -> bool:
        return await looks() >= enough

    enough = await looks() + 2  # the first of these may be under way already
    await until(have_been_enough, within_seconds=SOON_SECONDS, what="the server to look for what has expired")


async def test_records_that_are_older_go_and_no_others(database: Database) -> None:
    await record(database, new=0, young=6.9, old=7.1, ancient=700)
    await database.collection(EVENTS).insert_one({"_id": "before-the-envelope"})
    await database.collection("pool-daemon-brake").insert_one({"_id": "a hold"})
    assert len(await left(database)) == 5
    await keep(database, 7)
    await remain(database, "new", "young", "before-the-envelope")
    assert await database.collection("pool-daemon-brake").count_documents({}) == 1


async def test_another_number_of_days_holds_at_once_and_none_keeps_them_for_ever(database: Database) -> None:
    await keep(database, 100)
    await record(database, old=50, older=90)
    await keep(database, 60)
    await remain(database, "old")
    await keep(database, 0)
    assert set(await database.collection(EVENTS).index_information()) == {
        "_id_",
        "pool_id_1__id_1_workload_id_1",
        "customer_tid_1__id_1",
    }
    await keep(database, 30)
    await remain(database)
    await keep(database, 0)
    await record(database, ancient=700)
    await looked_for_expired(database)
    assert await left(database) == ["ancient"]


async def test_a_setup_that_names_no_days_leaves_the_age_of_records_as_it_is(database: Database) -> None:
    await keep(database, 30)
    await setup(database)
    assert await missing_indexes(database, keep_days=30) == []
    assert await setup(database, keep_days=60) == 1
    assert await missing_indexes(database, keep_days=60) == []
    assert await setup(database, keep_days=0) == 1
    assert await missing_indexes(database, keep_days=0) == []


async def test_an_index_on_the_instant_that_does_not_expire_is_replaced(database: Database) -> None:
    await database.collection(EVENTS).create_index("at", name="theirs")
    assert await missing_indexes(database, keep_days=0) == []
    await record(database, old=50)
    await keep(database, 30)
    await remain(database)


async def test_the_daemon_follows_its_settings_and_says_what_it_has_not_done_yet(database: Database) -> None:
    days = 9
    observer = new_observer()
    builds = asyncio.Event()

    async def build(index: Any) -> None:
        missing = dict(observer.status.snapshot.indexes_missing or {})
        assert missing == {"pool-daemon-events: at, kept for 9 days": "is being built"}
        builds.set()
        await build_index(database, index)

    index_setup = IndexSetup(
        missing=lambda: missing_indexes(database, keep_days=days), build=build, built=lambda: None, observer=observer
    )
    running = asyncio.create_task(index_setup.run())
    await until(lambda: observer.status.snapshot.indexes_made, within_seconds=SOON_SECONDS, what="the indexes")
    running.cancel()
    assert builds.is_set()
    assert await missing_indexes(database, keep_days=9) == []
    assert [index.label for index in await missing_indexes(database, keep_days=0)] == [
        "pool-daemon-events: at, kept for ever"
    ]
