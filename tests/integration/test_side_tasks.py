"""What runs beside the rounds is missed when it dies: nothing ends unnoticed."""

import asyncio
from typing import Any

import pytest
from deadline import until
from fail_point import fail_point, times_entered
from pymongo import MongoClient

from pool_daemon.daemon import Daemon
from pool_daemon.errors import PartDiedError
from pool_daemon.guards.gate import StopGate
from pool_daemon.settings import Settings
from pool_daemon.settings.sections import Database, Http

BAD_VALUE = 2


def tasks_named(name: str) -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name() == name]


async def test_a_daemon_whose_set_up_dies_does_not_run_on_as_if_it_had_its_indexes(
    mongo: MongoClient[dict[str, Any]], mongo_uri: str, database_name: str
) -> None:
    settings = Settings(database=Database(name=database_name), http=Http(enabled=False))
    daemon = Daemon(settings=settings, uri=mongo_uri, identity="me", stop=StopGate())
    with fail_point(mongo, "listIndexes", mode="alwaysOn", errorCode=BAD_VALUE):
        before = times_entered(mongo)
        running = asyncio.create_task(daemon.run())
        await until(lambda: times_entered(mongo) > before, within_seconds=20, what="it tries to set up")
        (set_up,) = tasks_named("setup")
        set_up.cancel()
        with pytest.raises(PartDiedError, match="setup ended by itself"):
            async with asyncio.timeout(20):
                await running
