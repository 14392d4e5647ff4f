"""What a running daemon writes, to the byte, and what it leaves alone."""

import time
from datetime import UTC, datetime
from typing import Any

import pytest
from arithmetic_model import Document, Rates, sync
from bson import Binary, Decimal128, Int64, ObjectId, Regex, Timestamp, encode
from deadline import wait_until
from explorer import (
    CONTAINER,
    FREE,
    MISSING,
    PLENTY,
    PUBLIC_IP,
    VIRTUAL_MACHINE,
    VOLUME,
    ZDB,
    Explorer,
    Kind,
)
from ledger import DELETE, Ledger
from oplog import Oplog
from pymongo import MongoClient

from pool_daemon import __version__
from pool_daemon.store.records import NUMBERS

pytestmark = pytest.mark.usefixtures("daemon")

AT_ONCE_SECONDS = 10
"""Patience of a slow machine: what is not done at once waits for a minute."""


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

    assert explorer.only_event(pool)["resources"] == resources


def test_a_take_over_is_recorded_beside_it(explorer: Explorer) -> None:
    found = {"kind": "took_over"}
    wait_until(lambda: explorer.events.find_one(found), within_seconds=AT_ONCE_SECONDS, what="its record")
    (record,) = explorer.events.find(found, {"_id": 0, "at": 0, "by": 0, "pass": 0})
    assert record == {
        "schema": 1,
        "kind": "took_over",
        "actor": "daemon",
        "version": __version__,
        "term": 1,
        "reason": "the lease was unclaimed",
    }


def test_an_event_says_what_went_where_when_and_why(explorer: Explorer, ledger: Ledger) -> None:
    pool = explorer.buy_expired(CONTAINER)
    (workload_id,) = pool.workload_ids

    ledger.wait_for_decommissions(pool.workload_ids, within_seconds=AT_ONCE_SECONDS)

    event = explorer.only_event(pool)
    assert isinstance(event.pop("_id"), ObjectId)
    at = event.pop("decommissioned_at")
    assert isinstance(at, datetime)
    assert event.pop("at") == at
    assert event.pop("by")
    assert event.pop("pass") >= 1
    assert event == {
        "kind": "decommissioned",
        "workload_id": workload_id,
        "pool_id": pool.pool_id,
        "customer_tid": 7,
        "workload_type": 1,
        "node_id": "2fi9ZZiBGW4G9pnrN656bMfW6x55RSoHDeMrd9pgSA8T",
        "resources": ["cu"],
        "reason": "resource exhausted",
        "empty_at": pool.empty_at,
        "schema": 1,
        "actor": "daemon",
        "version": __version__,
        "term": 1,
        "before": {name: pool.document[name] for name in NUMBERS},
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


def test_no_documents_but_those_of_the_transition_are_written(
    explorer: Explorer, ledger: Ledger, mongo: MongoClient[Document]
) -> None:
    oplog = Oplog(client=mongo, database_name=explorer.database.name)
    pool = explorer.buy_expired(CONTAINER, *FREE)
    ledger.wait_for_decommissions(pool.workload_ids[:1], within_seconds=AT_ONCE_SECONDS)
    (written,) = [
        documents
        for commit in oplog.commits()
        if ("workqueue", pool.workload_ids[0])
        in (documents := {(change.collection, change.document_id) for change in commit.changes})
    ]

    workload_id = pool.workload_ids[0]
    assert written == {
        ("capacity-pools", pool.pool_id),
        ("workload", workload_id),
        ("workqueue", workload_id),
        ("pool-daemon-events", explorer.only_event(pool)["_id"]),
    }


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
