"""What a running daemon does to pools and workloads, judged from the database alone."""

import time
from datetime import UTC, datetime
from typing import Any

import pytest
from arithmetic_model import Document, Rates, sync
from bson import Binary, Decimal128, Int64, ObjectId, Regex, Timestamp, encode
from daemon_process import DaemonProcess
from deadline import wait_until
from explorer import (
    CONTAINER,
    FREE,
    MISSING,
    PLENTY,
    PUBLIC_IP,
    VIRTUAL_MACHINE,
    VOLUME,
    YEAR_SECONDS,
    ZDB,
    Explorer,
    Kind,
    Purchase,
)
from ledger import DELETE, Ledger
from pymongo import MongoClient

pytestmark = pytest.mark.usefixtures("daemon")

AT_ONCE_SECONDS = 2


def test_a_pool_with_a_fractional_end_goes_within_a_second_of_it(explorer: Explorer, ledger: Ledger) -> None:
    pool = explorer.buy(Rates(cu=2.7), [CONTAINER])

    (gone,) = ledger.wait_for_decommissions(pool.workload_ids, within_seconds=5)

    assert pool.empty_at <= gone.committed_at < pool.empty_at + 1
    event = only_event(explorer, pool)
    decided_at = event["decommissioned_at"].replace(tzinfo=UTC).timestamp()
    assert pool.empty_at <= decided_at <= gone.committed_at + 0.001


def test_a_pool_topped_up_50_ms_before_its_end_keeps_every_workload(explorer: Explorer, ledger: Ledger) -> None:
    pool = topped_up_in_time(explorer, ledger)

    witness(explorer, ledger, pool.empty_at + 1)

    assert_untouched(explorer, pool.workload_ids)


def test_a_pool_shortened_from_next_year_goes_at_its_new_end(explorer: Explorer, ledger: Ledger) -> None:
    pool = explorer.buy(Rates(cu=YEAR_SECONDS), [CONTAINER])

    explorer.shorten(pool.pool_id, Rates(cu=2.5))
    (gone,) = ledger.wait_for_decommissions(pool.workload_ids, within_seconds=5)

    empty_at = gone.pool["empty_at"]
    assert empty_at < pool.empty_at
    assert empty_at <= gone.committed_at < empty_at + 1


def test_a_pool_inserted_already_expired_goes_at_once(explorer: Explorer, ledger: Ledger) -> None:
    inserted_at = ledger.now()
    pool = explorer.buy_expired(CONTAINER)

    (gone,) = ledger.wait_for_decommissions(pool.workload_ids, within_seconds=5)

    assert gone.committed_at < inserted_at + 1


def test_free_workloads_outlive_their_pool(explorer: Explorer, ledger: Ledger) -> None:
    pool = explorer.buy_expired(CONTAINER, *FREE)
    container, *free = pool.workload_ids

    ledger.wait_for_decommissions([container], within_seconds=AT_ONCE_SECONDS)
    witness(explorer, ledger)

    assert_untouched(explorer, free)


def test_a_workload_goes_when_its_own_resource_runs_out(explorer: Explorer, ledger: Ledger) -> None:
    """Nobody ever updates the pool: the nodes do not answer, so what had to go first keeps counting."""
    pool = explorer.buy(Rates(cu=1.5, su=3.5), [CONTAINER, VOLUME])
    bought_at = pool.empty_at - 1

    container, volume = ledger.wait_for_decommissions(pool.workload_ids, within_seconds=8)

    assert bought_at + 1 <= container.committed_at < bought_at + 2
    assert bought_at + 3 <= volume.committed_at < bought_at + 4


@pytest.mark.parametrize(
    ("kind", "amounts", "resources"),
    [
        pytest.param(VIRTUAL_MACHINE, Rates(PLENTY, 0.1, PLENTY), ["su"], id="su"),
        pytest.param(VIRTUAL_MACHINE, Rates(0.4, PLENTY, PLENTY), ["cu"], id="cu"),
        pytest.param(VIRTUAL_MACHINE, Rates(0.4, 0.1, PLENTY), ["cu", "su"], id="cu and su"),
        pytest.param(PUBLIC_IP, Rates(0, 0, 0.5), ["ipv4u"], id="ipv4u"),
        pytest.param(ZDB, Rates(0, 0.5, 0), ["su"], id="zdb"),
    ],
)
def test_an_event_names_the_exhausted_resources_that_the_workload_uses(
    explorer: Explorer, ledger: Ledger, kind: Kind, amounts: Rates, resources: list[str]
) -> None:
    pool = explorer.buy(amounts, [kind, *FREE], bought_at=int(time.time()) - 60)

    ledger.wait_for_decommissions(pool.workload_ids[:1], within_seconds=AT_ONCE_SECONDS)

    assert only_event(explorer, pool)["resources"] == resources


