"""Pools and what their workloads say of them, on a real server: what is found, what is mended, what is left alone."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import bson
import golden
import pytest
import pytest_asyncio
from arithmetic_model import RESOURCES, Rates, add_workload, recompute, sync
from bson import Int64, json_util
from bson.raw_bson import RawBSONDocument
from deadline import wait_until
from explorer import CONTAINER, FREE, PUBLIC_IP, VOLUME, ZDB, Explorer, Kind, Purchase, encoded, new_pool
from fail_point import fail_point, times_entered
from pymongo import MongoClient

from pool_daemon.capacity.pool import NEVER
from pool_daemon.store import reconciliation
from pool_daemon.store.client import connect
from pool_daemon.store.reconciliation import BEGINNING, Page, Reconciliation

Client = MongoClient[dict[str, Any]]
EVERYTHING = Rates(1e6, 1e6, 1e6)


@pytest.fixture
def explorer(mongo: Client, database_name: str) -> Explorer:
    return Explorer(database=mongo[database_name])


@pytest_asyncio.fixture
async def books(mongo_uri: str, database_name: str) -> AsyncIterator[Reconciliation]:
    database = connect(uri=mongo_uri, name=database_name, timeout_seconds=2)
    yield Reconciliation(database=database)
    database.close()


def now() -> int:
    return int(time.time())


async def look(books: Reconciliation, *, after: Any = BEGINNING, limit: int = 1000) -> Page:
    return await books.look(after=after, limit=limit, overdue_at=now())


async def mend_all(books: Reconciliation, *, at: int) -> list[bool]:
    return [await books.mend(drifted, now=at) for drifted in (await look(books)).drifted]


def set_action(explorer: Explorer, workload_id: int, next_action: int) -> None:
    explorer.workloads.update_one({"_id": workload_id}, {"$set": {"next_action": next_action}})


def mended(explorer: Explorer, pool: Purchase, kept: list[int], *, at: int) -> bytes:
    """Work out, to the byte, what a pool comes to when only these workloads count from that second on."""
    document = dict(pool.document)
    sync(document, at)
    rates = [explorer.rates[workload_id] for workload_id in kept]
    document.update(
        active_cu=float(sum(each.cu for each in rates)),
        active_su=float(sum(each.su for each in rates)),
        active_ipv4=float(sum(each.ipv4u for each in rates)),
        active_workload_ids=kept,
    )
    recompute(document)
    return bson.encode(encoded(document))


def deploy_in(explorer: Explorer, pool_id: int, kind: Kind) -> int:
    """Deploy another workload and count it in its pool, as the explorer does."""
    workload = explorer.new_workload(pool_id, kind)
    explorer.workloads.insert_one(workload)
    explorer.rewrite(pool_id, lambda pool: add_workload(pool, workload["_id"], kind.rates, now=now()))
    return int(workload["_id"])


async def test_books_that_agree_are_found_to_and_nothing_is_said(explorer: Explorer, books: Reconciliation) -> None:
    for kinds in ([CONTAINER, VOLUME], [ZDB, PUBLIC_IP, *FREE], []):
        explorer.buy(EVERYTHING, kinds)
    page = await look(books)
    assert (page.pools, page.drifted, page.overdue, page.unreadable) == (3, [], [], [])


@pytest.mark.parametrize("how", ["deleted", "gone"])
async def test_a_workload_that_is_no_more_is_dropped_and_the_pool_is_what_the_rules_make_of_it(
    explorer: Explorer, books: Reconciliation, how: str
) -> None:
    pool = explorer.buy(EVERYTHING, [CONTAINER, VOLUME, PUBLIC_IP], bought_at=now() - 100)
    container, volume, address = pool.workload_ids
    if how == "deleted":
        set_action(explorer, container, 6)
    else:
        explorer.workloads.delete_one({"_id": container})
    moment = now()
    assert await mend_all(books, at=moment) == [True]
    expected = mended(explorer, pool, [volume, address], at=moment)
    assert explorer.bytes_of(explorer.pools, pool.pool_id) == expected
    assert (await look(books)).drifted == []


async def test_a_pool_of_which_nothing_is_left_never_runs_empty(explorer: Explorer, books: Reconciliation) -> None:
    pool = explorer.buy(EVERYTHING, [CONTAINER])
    set_action(explorer, pool.workload_ids[0], 6)
    await mend_all(books, at=now())
    found = explorer.pools.find_one({"_id": pool.pool_id})
    assert found is not None
    assert (found["active_workload_ids"], found["active_cu"], found["empty_at"]) == ([], 0.0, NEVER)


@pytest.mark.parametrize("next_action", [0, 1, 2, 3, 4, 5, 7, None, "6"])
async def test_a_workload_that_may_still_run_keeps_counting(
    explorer: Explorer, books: Reconciliation, next_action: Any
) -> None:
    pool = explorer.buy(EVERYTHING, [CONTAINER])
    set_action(explorer, pool.workload_ids[0], next_action)
    assert (await look(books)).drifted == []


async def test_a_deployed_workload_that_the_pool_does_not_list_is_left_to_the_explorer(
    explorer: Explorer, books: Reconciliation
) -> None:
    pool = explorer.buy(EVERYTHING, [CONTAINER])
    explorer.workloads.insert_one(explorer.new_workload(pool.pool_id, CONTAINER))
    assert (await look(books)).drifted == []


async def test_rates_that_do_not_add_up_are_put_right(explorer: Explorer, books: Reconciliation) -> None:
    pool = explorer.buy(EVERYTHING, [CONTAINER, VOLUME])
    explorer.pools.update_one({"_id": pool.pool_id}, {"$set": {"active_cu": 7.0, "active_su": 0.5}})
    pool.document.update(active_cu=7.0, active_su=0.5)
    moment = now() + 50
    assert await mend_all(books, at=moment) == [True]
    expected = mended(explorer, pool, pool.workload_ids, at=moment)
    assert explorer.bytes_of(explorer.pools, pool.pool_id) == expected


async def test_a_pool_with_a_workload_of_unknown_units_is_left_alone_and_told(
    explorer: Explorer, books: Reconciliation
) -> None:
    pool = explorer.buy(EVERYTHING, [CONTAINER, VOLUME, PUBLIC_IP])
    container, volume, address = pool.workload_ids
    explorer.workloads.update_one({"_id": container}, {"$set": {"workload_type": 99}})
    explorer.workloads.update_one({"_id": volume}, {"$unset": {"size": 1}})
    set_action(explorer, address, 6)
    page = await look(books)
    assert page.drifted == []
    assert {(each.kind, each.document_id) for each in page.unreadable} == {
        ("workload", container),
        ("workload", volume),
    }


@pytest.mark.parametrize("fields", [{"cus": float("nan")}, {"active_workload_ids": 5}, {"node_ids": [1]}])
async def test_a_pool_that_cannot_be_read_is_told_and_does_not_hide_the_others(
    explorer: Explorer, books: Reconciliation, fields: dict[str, Any]
) -> None:
    bad = explorer.buy(EVERYTHING, [CONTAINER], **fields)
    good = explorer.buy(EVERYTHING, [CONTAINER])
    for pool in (bad, good):
        set_action(explorer, pool.workload_ids[0], 6)
    page = await look(books)
    assert [drifted.pool.pool_id for drifted in page.drifted] == [good.pool_id]
    assert [(each.kind, each.document_id) for each in page.unreadable] == [("pool", bad.pool_id)]


async def test_a_workload_whose_field_name_is_not_utf_8_is_told(
    explorer: Explorer, books: Reconciliation, mongo: Client, database_name: str
) -> None:
    pool = explorer.buy(EVERYTHING, [CONTAINER])
    (workload_id,) = pool.workload_ids
    document = explorer.bytes_of(explorer.workloads, workload_id)
    assert document is not None
    explorer.workloads.delete_one({"_id": workload_id})
    wrong = document.replace(b"disk_type", b"disk_typ\xff")
    mongo[database_name].get_collection("workload").insert_one(RawBSONDocument(wrong))
    page = await look(books)
    assert page.drifted == []
    assert [(each.kind, each.document_id) for each in page.unreadable] == [("workload", workload_id)]


async def test_units_come_out_the_same_of_the_fields_that_are_read(explorer: Explorer, books: Reconciliation) -> None:
    """The explorer's own results, for workloads of every type: a pool that lists one at its rates has not drifted."""
    rows = golden.table("units")
    for number, row in enumerate(rows, start=1):
        workload = json_util.loads(json.dumps(row["document"])) | {"_id": Int64(number)}
        rates = {active: max(0.0, row[unit]) for unit, (_, active) in RESOURCES.items()}
        pool = new_pool(number, now=now()) | rates | {"active_workload_ids": [number]}
        explorer.workloads.insert_one(workload)
        explorer.pools.insert_one(encoded(pool))
    page = await look(books, limit=len(rows))
    assert page.pools == len(rows)
    assert page.drifted == []
    assert [each.document_id for each in page.unreadable] == [
        number for number, row in enumerate(rows, start=1) if row["error"]
    ]


