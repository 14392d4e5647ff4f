"""What an operator changes in a pool: once, on the pool as it is, beside an explorer that changes it, too."""

import asyncio
import json
import time
from collections.abc import Callable

import pytest
from arithmetic_model import Rates, add_workload
from bson import Int64
from explorer import CONTAINER, YEAR_SECONDS, Explorer
from pools_command import Pools
from rewriting import Rewriting

from pool_daemon.capacity.pool import NEVER
from pool_daemon.errors import (
    CapacityError,
    ExitCode,
    PoolNotFoundError,
    StoreConflictError,
    UnitsError,
    UnreadableDocumentError,
)
from pool_daemon.store.client import Database
from pool_daemon.store.pool_changes import Author
from pool_daemon.store.pool_edits import PoolEdits

RACES = 60

MakeEdits = Callable[..., PoolEdits]


@pytest.fixture
def edits(database: Database) -> MakeEdits:
    def edits(key: str = "a key", *, dry_run: bool = False) -> PoolEdits:
        author = Author(identity="me@here", version="1", key=key, reason="a ticket")
        return PoolEdits(database=database, author=author, dry_run=dry_run)

    return edits


def now() -> int:
    return int(time.time())


async def test_a_new_pool_is_as_the_explorer_writes_one_and_its_record_says_who_and_why(
    edits: MakeEdits, explorer: Explorer
) -> None:
    at = now()
    pool = (await edits().create(7, 8, ["a", "b"], (60.0, 0.0, 0.0), at)).after
    stored = explorer.stored(explorer.pools, pool.pool_id)
    assert list(stored.items()) == [
        ("_id", pool.pool_id),
        ("cus", 60.0),
        ("sus", 0.0),
        ("ipv4us", 0.0),
        ("node_ids", ["a", "b"]),
        ("last_updated", at),
        ("active_cu", 0.0),
        ("active_su", 0.0),
        ("active_ipv4", 0.0),
        ("empty_at", NEVER),
        ("customer_tid", 7),
        ("sponsor_tid", 8),
        ("active_workload_ids", []),
    ]
    record = explorer.database["pool-daemon-events"].find_one({"pool_id": pool.pool_id})
    assert record is not None
    assert (record["kind"], record["by"], record["reason"], record["customer_tid"]) == (
        "created",
        "me@here",
        "a ticket",
        7,
    )
    assert record["before"] is None
    assert record["after"]["cus"] == 60.0


async def test_a_top_up_deducts_the_use_so_far_and_moves_the_end(edits: MakeEdits, explorer: Explorer) -> None:
    bought = explorer.buy(Rates(1000 * CONTAINER.rates.cu, 1e12), [CONTAINER], bought_at=now() - 600)
    at = now()
    edit = await edits().top_up(bought.pool_id, (500 * CONTAINER.rates.cu, 0.0, 0.0), at)
    stored = explorer.stored(explorer.pools, bought.pool_id)
    assert stored["empty_at"] == edit.after.empty_at == bought.empty_at + 500
    assert stored["last_updated"] == at
    assert edit.before is not None
    assert edit.before.empty_at == bought.empty_at


async def test_an_older_pool_gets_the_fields_that_a_top_up_needs(edits: MakeEdits, explorer: Explorer) -> None:
    explorer.pools.insert_one({"_id": Int64(17), "customer_tid": Int64(7)})
    at = now()
    await edits().top_up(17, (0.0, 0.0, 30.0), at)
    assert explorer.stored(explorer.pools, 17)["ipv4us"] == 30.0
    assert explorer.stored(explorer.pools, 17)["last_updated"] == at


async def test_one_key_changes_a_pool_once_however_often_and_by_however_many(
    edits: MakeEdits, explorer: Explorer
) -> None:
    bought = explorer.buy(Rates(1e6, 1e12), [])
    made = await asyncio.gather(*(edits().top_up(bought.pool_id, (60.0, 0.0, 0.0), now()) for _ in range(8)))
    assert [each.repeated for each in made].count(False) == 1
    assert (await edits().top_up(bought.pool_id, (60.0, 0.0, 0.0), now())).repeated
    assert explorer.stored(explorer.pools, bought.pool_id)["cus"] == 1e6 + 60
    created = [(await edits("another").create(7, 0, ["a"], (0.0, 0.0, 0.0), now())).after.pool_id for _ in range(3)]
    assert len(set(created)) == 1
    assert explorer.pools.count_documents({}) == 2