def test_an_event_says_what_went_where_when_and_why(explorer: Explorer, ledger: Ledger) -> None:
    pool = explorer.buy_expired(CONTAINER)
    (workload_id,) = pool.workload_ids

    ledger.wait_for_decommissions(pool.workload_ids, within_seconds=AT_ONCE_SECONDS)

    event = only_event(explorer, pool)
    assert isinstance(event.pop("decommissioned_at"), datetime)
    assert event.pop("by")
    assert event == {
        "_id": f"{workload_id}/{pool.pool_id}/{pool.empty_at}",
        "kind": "decommissioned",
        "workload_id": workload_id,
        "pool_id": pool.pool_id,
        "customer_tid": 7,
        "workload_type": 1,
        "node_id": "2fi9ZZiBGW4G9pnrN656bMfW6x55RSoHDeMrd9pgSA8T",
        "resources": ["cu"],
        "reason": "resource exhausted",
        "empty_at": pool.empty_at,
    }
    int64s = {name for name, value in event.items() if isinstance(value, Int64)}
    assert int64s >= {"workload_id", "pool_id", "customer_tid", "empty_at"}


def test_an_order_copies_its_workload_byte_for_byte(explorer: Explorer, ledger: Ledger) -> None:
    pool = explorer.buy_expired(CONTAINER, next_action=6)
    workload = explorer.new_workload(pool.pool_id, CONTAINER, **every_type_of_field())
    explorer.workloads.insert_one(workload)
    before = explorer.bytes_of(explorer.workloads, workload["_id"])

    ledger.wait_for_decommissions([workload["_id"]], within_seconds=AT_ONCE_SECONDS)

    assert before
    expected = before.replace(b"\x10next_action\x00\x03", b"\x10next_action\x00\x04")
    assert explorer.bytes_of(explorer.workloads, workload["_id"]) == expected
    assert explorer.bytes_of(explorer.orders, workload["_id"]) == expected


def test_an_order_replaces_one_that_the_node_has_not_taken_yet(explorer: Explorer, ledger: Ledger) -> None:
    pool = explorer.buy_expired(CONTAINER, next_action=6)
    workload = explorer.new_workload(pool.pool_id, CONTAINER)
    explorer.orders.insert_one({"_id": workload["_id"], "next_action": 3, "left_over": True})
    explorer.workloads.insert_one(workload)

    ledger.wait_for_decommissions([workload["_id"]], within_seconds=AT_ONCE_SECONDS)

    order = explorer.bytes_of(explorer.orders, workload["_id"])
    assert order == encode(workload | {"next_action": DELETE})


def test_nothing_of_a_pool_changes_but_its_synced_capacity(explorer: Explorer, ledger: Ledger) -> None:
    pool = explorer.buy(
        Rates(cu=60.1337, su=1000.7, ipv4u=PLENTY / 3),
        [VIRTUAL_MACHINE, CONTAINER, VOLUME, PUBLIC_IP],
        bought_at=int(time.time()) - 60,
        note={"of": ["another", "writer"], "at": Timestamp(1, 1)},
        small=3,
    )

    ledger.wait_for_decommissions(pool.workload_ids[:2], within_seconds=AT_ONCE_SECONDS)

    after = explorer.pools.find_one({"_id": pool.pool_id}) or {}
    assert pool.empty_at <= after["last_updated"] <= ledger.now()
    expected = dict(pool.document)
    sync(expected, after["last_updated"])
    expected["last_updated"] = Int64(after["last_updated"])
    assert explorer.bytes_of(explorer.pools, pool.pool_id) == encode(expected)


def test_a_leniently_written_pool_is_read_and_its_capacity_written_exactly(explorer: Explorer, ledger: Ledger) -> None:
    """Whole numbers of any type, arrays that are null or missing: nothing that a pool needs is lost."""
    now = int(time.time())
    lenient: Document = {"last_updated": now - 100, "cus": 60, "sus": 7, "node_ids": None}
    pool = explorer.buy_expired(CONTAINER, **lenient, active_workload_ids=MISSING)

    ledger.wait_for_decommissions(pool.workload_ids, within_seconds=AT_ONCE_SECONDS)

    after = explorer.pools.find_one({"_id": pool.pool_id}) or {}
    assert (after["cus"], after["sus"], after["node_ids"]) == (0.0, 7.0, None)
    assert isinstance(after["cus"], float)
    assert isinstance(after["sus"], float)
    assert isinstance(after["last_updated"], Int64)
    assert "active_workload_ids" not in after