async def test_pages_lead_past_every_pool_once_and_never_past_what_has_no_number(
    explorer: Explorer, books: Reconciliation
) -> None:
    numbers: list[Any] = [Int64(-5), Int64(0), 3, 4.0, 5.5, Int64(2**62)]
    for pool_id in [*numbers, float("nan"), "a text", None]:
        explorer.pools.insert_one({"_id": pool_id})
    seen: list[Any] = []
    page = await look(books, limit=1)
    while page.pools:
        seen.append(page.last_id)
        page = await look(books, limit=1, after=page.last_id)
    assert seen == numbers


async def test_more_workloads_than_a_query_takes_are_read_in_several(explorer: Explorer, books: Reconciliation) -> None:
    pools = [explorer.buy(EVERYTHING, [CONTAINER] * 700) for _ in range(5)]
    assert reconciliation.WORKLOADS_AT_ONCE < 5 * 700
    gone = [pool.workload_ids[-1] for pool in pools]
    explorer.workloads.delete_many({"_id": {"$in": gone}})
    page = await look(books)
    assert [drifted.drift.dropped for drifted in page.drifted] == [(workload_id,) for workload_id in gone]


async def test_a_pool_is_overdue_if_a_deployed_workload_uses_what_is_exhausted(
    explorer: Explorer, books: Reconciliation
) -> None:
    overdue = explorer.buy_expired(CONTAINER)
    unlisted = explorer.buy_expired(FREE[0], active_cu=1.0, empty_at=Int64(now() - 5))
    explorer.workloads.insert_one(explorer.new_workload(unlisted.pool_id, CONTAINER))
    explorer.buy_expired(CONTAINER, next_action=4)
    explorer.buy_expired(FREE[0], empty_at=Int64(now() - 5))
    explorer.buy(Rates(0.5, 1e9, 0), [VOLUME], bought_at=now() - 3600, empty_at=Int64(now() - 5))
    explorer.buy(EVERYTHING, [CONTAINER])
    assert (await look(books)).overdue == [overdue.pool_id, unlisted.pool_id]


