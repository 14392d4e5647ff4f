"""The records of pools in grace, on a real server."""

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest
import pytest_asyncio
from actors import ME

from pool_daemon.capacity.exhaustion import Resource
from pool_daemon.capacity.grace import WINDOW_SECONDS, PoolGrace
from pool_daemon.errors import PoolNotFoundError, StoreConflictError
from pool_daemon.store.client import Database, connect
from pool_daemon.store.grace import GRACE, GraceRecord, GraceStore
from pool_daemon.store.records import EVENTS
from pool_daemon.store.sessions import Session
from pool_daemon.store.setup import create_collections

RUNNING = PoolGrace(
    since={Resource.COMPUTE: 100, Resource.STORAGE: 200},
    newest={Resource.COMPUTE: 7, Resource.STORAGE: 9},
    over={Resource.COMPUTE: 150},
    spent=((1, 2), (100, 150)),
    operator_until=300,
    operator_at=201,
)
OVER = PoolGrace(since={Resource.STORAGE: 5}, over={Resource.STORAGE: 9}, spent=((5, 9),))


@pytest_asyncio.fixture
async def database(mongo_uri: str, database_name: str) -> AsyncIterator[Database]:
    database = connect(uri=mongo_uri, name=database_name)
    await create_collections(database, grace=True)
    yield database
    database.close()


@pytest.fixture
def store(database: Database) -> GraceStore:
    return GraceStore(database=database)


async def save(database: Database, records: Sequence[GraceRecord]) -> None:
    store = GraceStore(database=database)
    await database.transact(lambda session: store.write(records, session=session), doing="writing")


async def listed(store: GraceStore, *, running: bool = True) -> list[int]:
    return [each.pool_id async for page in store.list(running=running) for each in page]


async def test_a_record_is_read_as_it_was_written(database: Database, store: GraceStore) -> None:
    record = GraceRecord(1, 7, RUNNING, "me", "on holiday")
    await save(database, [record, GraceRecord(2, 7, OVER)])
    assert await store.of([1, 3]) == {1: record}
    assert await listed(store) == [1]
    assert await listed(store, running=False) == [1, 2]
    assert await store.count() == 1


async def test_a_record_that_says_nothing_any_more_is_removed(database: Database, store: GraceStore) -> None:
    await save(database, [GraceRecord(1, 7, RUNNING)])
    await save(database, [GraceRecord(1, 7, PoolGrace())])
    assert await listed(store, running=False) == []


async def test_an_operator_sets_the_end_once_and_it_is_recorded(database: Database, store: GraceStore) -> None:
    await save(database, [GraceRecord(1, 7, RUNNING), GraceRecord(2, 7, OVER)])
    now = int(time.time())
    await store.set_end(1, now + 60, at=now, actor=ME, reason="on holiday")
    changed = (await store.of([1]))[1]
    assert (changed.grace.operator_until, changed.operator_by, changed.operator_reason) == (
        now + 60,
        ME.identity,
        "on holiday",
    )
    (event,) = await database.collection(EVENTS).find().to_list(None)
    assert (event["kind"], event["pool_id"], event["until"], event["reason"]) == (
        "grace_changed",
        1,
        now + 60,
        "on holiday",
    )
    with pytest.raises(PoolNotFoundError, match="pool 2 is not in grace"):
        await store.set_end(2, now + 60, at=now, actor=ME, reason="too late")


async def test_of_an_operator_and_a_settlement_that_write_at_once_one_decides_anew(
    database: Database, store: GraceStore
) -> None:
    await save(database, [GraceRecord(1, 7, RUNNING)])

    async def settle(session: Session) -> None:
        known = (await store.of([1], session=session))[1]
        await store.set_end(1, 900, at=250, actor=ME, reason="meanwhile")
        await store.write([replace(known, grace=OVER)], session=session)

    with pytest.raises(StoreConflictError):
        await database.transact(settle, doing="settling", attempts=1)
    assert (await store.of([1]))[1].grace.operator_until == 900


@pytest.mark.parametrize(
    "spoilt", [{"since": 5}, {"since": {"cu": "x"}}, {"since": {"gpu": 5}}, {"spent": [5]}, {"operator": 7}], ids=str
)
async def test_a_spoilt_record_counts_as_none_and_hides_no_other(
    database: Database, store: GraceStore, spoilt: dict[str, object]
) -> None:
    await save(database, [GraceRecord(1, 7, RUNNING), GraceRecord(2, 7, RUNNING)])
    await database.collection(GRACE).update_one({"_id": 1}, {"$set": spoilt})
    assert list(await store.of([1, 2])) == [2]
    assert await listed(store) == [2]


async def test_what_counts_for_no_budget_any_more_is_removed_unless_the_pool_is_still_empty(
    database: Database, store: GraceStore
) -> None:
    now = WINDOW_SECONDS + 20
    lately = PoolGrace(spent=((5, 9), (15, 21)))
    await save(database, [GraceRecord(1, 7, PoolGrace(spent=((5, 19),))), GraceRecord(2, 7, lately)])
    await save(database, [GraceRecord(3, 7, OVER), GraceRecord(4, 7, RUNNING)])
    assert await store.purge(now=now) == 1
    assert await listed(store, running=False) == [2, 3, 4]