async def test_a_counter_that_is_behind_the_pools_overwrites_none(edits: MakeEdits, explorer: Explorer) -> None:
    """As after a restore of some collections."""
    explorer.pools.insert_one(explorer.draft(Rates(1e6), []).document | {"_id": Int64(1)})
    before = explorer.bytes_of(explorer.pools, 1)
    with pytest.raises(StoreConflictError, match="pool 1 exists already: the sequence in `counters` is behind"):
        await edits().create(7, 0, ["a"], (60.0, 0.0, 0.0), now())
    assert explorer.bytes_of(explorer.pools, 1) == before
    assert (await edits().create(7, 0, ["a"], (60.0, 0.0, 0.0), now())).after.pool_id == 2
    with pytest.raises(StoreConflictError, match="a key belongs to another change"):
        await edits().create(8, 0, ["a"], (60.0, 0.0, 0.0), now())


async def test_a_pool_that_cannot_be_read_is_left_as_it_is(edits: MakeEdits, explorer: Explorer) -> None:
    for number, last_updated in enumerate(["yesterday", Int64(5)], start=1):
        document = explorer.draft(Rates(1e6), []).document
        explorer.pools.insert_one(document | {"_id": Int64(number), "last_updated": last_updated, "node_ids": "none"})
        before = explorer.bytes_of(explorer.pools, number)
        with pytest.raises(UnreadableDocumentError):
            await edits().top_up(number, (60.0, 0.0, 0.0), now())
        assert explorer.bytes_of(explorer.pools, number) == before


async def test_a_key_of_another_change_is_refused(edits: MakeEdits, explorer: Explorer) -> None:
    one, other = (explorer.buy(Rates(1e6, 1e12), []) for _ in range(2))
    await edits().top_up(one.pool_id, (60.0, 0.0, 0.0), now())
    for change in (
        edits().top_up(one.pool_id, (61.0, 0.0, 0.0), now()),
        edits().top_up(other.pool_id, (60.0, 0.0, 0.0), now()),
        edits().add_nodes(one.pool_id, ["b"], now()),
    ):
        with pytest.raises(StoreConflictError, match="a key belongs to another change; choose a new one"):
            await change
    assert explorer.stored(explorer.pools, other.pool_id)["cus"] == 1e6


async def test_no_top_up_is_lost_beside_an_explorer_that_changes_the_pool_all_the_time(
    edits: MakeEdits, explorer: Explorer
) -> None:
    """What the explorer has overwritten is told, and done again; what it has added is never overwritten."""
    pool = explorer.buy(Rates(0, 1e12), [])
    credited = 0
    with Rewriting(explorer, pool.pool_id) as theirs:
        for number in range(RACES):
            ours = edits(f"key {number}")
            edit = await ours.top_up(pool.pool_id, (1000.0, 0.0, 0.0), now())
            await theirs.until_it_has_written_twice()
            credited += await ours.stands(edit, now())
    stored = explorer.stored(explorer.pools, pool.pool_id)
    assert stored["cus"] == 1000 * credited
    assert stored["sus"] == 1e12 + theirs.added
    assert 0 < credited < RACES


async def test_a_change_that_the_explorer_undoes_does_not_stand(edits: MakeEdits, explorer: Explorer) -> None:
    bought = explorer.buy(Rates(1e6, 1e12), [CONTAINER])
    as_read = explorer.stored(explorer.pools, bought.pool_id)
    top_up, nodes = edits(), edits("nodes")
    topped_up = await top_up.top_up(bought.pool_id, (1e6, 0.0, 0.0), now())
    grown = await nodes.add_nodes(bought.pool_id, ["b"], now())
    assert await top_up.stands(topped_up, now())
    assert await nodes.stands(grown, now())
    explorer.pools.replace_one({"_id": bought.pool_id}, as_read)
    assert not await top_up.stands(topped_up, now())
    assert not await nodes.stands(grown, now())


