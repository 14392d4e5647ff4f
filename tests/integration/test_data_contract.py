"""What DATA.md says of the daemon's own collections is what is in them."""

import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from actors import ME
from bson import Int64

from pool_daemon.capacity.exhaustion import Resource
from pool_daemon.capacity.grace import PoolGrace
from pool_daemon.capacity.pool import new_pool
from pool_daemon.errors import StoreConflictError
from pool_daemon.store.cases import Case, Decommissioned
from pool_daemon.store.client import Database, connect
from pool_daemon.store.events import EventStore
from pool_daemon.store.grace import GRACE, GraceRecord, GraceStore
from pool_daemon.store.holds import BRAKE, HoldStore
from pool_daemon.store.lease import LEASE, LeaseStore
from pool_daemon.store.notices import NOTICES, LastNotice, NoticeChanges, NoticeStore
from pool_daemon.store.outbox import OUTBOX, DeliveryState, Message, MessageKind, Outbox
from pool_daemon.store.pools import DuePool
from pool_daemon.store.quarantine import QUARANTINE, Quarantined, QuarantineStore
from pool_daemon.store.records import EVENTS, Actor, ActorKind, EventKind, Subject, Why, envelope
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

    await database.transact(
        lambda session: events.decommissioned([case], at=time.time(), session=session), doing="writing"
    )

    assert await written(database, EVENTS) == described(EVENTS)


async def test_records_whose_insertion_is_repeated_are_there_once(database: Database) -> None:
    events = EventStore(database=database, actor=ME)
    first, *others = (
        envelope(EventKind.HELD, at=5.0, actor=ME, subject=Subject(number), why=Why("many")) for number in range(3)
    )
    await events.add([first])
    await events.add([first, *others])
    assert await database.collection(EVENTS).distinct("pool_id") == [0, 1, 2]
    assert await database.collection(EVENTS).count_documents({}) == 3
    with pytest.raises(StoreConflictError):
        await database.transact(lambda session: events.add([first], session=session), doing="writing", attempts=1)


def test_every_kind_of_record_is_described() -> None:
    kinds = DATA.partition("#### The kinds of records\n")[2].partition("\n#")[0]
    rows = re.findall(r"^\| (`.*?`) \|", kinds, re.MULTILINE)
    assert sorted(", ".join(rows).replace("`", "").split(", ")) == sorted(EventKind)


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


async def test_a_pool_in_grace_has_the_fields_described(database: Database) -> None:
    grace = PoolGrace(since={Resource.STORAGE: 5}, newest={Resource.STORAGE: 7}, spent=((1, 2),))
    store = GraceStore(database=database)
    await database.transact(lambda session: store.write([GraceRecord(1, 2, grace)], session=session), doing="writing")
    await store.set_end(1, 9, at=6, actor=ME, reason="on holiday")

    assert await written(database, GRACE) == described(GRACE)


async def test_a_notice_and_its_event_in_the_outbox_have_the_fields_described(database: Database) -> None:
    outbox = Outbox(database=database, receivers=["webhook"], keep_seconds=60)
    message = Message("e", MessageKind.EXPIRING, 3, [{"pool_id": 1, "empty_at": 5, "lead_seconds": 60}], 4, 5)
    changes = NoticeChanges(told=[LastNotice(1, 60, "e", 5, 4)], messages=[(message, ["webhook"])])

    await NoticeStore(database=database, outbox=outbox).update([1], lambda _: changes)

    assert await written(database, NOTICES) == described(NOTICES)
    assert await written(database, OUTBOX) == described(OUTBOX)


def test_every_type_and_state_of_an_event_is_described() -> None:
    chapter = DATA.partition(f"### `{OUTBOX}`\n")[2].partition("\n### ")[0].partition("\n## ")[0]
    assert [name for name in (*MessageKind, *DeliveryState) if f"`{name}`" not in chapter] == []
