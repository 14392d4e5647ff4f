"""Pools and what their workloads say of them, on a real server: what is found, what is repaired, what is left alone."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC
from typing import Any

import bson
import golden
import pytest
import pytest_asyncio
from actors import ME
from arithmetic_model import RESOURCES, Rates, add_workload, recompute, sync
from bson import Decimal128, Int64, json_util
from bson.raw_bson import RawBSONDocument
from deadline import wait_until
from explorer import CONTAINER, FREE, PUBLIC_IP, VOLUME, ZDB, Explorer, Kind, Purchase, encoded, new_pool
from fail_point import fail_point, times_entered
from oplog import Oplog
from pymongo import MongoClient
from pymongo.monitoring import CommandListener

from pool_daemon.capacity.pool import NEVER
from pool_daemon.store import reconciliation
from pool_daemon.store.client import connect
from pool_daemon.store.reconciliation import BEGINNING, Page, ReconciliationStore

Client = MongoClient[dict[str, Any]]
EVERYTHING = Rates(1e6, 1e6, 1e6)


@pytest_asyncio.fixture
async def store(mongo_uri: str, database_name: str) -> AsyncIterator[ReconciliationStore]:
    database = connect(uri=mongo_uri, name=database_name, timeout_seconds=2)
    yield ReconciliationStore(database=database, actor=ME)
    database.close()


def now() -> int:
    return int(time.time())


async def look(store: ReconciliationStore, *, after: Any = BEGINNING, limit: int = 1000) -> Page:
    return await store.compare(after=after, limit=limit, overdue_at=now())


async def repair_all(store: ReconciliationStore, *, at: int) -> list[bool]:
    return [await store.repair(drifted, now=at) for drifted in (await look(store)).drifted]


def set_action(explorer: Explorer, workload_id: int, next_action: int) -> None:
    explorer.workloads.update_one({"_id": workload_id}, {"$set": {"next_action": next_action}})


def repaired(explorer: Explorer, pool: Purchase, kept: list[int], *, at: int) -> bytes:
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


async def test_pools_that_agree_with_their_workloads_are_found_to_and_nothing_is_said(
    explorer: Explorer, store: ReconciliationStore
) -> None:
    for kinds in ([CONTAINER, VOLUME], [ZDB, PUBLIC_IP, *FREE], []):
        explorer.buy(EVERYTHING, kinds)
    page = await look(store)
    assert (page.pools, page.drifted, page.overdue, page.unreadable) == (3, [], [], [])


async def test_a_deleted_workload_is_dropped_and_the_pool_is_what_the_rules_make_of_it(
    explorer: Explorer, store: ReconciliationStore
) -> None:
    pool = explorer.buy(EVERYTHING, [CONTAINER, VOLUME, PUBLIC_IP], bought_at=now() - 100)
    container, volume, address = pool.workload_ids
    set_action(explorer, container, 6)
    moment = now()
    assert await repair_all(store, at=moment) == [True]
    expected = repaired(explorer, pool, [volume, address], at=moment)
    assert explorer.bytes_of(explorer.pools, pool.pool_id) == expected
    assert (await look(store)).drifted == []


async def test_a_pool_of_which_nothing_is_left_never_runs_empty(explorer: Explorer, store: ReconciliationStore) -> None:
    pool = explorer.buy(EVERYTHING, [CONTAINER])
    set_action(explorer, pool.workload_ids[0], 6)
    await repair_all(store, at=now())
    found = explorer.pools.find_one({"_id": pool.pool_id})
    assert found is not None
    assert (found["active_workload_ids"], found["active_cu"], found["empty_at"]) == ([], 0.0, NEVER)


@pytest.mark.parametrize("lost", [slice(0, 1), slice(1, 3), slice(0, 4)], ids=["one", "some", "all"])
async def test_a_pool_whose_workloads_have_no_documents_is_left_alone_and_counted(
    explorer: Explorer, store: ReconciliationStore, lost: slice
) -> None:
    """What else is wrong with it stays so, too, until the documents are back."""
    pool = explorer.buy(EVERYTHING, [CONTAINER, VOLUME, PUBLIC_IP, FREE[0]], active_cu=7.0)
    set_action(explorer, pool.workload_ids[3], 6)
    missing = list(explorer.workloads.find({"_id": {"$in": pool.workload_ids[lost]}}))
    explorer.workloads.delete_many({"_id": {"$in": pool.workload_ids[lost]}})
    page = await look(store)
    assert (page.drifted, page.missing) == ([], {pool.pool_id: len(missing)})
    explorer.workloads.insert_many(missing)
    page = await look(store)
    assert ([drifted.pool_id for drifted in page.drifted], page.missing) == ([pool.pool_id], {})


@pytest.mark.parametrize("next_action", [0, 1, 2, 3, 4, 5, 7, None, "6", [6]])
async def test_a_workload_that_may_still_run_keeps_counting(
    explorer: Explorer, store: ReconciliationStore, next_action: Any
) -> None:
    pool = explorer.buy(EVERYTHING, [CONTAINER])
    set_action(explorer, pool.workload_ids[0], next_action)
    assert (await look(store)).drifted == []


async def test_a_deployed_workload_that_the_pool_does_not_list_is_left_to_the_explorer(
    explorer: Explorer, store: ReconciliationStore
) -> None:
    pool = explorer.buy(EVERYTHING, [CONTAINER])
    explorer.workloads.insert_one(explorer.new_workload(pool.pool_id, CONTAINER))
    assert (await look(store)).drifted == []


async def test_rates_that_do_not_add_up_are_put_right(explorer: Explorer, store: ReconciliationStore) -> None:
    pool = explorer.buy(EVERYTHING, [CONTAINER, VOLUME])
    explorer.pools.update_one({"_id": pool.pool_id}, {"$set": {"active_cu": 7.0, "active_su": 0.5}})
    pool.document.update(active_cu=7.0, active_su=0.5)
    moment = now() + 50
    assert await repair_all(store, at=moment) == [True]
    expected = repaired(explorer, pool, pool.workload_ids, at=moment)
    assert explorer.bytes_of(explorer.pools, pool.pool_id) == expected


async def test_a_pool_with_a_workload_of_unknown_units_is_left_alone_and_told(
    explorer: Explorer, store: ReconciliationStore
) -> None:
    pool = explorer.buy(EVERYTHING, [CONTAINER, VOLUME, PUBLIC_IP])
    container, volume, address = pool.workload_ids
    explorer.workloads.update_one({"_id": container}, {"$set": {"workload_type": 99}})
    explorer.workloads.update_one({"_id": volume}, {"$unset": {"size": 1}})
    set_action(explorer, address, 6)
    page = await look(store)
    assert page.drifted == []
    assert {(each.kind, each.document_id) for each in page.unreadable} == {
        ("workload", container),
        ("workload", volume),
    }


@pytest.mark.parametrize(
    "fields",
    [
        {"cus": float("nan")},
        {"cus": "a text"},
        {"active_workload_ids": 5},
        {"active_workload_ids": ["a"]},
        {"node_ids": {"a": 1}},
    ],
)
async def test_a_pool_that_cannot_be_read_is_told_and_does_not_hide_the_others(
    explorer: Explorer, store: ReconciliationStore, fields: dict[str, Any]
) -> None:
    bad = explorer.buy(EVERYTHING, [CONTAINER], **fields)
    good = explorer.buy(EVERYTHING, [CONTAINER])
    for pool in (bad, good):
        set_action(explorer, pool.workload_ids[0], 6)
    page = await look(store)
    assert [drifted.pool_id for drifted in page.drifted] == [good.pool_id]
    assert [(each.kind, each.document_id) for each in page.unreadable] == [("pool", bad.pool_id)]


async def test_a_workload_whose_field_name_is_not_utf_8_is_told(
    explorer: Explorer, store: ReconciliationStore, mongo: Client, database_name: str
) -> None:
    pool = explorer.buy(EVERYTHING, [CONTAINER])
    (workload_id,) = pool.workload_ids
    document = explorer.bytes_of(explorer.workloads, workload_id)
    assert document is not None
    explorer.workloads.delete_one({"_id": workload_id})
    wrong = document.replace(b"disk_type", b"disk_typ\xff")
    mongo[database_name].get_collection("workload").insert_one(RawBSONDocument(wrong))
    page = await look(store)
    assert page.drifted == []
    assert [(each.kind, each.document_id) for each in page.unreadable] == [("workload", workload_id)]


async def test_units_come_out_the_same_of_the_fields_that_are_read(
    explorer: Explorer, store: ReconciliationStore
) -> None:
    """The explorer's own results, for workloads of every type: a pool that lists one at its rates has not drifted."""
    rows = golden.table("units")
    for number, row in enumerate(rows, start=1):
        workload = json_util.loads(json.dumps(row["document"])) | {"_id": Int64(number)}
        rates = {active: max(0.0, row[unit]) for unit, (_, active) in RESOURCES.items()}
        pool = new_pool(number, now=now()) | rates | {"active_workload_ids": [number]}
        explorer.workloads.insert_one(workload)
        explorer.pools.insert_one(encoded(pool))
    page = await look(store, limit=len(rows))
    assert page.pools == len(rows)
    assert page.drifted == []
    assert [each.document_id for each in page.unreadable] == [
        number for number, row in enumerate(rows, start=1) if row["error"]
    ]


