"""What DATA.md says of the daemon's own collections is what is in them."""

import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from bson import Int64

from pool_daemon.capacity.exhaustion import Resource
from pool_daemon.capacity.pool import new_pool
from pool_daemon.store.cases import Case, Decommissioned
from pool_daemon.store.client import Database, connect
from pool_daemon.store.events import EventStore
from pool_daemon.store.holds import BRAKE, HoldStore
from pool_daemon.store.lease import LEASE, LeaseStore
from pool_daemon.store.pools import DuePool
from pool_daemon.store.quarantine import QUARANTINE, Quarantined, QuarantineStore
from pool_daemon.store.records import EVENTS, Actor, ActorKind
from pool_daemon.store.setup import create_collections

DATA = (Path(__file__).parents[2] / "pool_daemon/DATA.md").read_text(encoding="utf-8")


@pytest_asyncio.fixture
async def database(mongo_uri: str, database_name: str) -> AsyncIterator[Database]:
    database = connect(uri=mongo_uri, name=database_name)
    await create_collections(database)
    yield database
    database.close()


def described(collection: str) -> list[str]:
    chapter = DATA.partition(f"### `{collection}`\n")[2].partition("\n#")[0]
    return re.findall(r"^\| `(\w+)` \|", chapter, re.MULTILINE)


async def written(database: Database, collection: str) -> list[str]:
    document = await database.collection(collection).find_one()
    assert document is not None
    return list(document)


async def test_a_record_of_a_transition_has_the_fields_described(database: Database) -> None:
    daemon = Actor(ActorKind.DAEMON, "daemon", term=lambda: 1, pass_number=lambda: 1)
    events = EventStore(database=database, actor=daemon)
    pool = new_pool(2, 3, 0, [], now=1)
    gone = Decommissioned(Int64(1), 2, 3, 1, "node", (Resource.COMPUTE,), 4)
    case = Case(as_read=pool, synced=pool, gone=(gone,), orders=(None,), sizes=(0,))

    await database.transact(lambda session: events.decommissioned([case], at=time.time(), session=session))

    assert await written(database, EVENTS) == described(EVENTS)


async def test_the_lease_has_the_fields_described(database: Database) -> None:
    lease = LeaseStore(database=database, identity="daemon", seconds=15)

    assert await lease.take(await lease.look(), term=1)

    assert await written(database, LEASE) == described(LEASE)


async def test_a_hold_that_was_released_has_the_fields_described(database: Database) -> None:
    holds = HoldStore(database=database, identity="daemon")

    await holds.hold([DuePool(pool_id=1, owner=2, empty_at=3, workloads=4)], reason="many", at=5)
    assert await holds.release([1], at=time.time()) == [1]

    assert sorted(await written(database, BRAKE)) == sorted(described(BRAKE))


async def test_a_pool_in_quarantine_has_the_fields_described(database: Database) -> None:
    quarantine = QuarantineStore(database=database)

    await quarantine.save(
        Quarantined(pool_id=1, reason="broken", tries=5, first_failed_at=1, next_try_at=2, by="daemon")
    )

    assert await written(database, QUARANTINE) == described(QUARANTINE)