def test_a_workload_goes_though_its_pool_does_not_list_it(explorer: Explorer, ledger: Ledger) -> None:
    pool = explorer.buy_expired(CONTAINER, active_workload_ids=None)

    ledger.wait_for_decommissions(pool.workload_ids, within_seconds=AT_ONCE_SECONDS)

    assert (explorer.pools.find_one({"_id": pool.pool_id}) or {})["active_workload_ids"] is None


def test_a_clock_that_stepped_back_credits_no_capacity(explorer: Explorer, ledger: Ledger) -> None:
    tomorrow = Int64(int(time.time()) + 86_400)
    pool = explorer.buy_expired(CONTAINER, next_action=1, last_updated=tomorrow)

    explorer.deploy(pool.workload_ids[0])
    ledger.wait_for_decommissions(pool.workload_ids, within_seconds=AT_ONCE_SECONDS)

    assert explorer.bytes_of(explorer.pools, pool.pool_id) == encode(pool.document)


def test_a_workload_stays_while_its_resource_lasts_whatever_empty_at_says(explorer: Explorer, ledger: Ledger) -> None:
    pool = explorer.buy(Rates(cu=PLENTY), [CONTAINER], empty_at=Int64(int(time.time()) - 60))

    witness(explorer, ledger)

    assert_untouched(explorer, pool.workload_ids)


@pytest.mark.parametrize("next_action", [0, 1, 2, 4, 5, 6, 7])
def test_a_workload_that_does_not_run_is_never_touched(explorer: Explorer, ledger: Ledger, next_action: int) -> None:
    pool = explorer.buy_expired(CONTAINER, next_action=next_action)
    running = explorer.new_workload(pool.pool_id, CONTAINER)
    explorer.workloads.insert_one(running)

    ledger.wait_for_decommissions([running["_id"]], within_seconds=AT_ONCE_SECONDS)
    witness(explorer, ledger)

    assert_untouched(explorer, pool.workload_ids, next_action=next_action)


def test_a_workload_inserted_into_an_expired_pool_goes_soon(explorer: Explorer, ledger: Ledger) -> None:
    pool = explorer.buy_expired(CONTAINER, next_action=6)
    witness(explorer, ledger)

    late = explorer.new_workload(pool.pool_id, CONTAINER)
    inserted_at = ledger.now()
    explorer.workloads.insert_one(late)
    (gone,) = ledger.wait_for_decommissions([late["_id"]], within_seconds=5)

    assert gone.committed_at < inserted_at + 2


def test_a_workload_deployed_in_an_expired_pool_goes_soon(explorer: Explorer, ledger: Ledger) -> None:
    pool = explorer.buy_expired(CONTAINER, next_action=1)
    witness(explorer, ledger)

    deployed_at = ledger.now()
    explorer.deploy(pool.workload_ids[0])
    (gone,) = ledger.wait_for_decommissions(pool.workload_ids, within_seconds=5)

    assert gone.committed_at < deployed_at + 2


def test_a_workload_goes_again_when_it_is_deployed_again(explorer: Explorer, ledger: Ledger) -> None:
    """Each transition has its order and its event: the second does not hide behind the first."""
    pool = explorer.buy(Rates(cu=0.5), [CONTAINER], bought_at=int(time.time()) - 60)
    (workload_id,) = pool.workload_ids
    ledger.wait_for_decommissions(pool.workload_ids, within_seconds=AT_ONCE_SECONDS)
    explorer.orders.delete_one({"_id": workload_id})
    explorer.workloads.update_one({"_id": workload_id}, {"$set": {"next_action": 6}})

    explorer.top_up(pool.pool_id, Rates(cu=1.5))
    again_empty_at = (explorer.pools.find_one({"_id": pool.pool_id}) or {})["empty_at"]
    explorer.deploy(workload_id)
    wait_until(
        lambda: explorer.orders.find_one({"_id": workload_id}),
        within_seconds=5,
        what="a second order",
    )

    ends = {event["empty_at"] for event in explorer.events.find({"workload_id": workload_id})}
    assert ends == {pool.empty_at, again_empty_at}


def test_only_the_named_collections_are_written(
    explorer: Explorer, ledger: Ledger, mongo: MongoClient[Document]
) -> None:
    others = ("user", "counters", "capacity-reservations", "farm", "gateway")
    for name in others:
        explorer.database[name].insert_one({"_id": 7, "sequence": Int64(3), "pubkey": "ab", "other": None})
    before = {name: explorer.contents(name) for name in others}
    databases_before = set(mongo.list_database_names())

    pool = explorer.buy_expired(CONTAINER, VOLUME, *FREE)
    ledger.wait_for_decommissions(pool.workload_ids[:2], within_seconds=AT_ONCE_SECONDS)

    assert {name: explorer.contents(name) for name in others} == before
    written = set(explorer.database.list_collection_names()) - set(others)
    ours = {name for name in written if name.startswith("pool-daemon-")}
    assert written - ours <= {"capacity-pools", "workload", "workqueue"}
    assert set(mongo.list_database_names()) <= databases_before | {explorer.database.name}