async def test_an_ended_pool_is_due_and_one_that_nothing_drains_has_nothing_to_end(
    edits: MakeEdits, explorer: Explorer
) -> None:
    running, idle = explorer.buy(Rates(YEAR_SECONDS, 1e12), [CONTAINER]), explorer.buy(Rates(1e6, 1e12), [])
    at = now()
    await edits().end(running.pool_id, at)
    assert explorer.stored(explorer.pools, running.pool_id)["empty_at"] == at
    with pytest.raises(CapacityError, match=f"pool {idle.pool_id}: nothing drains it"):
        await edits("another").end(idle.pool_id, at)
    with pytest.raises(PoolNotFoundError, match="pool 99: the specified pool could not be found"):
        await edits("a third").top_up(99, (1.0, 0.0, 0.0), at)
    assert explorer.database["pool-daemon-events"].count_documents({}) == 1


async def test_a_dry_run_tells_the_writes_and_makes_none(edits: MakeEdits, explorer: Explorer) -> None:
    bought = explorer.buy(Rates(1e6, 1e12), [])
    before = explorer.bytes_of(explorer.pools, bought.pool_id)
    edit = await edits(dry_run=True).top_up(bought.pool_id, (60.0, 0.0, 0.0), now())
    update, record = edit.writes
    assert (update.collection, update.query) == ("capacity-pools", {"_id": bought.pool_id})
    assert update.document["$set"]["cus"] == 1e6 + 60
    assert (record.collection, record.document["kind"]) == ("pool-daemon-events", "topped_up")
    assert (await edits(dry_run=True).create(7, 0, ["a"], (0.0, 0.0, 0.0), now())).after.pool_id == 0
    assert explorer.bytes_of(explorer.pools, bought.pool_id) == before
    assert sorted(explorer.database.list_collection_names()) == ["capacity-pools"]


CONTAINER_FIELDS = {"workload_type": CONTAINER.workload_type, **CONTAINER.fields}


async def test_a_workload_that_is_added_drains_its_pool_as_one_of_the_explorer_s(
    edits: MakeEdits, explorer: Explorer
) -> None:
    bought = explorer.buy(Rates(1000, 1e12), [CONTAINER], bought_at=now() - 100)
    at = now()
    edit = await edits().add_workload(bought.pool_id, CONTAINER_FIELDS, None, at)
    assert edit.workload_id == 1
    expected = explorer.stored(explorer.pools, bought.pool_id)
    model = dict(bought.document)
    add_workload(model, edit.workload_id, CONTAINER.rates, now=at)
    assert expected == model
    stored = explorer.stored(explorer.workloads, edit.workload_id)
    assert stored == {
        "_id": edit.workload_id,
        "workload_id": edit.workload_id,
        "node_id": bought.document["node_ids"][0],
        "pool_id": bought.pool_id,
        "customer_tid": 7,
        "next_action": 3,
        "workload_type": 1,
        **CONTAINER.fields,
    }
    assert explorer.orders.count_documents({}) == 0
    (record,) = explorer.events.find({"pool_id": bought.pool_id})
    assert (record["kind"], record["workload_id"], record["workload_type"], record["node_id"]) == (
        "workload_added",
        edit.workload_id,
        1,
        stored["node_id"],
    )
    assert await edits().stands(edit, now())


async def test_one_key_adds_one_workload_however_often_and_by_however_many(
    edits: MakeEdits, explorer: Explorer
) -> None:
    bought = explorer.buy(Rates(1e6, 1e12), [])
    add = [edits().add_workload(bought.pool_id, CONTAINER_FIELDS, None, now()) for _ in range(8)]
    made = await asyncio.gather(*add)
    assert [each.repeated for each in made].count(False) == 1
    assert len({each.workload_id for each in made}) == 1
    assert explorer.running() == 1
    assert explorer.stored(explorer.pools, bought.pool_id)["active_cu"] == CONTAINER.rates.cu
    with pytest.raises(StoreConflictError, match="a key belongs to another change"):
        await edits().add_workload(bought.pool_id, {"workload_type": 11}, None, now())


async def test_a_workload_that_is_refused_leaves_nothing_behind(edits: MakeEdits, explorer: Explorer) -> None:
    bought = explorer.buy(Rates(1e6, 1e12), [])
    homeless = explorer.buy(Rates(1e6, 1e12), [], node_ids=None)
    for number, (pool_id, fields, node, error, reason) in enumerate(
        [
            (bought.pool_id, CONTAINER_FIELDS, "elsewhere", CapacityError, "elsewhere is not among its nodes"),
            (homeless.pool_id, CONTAINER_FIELDS, None, CapacityError, "a node is not among its nodes"),
            (99, CONTAINER_FIELDS, None, PoolNotFoundError, "pool 99"),
            (bought.pool_id, {"workload_type": 3}, None, UnitsError, "workload_type 3 has no known units"),
        ]
    ):
        with pytest.raises(error, match=reason):
            await edits(f"key {number}").add_workload(pool_id, fields, node, now())
    assert explorer.workloads.count_documents({}) == explorer.events.count_documents({}) == 0
    assert explorer.stored(explorer.pools, bought.pool_id) == bought.document


