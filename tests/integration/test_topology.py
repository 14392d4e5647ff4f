"""Which server the daemon speaks to: one router of several, and the primary that was elected last."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from addresses import through
from arithmetic_model import Document
from daemon_process import running_daemon
from pymongo import MongoClient
from pymongo.errors import PyMongoError
from replica_set import EmbeddedReplicaSet
from router import Router

from pool_daemon.embedded import EmbeddedMongod
from pool_daemon.errors import StoreError
from pool_daemon.store.changes import change_of, open_stream
from pool_daemon.store.client import Database, connect
from pool_daemon.store.topology import PrimaryChanges

PATIENCE_SECONDS = 30
ANSWERS = 12


@pytest_asyncio.fixture
async def routers(mongod: EmbeddedMongod) -> AsyncIterator[list[Router]]:
    cursors: dict[int, Router] = {}
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Router(port=mongod.port, cursors=cursors)) for _ in range(3)]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def with_arbiter(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedReplicaSet]:
    async with EmbeddedReplicaSet(folder=tmp_path_factory.mktemp("arbiter"), arbiter=True) as members:
        yield members


@pytest_asyncio.fixture
async def database(mongo_uri: str, routers: list[Router], database_name: str) -> AsyncIterator[Database]:
    uri = through(mongo_uri, *(router.port for router in routers))
    database = connect(uri=uri, name=database_name, timeout_seconds=5)
    yield database
    await asyncio.to_thread(database.close)  # it ends its sessions through a router that this loop runs


async def follow(database: Database, pools: Any, *, answers: int) -> list[Any]:
    """Write a pool for each answer of one stream, and return the pools that it told of."""
    told: list[Any] = []
    async with open_stream(database, token=None) as stream:
        async for batch in stream:
            told += [change_of(event).subject_id for event in batch.events]
            if len(told) >= answers:
                return told
            await asyncio.to_thread(pools.insert_one, {"_id": len(told) + 1, "empty_at": 1})
    return told


async def test_a_stream_through_several_routers_stays_with_the_one_that_opened_it(
    routers: list[Router], database: Database, mongo: MongoClient[Document]
) -> None:
    pools = mongo[database.name]["capacity-pools"]
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await follow(database, pools, answers=ANSWERS) == list(range(1, ANSWERS + 1))
    commands = sum((Counter(router.commands) for router in routers), Counter())
    assert commands["getMore"] >= ANSWERS
    assert commands["aggregate"] == 1
    assert [router.strays for router in routers] == [0, 0, 0]


async def test_when_its_router_goes_away_a_client_keeps_to_another_one(
    routers: list[Router], database: Database, mongo: MongoClient[Document]
) -> None:
    pools = mongo[database.name]["capacity-pools"]
    async with asyncio.timeout(PATIENCE_SECONDS):
        await follow(database, pools, answers=2)
        (first,) = [router for router in routers if "getMore" in router.commands]
        await first.stop()
        pools.delete_many({})
        while True:
            try:
                await follow(database, pools, answers=ANSWERS)
                break
            except Exception:  # noqa: BLE001 - until the driver has noticed, its commands fail in many ways
                await asyncio.to_thread(pools.delete_many, {})
    assert len([router for router in routers if "getMore" in router.commands]) == 2
    assert [router.strays for router in routers] == [0, 0, 0]


async def test_a_router_that_goes_away_between_two_commands_of_a_stream_ends_it_with_an_error(
    routers: list[Router], database: Database, mongo: MongoClient[Document]
) -> None:
    """The next command goes to another router, which does not know the cursor: once, and the stream is opened anew."""
    async with asyncio.timeout(PATIENCE_SECONDS), open_stream(database, token=None) as stream:
        answers = aiter(stream)
        await anext(answers)
        (first,) = [router for router in routers if "aggregate" in router.commands]
        await first.stop()
        while not any("find" in router.commands for router in routers):
            with contextlib.suppress(PyMongoError):
                await database.without_time_limit("any").find_one()
        with pytest.raises(StoreError, match="no such cursor"):
            await anext(answers)
    assert sum(router.strays for router in routers) == 1
    pools = mongo[database.name]["capacity-pools"]
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await follow(database, pools, answers=ANSWERS) == list(range(1, ANSWERS + 1))
    assert sum(router.strays for router in routers) == 1


@pytest.mark.parametrize(("lease_seconds", "warnings"), [("15", 0), ("15.1", 1)])
async def test_a_long_lease_beside_an_arbiter_is_warned_of(
    lease_seconds: str, warnings: int, with_arbiter: EmbeddedReplicaSet
) -> None:
    settings = {"LEASE__SECONDS": lease_seconds, "BRAKE__ENABLED": "false"}
    with running_daemon(uri=with_arbiter.uri, database_name="t", **settings) as daemon:
        reached = partial(
            daemon.wait_for_log,
            lambda record: record["event"] == "database_reached",
            within_seconds=PATIENCE_SECONDS,
            what="the database",
        )
        await asyncio.to_thread(reached)
        assert len(daemon.said("lease_too_long_for_arbiter")) == warnings
        await asyncio.to_thread(daemon.stop)


async def test_an_election_is_told(tmp_path: Path) -> None:
    async with EmbeddedReplicaSet(folder=tmp_path) as members:
        primaries = PrimaryChanges()
        changed = asyncio.Event()
        database = connect(uri=members.uri, name="any", listeners=[primaries])
        try:
            await database.ping()
            primaries.follow(changed.set)
            await members.step_down()
            async with asyncio.timeout(PATIENCE_SECONDS):
                await changed.wait()
        finally:
            database.close()