def test_no_documents_but_those_of_the_transition_are_written(explorer: Explorer, ledger: Ledger) -> None:
    pool = explorer.buy_expired(CONTAINER, *FREE)
    (gone,) = ledger.wait_for_decommissions(pool.workload_ids[:1], within_seconds=AT_ONCE_SECONDS)

    written = {(change.collection, change.document_id) for change in gone.commit.changes}

    workload_id = pool.workload_ids[0]
    assert written == {
        ("capacity-pools", pool.pool_id),
        ("workload", workload_id),
        ("workqueue", workload_id),
        ("pool-daemon-events", f"{workload_id}/{pool.pool_id}/{pool.empty_at}"),
    }


def test_a_daemon_that_has_nothing_to_do_is_idle(explorer: Explorer, ledger: Ledger, daemon: DaemonProcess) -> None:
    """Overdue pools that nobody repairs must not keep it busy."""
    explorer.buy(Rates(cu=PLENTY), [CONTAINER], empty_at=Int64(int(time.time()) - 60))
    explorer.buy_expired(CONTAINER, next_action=6)
    explorer.buy_expired(*FREE)
    witness(explorer, ledger)
    used_before, began_at = daemon.cpu_seconds(), time.monotonic()

    witness(explorer, ledger, int(time.time()) + 2)

    assert daemon.cpu_seconds() - used_before < 0.25 * (time.monotonic() - began_at)


def only_event(explorer: Explorer, pool: Purchase) -> Document:
    events = list(explorer.events.find({"pool_id": pool.pool_id}))
    assert len(events) == 1, events
    return events[0]


def assert_untouched(explorer: Explorer, workload_ids: list[int], *, next_action: int = 3) -> None:
    assert explorer.next_actions(workload_ids) == [next_action] * len(workload_ids)
    assert list(explorer.orders.find({"_id": {"$in": workload_ids}})) == []
    assert list(explorer.events.find({"workload_id": {"$in": workload_ids}})) == []


def witness(explorer: Explorer, ledger: Ledger, empty_at: int | None = None) -> None:
    """Return when the daemon has dealt with everything that was due before now, or before `empty_at`."""
    if empty_at is None:
        pool = explorer.buy_expired(CONTAINER)
        ledger.wait_for_decommissions(pool.workload_ids, within_seconds=AT_ONCE_SECONDS)
    else:
        seconds = empty_at - int(time.time())
        pool = explorer.buy(Rates(cu=seconds + 0.5), [CONTAINER])
        ledger.wait_for_decommissions(pool.workload_ids, within_seconds=seconds + AT_ONCE_SECONDS)


def topped_up_in_time(explorer: Explorer, ledger: Ledger) -> Purchase:
    """Top a pool up 50 ms before its end; on a machine that was too slow for that, another."""
    for _ in range(5):
        pool = explorer.buy(Rates(cu=1.5, su=1.5, ipv4u=1.5), [CONTAINER, VOLUME, PUBLIC_IP, *FREE])
        plenty = Rates(YEAR_SECONDS, YEAR_SECONDS, YEAR_SECONDS)
        explorer.top_up(pool.pool_id, plenty, not_before=pool.empty_at - 0.05)
        top_up = ledger.read().top_ups[-1]
        if top_up.committed_at < pool.empty_at:
            return pool
    raise AssertionError("no top-up came in time")


def every_type_of_field() -> Document:
    """Make fields of every type that BSON knows, named as no driver likes to have them named."""
    values: list[Any] = [
        None,
        True,
        7,
        Int64(7),
        7.0,
        -0.0,
        float("nan"),
        Decimal128("7.00"),
        "seven",
        b"seven",
        Binary(b"seven", 5),
        ObjectId("5f0f0f0f0f0f0f0f0f0f0f0f"),
        Regex("^7", "i"),
        Timestamp(7, 7),
        datetime(1, 1, 1, tzinfo=UTC),
        [],
        {},
    ]
    return {
        "zulu": dict(zip("zyxwvutsrqponmlkj", values, strict=True)),
        "alpha": [values, {"b": {"a": Int64(1), "A": 1}}],
        "environment": {"dotted.name": "1", "$HOME": "/root", "": "empty"},
        "volumes": None,
    }