async def test_a_counter_that_is_behind_the_workloads_overwrites_none(edits: MakeEdits, explorer: Explorer) -> None:
    bought = explorer.buy(Rates(1e6, 1e12), [])
    explorer.workloads.insert_one({"_id": Int64(1), "next_action": 6})
    with pytest.raises(StoreConflictError, match="workload 1 exists already: the sequence in `counters` is behind"):
        await edits().add_workload(bought.pool_id, CONTAINER_FIELDS, None, now())
    assert explorer.stored(explorer.pools, bought.pool_id) == bought.document
    assert (await edits().add_workload(bought.pool_id, CONTAINER_FIELDS, None, now())).workload_id == 2


async def test_a_workload_is_added_to_the_pool_as_it_is_beside_an_explorer_that_changes_it_all_the_time(
    edits: MakeEdits, explorer: Explorer
) -> None:
    """Its top-ups are all kept; a workload that they undo is told."""
    pool = explorer.buy(Rates(1e6, 1e12), [])
    counted = []
    with Rewriting(explorer, pool.pool_id) as theirs:
        for number in range(RACES // 3):
            ours = edits(f"key {number}")
            edit = await ours.add_workload(pool.pool_id, CONTAINER_FIELDS, None, now())
            await theirs.until_it_has_written_twice()
            if await ours.stands(edit, now()):
                counted.append(edit.workload_id)
    stored = explorer.stored(explorer.pools, pool.pool_id)
    assert stored["active_workload_ids"] == counted
    assert stored["active_cu"] == len(counted) * CONTAINER.rates.cu
    assert stored["sus"] == 1e12 + theirs.added


@pytest.fixture
def pools(mongo_uri: str, database_name: str) -> Pools:
    return Pools(mongo_uri, database_name)


def test_a_pool_is_created_topped_up_and_ended_from_the_command_line(pools: Pools, explorer: Explorer) -> None:
    created = pools.run("create", "--owner", "7", "--node", "n1", "--cu", "2x30d", "--json", "--idempotency-key", "k")
    assert created.returncode == ExitCode.OK, created.stderr
    pool = json.loads(created.stdout)["pool"]
    assert (pool["cus"], pool["customer_tid"], pool["node_ids"]) == (2 * 30 * 86_400.0, 7, ["n1"])
    pool_id = str(pool["pool_id"])

    topped_up = pools.run("top-up", pool_id, "--su", "0.5x12h", "--reason", "a ticket")
    assert topped_up.returncode == ExitCode.OK, topped_up.stderr
    assert topped_up.stdout.startswith(f"pool {pool_id}: done; it has 5.18M CU seconds, 21.6k SU seconds")
    assert explorer.stored(explorer.pools, int(pool_id))["sus"] == 21_600.0

    again = pools.run("create", "--owner", "7", "--node", "n1", "--cu", "2x30d", "--idempotency-key", "k")
    assert again.returncode == ExitCode.OK
    assert again.stdout.startswith(f"pool {pool_id}: this was done before; now it has 5.18M CU seconds")

    refused = pools.run("end", pool_id)
    assert (refused.returncode, refused.stdout) == (ExitCode.FAILED, "")
    assert "nothing changed; --yes does it without asking" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["top-up", "17"], "name what to add: --cu, --su or --ipv4"),
        (["top-up", "17", "--cu", "2"], "must be units for a duration, such as 2x30d or 0.5x12h"),
        (["top-up", "17", "--cu", "0x30d"], "must be units for a duration"),
        (["top-up", "17", "--cu", "2x30y"], "must be a duration"),
        (["create", "--owner", "7", "--node", "a\nb"], "must be one line of 1 to 500 printable characters"),
        (["create", "--node", "a"], "the following arguments are required: --owner"),
    ],
)
def test_a_change_that_makes_no_sense_is_a_usage_error(pools: Pools, arguments: list[str], reason: str) -> None:
    refused = pools.run(*arguments)
    assert refused.returncode == ExitCode.USAGE
    assert reason in refused.stderr