async def test_a_top_up_committed_while_the_books_are_mended_is_not_undone(
    explorer: Explorer, books: Reconciliation, mongo: Client
) -> None:
    pool = explorer.buy(EVERYTHING, [CONTAINER, VOLUME])
    set_action(explorer, pool.workload_ids[0], 6)
    (drifted,) = (await look(books)).drifted
    before = times_entered(mongo)
    with fail_point(mongo, "update", blockConnection=True, blockTimeMS=400):
        mending = asyncio.create_task(books.mend(drifted, now=now()))
        await asyncio.to_thread(
            wait_until, lambda: times_entered(mongo) > before, within_seconds=5, what="the daemon's update"
        )
        await asyncio.to_thread(explorer.top_up, pool.pool_id, EVERYTHING)
        topped_up = explorer.bytes_of(explorer.pools, pool.pool_id)
        assert not await mending
    assert explorer.bytes_of(explorer.pools, pool.pool_id) == topped_up
    assert await mend_all(books, at=now()) == [True]


async def test_a_workload_that_the_explorer_adds_while_the_books_are_mended_stays(
    explorer: Explorer, books: Reconciliation
) -> None:
    pool = explorer.buy(EVERYTHING, [CONTAINER, VOLUME])
    set_action(explorer, pool.workload_ids[0], 6)
    (drifted,) = (await look(books)).drifted
    added = deploy_in(explorer, pool.pool_id, PUBLIC_IP)
    assert not await books.mend(drifted, now=now())
    assert await mend_all(books, at=now()) == [True]
    found = explorer.pools.find_one({"_id": pool.pool_id})
    assert found is not None
    assert found["active_workload_ids"] == [pool.workload_ids[1], added]


async def test_unknown_fields_of_a_pool_are_kept(explorer: Explorer, books: Reconciliation) -> None:
    pool = explorer.buy(EVERYTHING, [CONTAINER], note="theirs")
    set_action(explorer, pool.workload_ids[0], 6)
    assert await mend_all(books, at=now()) == [True]
    assert (explorer.pools.find_one({"_id": pool.pool_id}) or {})["note"] == "theirs"