async def test_pages_lead_past_every_pool_once_and_never_past_what_has_no_number(
    explorer: Explorer, store: ReconciliationStore
) -> None:
    numbers: list[Any] = [Int64(-5), Int64(0), 3, 4.0, 5.5, Int64(2**62)]
    for pool_id in [*numbers, float("nan"), "a text", None]:
        explorer.pools.insert_one({"_id": pool_id})
    seen: list[Any] = []
    page = await look(store, limit=1)
    while page.pools:
        seen.append(page.last_id)
        page = await look(store, limit=1, after=page.last_id)
    assert seen == numbers


@pytest.mark.parametrize("count", [reconciliation.IDS_INLINE, reconciliation.IDS_INLINE + 1, 3500])
async def test_a_crowded_pool_is_compared_to_its_last_workload(
    explorer: Explorer, store: ReconciliationStore, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(reconciliation, "IDS_AT_ONCE", 1000)
    pools = [explorer.buy(EVERYTHING, [CONTAINER] * count) for _ in range(2)]
    for pool in pools:
        set_action(explorer, pool.workload_ids[-1], 6)
    page = await look(store)
    assert [drifted.drift.dropped for drifted in page.drifted] == [(pool.workload_ids[-1],) for pool in pools]
    moment = now()
    assert await repair_all(store, at=moment) == [True, True]
    for pool in pools:
        expected = repaired(explorer, pool, pool.workload_ids[:-1], at=moment)
        assert explorer.bytes_of(explorer.pools, pool.pool_id) == expected
    explorer.workloads.delete_one({"_id": pools[0].workload_ids[-2]})
    assert (await look(store)).missing == {pools[0].pool_id: 1}


async def test_a_crowded_pool_that_changes_while_it_is_compared_is_left_for_the_next_time(
    explorer: Explorer, store: ReconciliationStore, mongo: Client
) -> None:
    pool = explorer.buy(EVERYTHING, [CONTAINER] * (reconciliation.IDS_INLINE + 10))
    set_action(explorer, pool.workload_ids[0], 6)
    before = times_entered(mongo)
    with fail_point(mongo, "find", blockConnection=True, blockTimeMS=400):
        comparing = asyncio.create_task(look(store))
        await asyncio.to_thread(
            wait_until, lambda: times_entered(mongo) > before, within_seconds=5, what="the look at its workloads"
        )
        await asyncio.to_thread(explorer.top_up, pool.pool_id, EVERYTHING)
        page = await comparing
    assert (page.pools, page.drifted, page.missing) == (1, [], {})
    assert len((await look(store)).drifted) == 1


async def test_a_page_ends_early_behind_crowded_pools_and_the_next_goes_on(
    explorer: Explorer, store: ReconciliationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciliation, "IDS_AT_ONCE", 20)
    monkeypatch.setattr(reconciliation, "PAGE_WORKLOADS", 40)
    pools = [explorer.buy(EVERYTHING, [CONTAINER] * 15) for _ in range(10)]
    sizes, after = [], BEGINNING
    while (page := await look(store, after=after)).pools:
        sizes.append(page.pools)
        after = page.last_id
    assert sizes == [4, 4, 2]
    assert after == pools[-1].pool_id


class Replies(CommandListener):
    """Adds up how long the server's answers are."""

    def __init__(self) -> None:
        self.lengths: list[int] = []

    def started(self, event: Any) -> None:
        pass

    def succeeded(self, event: Any) -> None:
        cursor = event.reply.get("cursor", {})
        batch = cursor.get("firstBatch", cursor.get("nextBatch", ()))
        self.lengths += [len(each.raw) for each in batch]

    def failed(self, event: Any) -> None:
        pass


async def test_however_long_the_documents_are_only_a_few_numbers_of_each_travel(
    explorer: Explorer, mongo_uri: str, database_name: str
) -> None:
    long = "x" * 2**20
    node_ids = [long[:1000]] * 1000
    for _ in range(20):
        explorer.buy(EVERYTHING, [CONTAINER], node_ids=node_ids)
    expired = explorer.buy_expired(CONTAINER, FREE[0])
    odd = [explorer.buy(EVERYTHING, [kind]) for kind in (CONTAINER, VOLUME, VOLUME)]
    explorer.workloads.update_many({}, {"$set": {"description": long, "json": long}})
    for pool, wrong in zip(odd, ({"capcity.note": long}, {"size": long}, {"custom_size": {"note": long}}), strict=True):
        explorer.workloads.update_one({"_id": pool.workload_ids[0]}, {"$set": wrong})
    explorer.buy(EVERYTHING, [], cus=long)
    replies = Replies()
    database = connect(uri=mongo_uri, name=database_name, listeners=[replies])
    try:
        page = await look(ReconciliationStore(database=database, actor=ME))
    finally:
        database.close()
    assert (page.pools, page.drifted, page.missing, page.overdue) == (25, [], {}, [expired.pool_id])
    assert len(page.unreadable) == 3
    assert sum(replies.lengths) < 25 * 1000


async def test_a_workload_whose_id_is_a_decimal_counts_as_the_number_that_it_equals(
    explorer: Explorer, store: ReconciliationStore
) -> None:
    pool = explorer.buy(EVERYTHING, [CONTAINER, VOLUME])
    for workload in pool.workloads:
        explorer.workloads.delete_one({"_id": workload["_id"]})
        explorer.workloads.insert_one(workload | {"_id": Decimal128(str(workload["_id"]))})
    page = await look(store)
    assert (page.pools, page.missing, page.drifted, page.unreadable) == (1, {}, [], [])


async def test_an_unreadable_document_is_named_but_not_every_one_of_hundreds_of_thousands(
    explorer: Explorer, store: ReconciliationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciliation, "MOST_UNREADABLE", 5)
    explorer.buy(EVERYTHING, [CONTAINER] * 10)
    explorer.workloads.update_many({}, {"$set": {"workload_type": 99}})
    assert len((await look(store)).unreadable) == 5


async def test_a_pool_is_overdue_if_a_deployed_workload_uses_what_is_exhausted(
    explorer: Explorer, store: ReconciliationStore
) -> None:
    overdue = explorer.buy_expired(CONTAINER)
    unlisted = explorer.buy_expired(FREE[0], active_cu=1.0, empty_at=Int64(now() - 5))
    explorer.workloads.insert_one(explorer.new_workload(unlisted.pool_id, CONTAINER))
    explorer.buy_expired(CONTAINER, next_action=4)
    explorer.buy_expired(FREE[0], empty_at=Int64(now() - 5))
    explorer.buy(Rates(0.5, 1e9, 0), [VOLUME], bought_at=now() - 3600, empty_at=Int64(now() - 5))
    explorer.buy(EVERYTHING, [CONTAINER])
    assert (await look(store)).overdue == [overdue.pool_id, unlisted.pool_id]


async def test_a_top_up_committed_while_a_pool_is_repaired_is_not_undone(
    explorer: Explorer, store: ReconciliationStore, mongo: Client
) -> None:
    pool = explorer.buy(EVERYTHING, [CONTAINER, VOLUME])
    set_action(explorer, pool.workload_ids[0], 6)
    (drifted,) = (await look(store)).drifted
    before = times_entered(mongo)
    with fail_point(mongo, "update", blockConnection=True, blockTimeMS=400):
        repairing = asyncio.create_task(store.repair(drifted, now=now()))
        await asyncio.to_thread(
            wait_until, lambda: times_entered(mongo) > before, within_seconds=5, what="the daemon's update"
        )
        await asyncio.to_thread(explorer.top_up, pool.pool_id, EVERYTHING)
        topped_up = explorer.bytes_of(explorer.pools, pool.pool_id)
        assert not await repairing
    assert explorer.bytes_of(explorer.pools, pool.pool_id) == topped_up
    assert await repair_all(store, at=now()) == [True]


async def test_a_repair_and_its_record_are_one_commit_and_what_was_not_repaired_leaves_none(
    explorer: Explorer, store: ReconciliationStore, mongo: Client
) -> None:
    pool = explorer.buy(EVERYTHING, [CONTAINER, VOLUME])
    set_action(explorer, pool.workload_ids[0], 6)
    (drifted,) = (await look(store)).drifted
    oplog = Oplog(client=mongo, database_name=explorer.database.name)
    assert await store.repair(drifted, now=pool.empty_at)
    assert not await store.repair(drifted, now=pool.empty_at)
    (commit,) = oplog.commits()
    assert [change.collection for change in commit.changes] == ["capacity-pools", "pool-daemon-events"]
    (record,) = explorer.events.find()
    assert (record["kind"], record["actor"], record["by"]) == ("drift_repaired", "daemon", "me")
    assert (record["pool_id"], record["customer_tid"], record["empty_at"]) == (pool.pool_id, 7, pool.empty_at)
    assert record["reason"] == "1 listed workloads are deleted, wrong rates: cu"
    rates = [record[side]["active_cu"] for side in ("before", "after")]
    assert rates == [CONTAINER.rates.cu, 0.0]
    assert record["after"]["last_updated"] == record["at"].replace(tzinfo=UTC).timestamp() == pool.empty_at


async def test_a_workload_that_the_explorer_adds_while_a_pool_is_repaired_stays(
    explorer: Explorer, store: ReconciliationStore
) -> None:
    pool = explorer.buy(EVERYTHING, [CONTAINER, VOLUME])
    set_action(explorer, pool.workload_ids[0], 6)
    (drifted,) = (await look(store)).drifted
    added = deploy_in(explorer, pool.pool_id, PUBLIC_IP)
    assert not await store.repair(drifted, now=now())
    assert await repair_all(store, at=now()) == [True]
    found = explorer.pools.find_one({"_id": pool.pool_id})
    assert found is not None
    assert found["active_workload_ids"] == [pool.workload_ids[1], added]


async def test_unknown_fields_of_a_pool_are_kept(explorer: Explorer, store: ReconciliationStore) -> None:
    pool = explorer.buy(EVERYTHING, [CONTAINER], note="theirs")
    set_action(explorer, pool.workload_ids[0], 6)
    assert await repair_all(store, at=now()) == [True]
    assert (explorer.pools.find_one({"_id": pool.pool_id}) or {})["note"] == "theirs"


async def test_a_pool_with_node_ids_that_cannot_be_read_is_not_written(
    explorer: Explorer, store: ReconciliationStore
) -> None:
    pool = explorer.buy(EVERYTHING, [CONTAINER], node_ids=["a node", 1])
    set_action(explorer, pool.workload_ids[0], 6)
    before = explorer.bytes_of(explorer.pools, pool.pool_id)
    assert await repair_all(store, at=now()) == [False]
    assert explorer.bytes_of(explorer.pools, pool.pool_id) == before


@pytest.mark.parametrize("node_ids", [None, [], "missing"])
async def test_a_pool_of_any_age_is_repaired_and_gets_no_field_that_it_lacked(
    explorer: Explorer, store: ReconciliationStore, node_ids: Any
) -> None:
    pool = explorer.buy(EVERYTHING, [CONTAINER, VOLUME], node_ids=node_ids)
    lacking = ["sponsor_tid", "ipv4us", "active_ipv4", *(["node_ids"] if node_ids == "missing" else [])]
    explorer.pools.update_one({"_id": pool.pool_id}, {"$unset": dict.fromkeys(lacking, 1)})
    set_action(explorer, pool.workload_ids[0], 6)
    assert await repair_all(store, at=now()) == [True]
    found = explorer.pools.find_one({"_id": pool.pool_id}) or {}
    assert set(pool.document) - set(found) == set(lacking)
    assert (found["active_workload_ids"], found["active_cu"]) == (pool.workload_ids[1:], 0.0)


async def test_a_removal_within_the_same_second_is_not_taken_for_an_unchanged_pool(
    explorer: Explorer, store: ReconciliationStore
) -> None:
    """What is free changes none of the numbers of a pool, only its list."""
    pool = explorer.buy(EVERYTHING, [CONTAINER, FREE[0], FREE[0]], active_cu=3.0)
    set_action(explorer, pool.workload_ids[1], 6)
    (drifted,) = (await look(store)).drifted
    explorer.pools.update_one({"_id": pool.pool_id}, {"$set": {"active_workload_ids": pool.workload_ids[:2]}})
    assert not await store.repair(drifted, now=now())
    swapped = [pool.workload_ids[0], Int64(4711), pool.workload_ids[2]]
    explorer.pools.update_one({"_id": pool.pool_id}, {"$set": {"active_workload_ids": swapped}})
    assert not await store.repair(drifted, now=now())


async def test_workloads_that_are_alike_are_told_apart_by_their_ids_whatever_type_those_have(
    explorer: Explorer, store: ReconciliationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciliation, "STATES_KEPT", 2)
    ids = [Int64(-3), Int64(2**62), 5, 6.0, Int64(7)]
    like = explorer.new_workload(1, CONTAINER)
    explorer.workloads.insert_many([like | {"_id": each} for each in ids])
    explorer.workloads.update_many({"_id": {"$in": [-3, 6]}}, {"$set": {"next_action": 6}})
    explorer.workloads.update_one({"_id": 7}, {"$set": {"capcity.cpu": 4}})
    explorer.buy(EVERYTHING, [], active_workload_ids=[Int64(each) for each in ids], active_cu=5.0)
    (drifted,) = (await look(store)).drifted
    assert drifted.drift.dropped == (-3, 6)
    assert drifted.drift.rates.cu == pytest.approx(3.0)
    assert (await look(store)).drifted == [drifted]
