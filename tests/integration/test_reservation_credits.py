"""What `reservations apply` credits: once, with the workloads that waited, and not what the explorer credits itself."""

import asyncio
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from arithmetic_model import Document, Rates
from bson import Int64
from explorer import CONTAINER, FREE, VOLUME, Explorer
from indexes import build_indexes
from pymongo import MongoClient
from reservations_command import CUSTOMER_TID, NODE, SPONSOR_TID, Reservations, add_users, saved
from rewriting import Rewriting

from pool_daemon.commands import reservations_write
from pool_daemon.errors import (
    CapacityError,
    ExitCode,
    PoolNotFoundError,
    ReservationError,
    UnreadableDocumentError,
    VerificationError,
)
from pool_daemon.store import deployments
from pool_daemon.store.client import Database
from pool_daemon.store.pool_changes import Author
from pool_daemon.store.pool_edits import PoolEdits
from pool_daemon.store.reservation_credits import ReservationCredits, Terms

RACES = 40

AMOUNTS = {"cus": 3600, "sus": 60, "ipv4us": 5}

MakeCredits = Callable[..., ReservationCredits]


@pytest.fixture
def explorer(mongo: MongoClient[dict[str, Any]], database_name: str) -> Explorer:
    explorer = Explorer(database=mongo[database_name])
    add_users(explorer.database)
    return explorer


@pytest.fixture
def credit(database: Database) -> MakeCredits:
    def credit(key: str = "a key", *, dry_run: bool = False) -> ReservationCredits:
        author = Author(identity="me@here", version="1", key=key, reason="a ticket")
        return ReservationCredits(database=database, author=author, dry_run=dry_run)

    return credit


@pytest.fixture
def reservations(mongo_uri: str, database_name: str, monkeypatch: pytest.MonkeyPatch) -> Reservations:
    monkeypatch.setattr(reservations_write, "STANDS_SECONDS", 0.0)
    return Reservations(mongo_uri, database_name)


def terms(**changes: Any) -> Terms:
    return Terms(**{"now": int(time.time())} | changes)


def order(explorer: Explorer, reservation_id: int = 17, **data: Any) -> None:
    """Save a reservation as the explorer does."""
    explorer.database["capacity-reservations"].insert_one(saved(reservation_id, **AMOUNTS | data))


def amounts(explorer: Explorer, pool_id: int) -> tuple[float, float, float]:
    pool = explorer.stored(explorer.pools, pool_id)
    return pool["cus"], pool["sus"], pool["ipv4us"]


async def test_a_credit_is_what_the_explorer_would_have_written(credit: MakeCredits, explorer: Explorer) -> None:
    bought = explorer.buy(Rates(1000 * CONTAINER.rates.cu, 1e12), [CONTAINER], bought_at=int(time.time()) - 600)
    order(explorer, pool_id=bought.pool_id, node_ids=["new", NODE])
    at = terms()
    made = await credit().apply(17, at)
    pool = explorer.stored(explorer.pools, bought.pool_id)
    assert pool["empty_at"] == bought.empty_at + 3600
    assert (pool["sus"], pool["ipv4us"], pool["last_updated"]) == (1e12 + 60, 5.0, at.now)
    assert pool["node_ids"] == ["new", NODE]
    assert made.edit is not None
    assert made.edit.after.empty_at == pool["empty_at"]
    (record,) = explorer.database["pool-daemon-applied"].find()
    assert (record["_id"], record["pool_id"], record["by"], record["reason"]) == (
        17,
        bought.pool_id,
        "me@here",
        "a ticket",
    )
    (event,) = explorer.events.find()
    assert (event["kind"], event["reservation_id"], event["amounts"]) == ("applied", 17, [3600.0, 60.0, 5.0])
    assert event["nodes"] == ["new"]
    assert (event["before"]["sus"], event["after"]["sus"]) == (1e12, 1e12 + 60)


async def test_a_new_pool_is_credited_under_the_reservations_id_and_keeps_nodes_that_came_since(
    credit: MakeCredits, explorer: Explorer
) -> None:
    explorer.pools.insert_one(explorer.draft(Rates(), [], node_ids=["since", NODE]).document | {"_id": Int64(17)})
    order(explorer)
    await credit().apply(17, terms())
    assert amounts(explorer, 17) == (3600.0, 60.0, 5.0)
    assert explorer.stored(explorer.pools, 17)["node_ids"] == [NODE, "since"]


async def test_a_reservation_is_credited_once_however_often_and_by_however_many(
    credit: MakeCredits, explorer: Explorer, mongo_uri: str, database_name: str
) -> None:
    await asyncio.to_thread(build_indexes, mongo_uri, database_name)
    pool = explorer.buy(Rates(), [])
    order(explorer, pool_id=pool.pool_id)
    made = await asyncio.gather(*(credit(f"key {number}").apply(17, terms()) for number in range(8)))
    assert [each.applied is None for each in made].count(True) == 1
    again = await credit("one more").apply(17, terms())
    assert again.applied is not None
    assert (again.applied.by, again.applied.reason) == ("me@here", "a ticket")
    assert amounts(explorer, pool.pool_id) == (3600.0, 60.0, 5.0)
    assert explorer.events.count_documents({}) == 1


async def test_workloads_that_wait_are_deployed_and_their_orders_are_copies_of_them(
    credit: MakeCredits, explorer: Explorer
) -> None:
    waiting = explorer.buy(Rates(), [CONTAINER, VOLUME, FREE[0]], next_action=2)
    elsewhere = explorer.buy(Rates(), [CONTAINER], next_action=2)
    odd = explorer.new_workload(waiting.pool_id, CONTAINER, next_action=2, **{"$odd": 1.5, "large": "x" * 9_000_000})
    signing = explorer.new_workload(waiting.pool_id, CONTAINER, next_action=1)
    explorer.workloads.insert_many([odd, signing])
    explorer.orders.insert_one({"_id": waiting.workload_ids[0], "next_action": 4})
    order(explorer, pool_id=waiting.pool_id)

    made = await credit().apply(17, terms())

    gone = [*waiting.workload_ids, odd["_id"]]
    assert made.workloads == 4
    assert explorer.next_actions(gone) == [3] * 4
    assert explorer.next_actions([signing["_id"], *elsewhere.workload_ids]) == [2, 1]
    assert explorer.bytes_by_id("workqueue") == {each: explorer.bytes_of(explorer.workloads, each) for each in gone}


@pytest.mark.parametrize(("number", "size"), [(5, 10), (2, 3000)])
async def test_more_workloads_than_one_transaction_can_deploy_are_refused_with_the_remedy(
    credit: MakeCredits, explorer: Explorer, monkeypatch: pytest.MonkeyPatch, number: int, size: int
) -> None:
    monkeypatch.setattr(deployments, "MOST_WORKLOADS", 4)
    monkeypatch.setattr(deployments, "MOST_BYTES", 5000)
    pool = explorer.buy(Rates(), [], node_ids=[NODE])
    explorer.workloads.insert_many(
        explorer.new_workload(pool.pool_id, CONTAINER, next_action=2, description="x" * size) for _ in range(number)
    )
    order(explorer, pool_id=pool.pool_id)
    with pytest.raises(CapacityError, match=r"more workloads wait for payment .*; --without-workloads credits"):
        await credit().apply(17, terms())
    assert amounts(explorer, pool.pool_id) == (0.0, 0.0, 0.0)
    assert explorer.database["pool-daemon-applied"].count_documents({}) == 0
    await credit().apply(17, terms(with_workloads=False))
    assert amounts(explorer, pool.pool_id) == (3600.0, 60.0, 5.0)
    assert explorer.workloads.count_documents({"next_action": 2}) == number


FUTURE, PAST = (datetime(year, 1, 1, tzinfo=UTC) for year in (2126, 2001))


@pytest.mark.parametrize(
    ("escrow", "reason"),
    [
        ({"expiration": FUTURE}, "the explorer credits it as soon as it is paid"),
        ({"expiration": int(FUTURE.timestamp())}, "the explorer credits it as soon as it is paid"),
        ({"expiration": "tomorrow"}, "the explorer credits it as soon as it is paid"),
        ({}, "the explorer credits it as soon as it is paid"),
        ({"paid": True, "expiration": PAST}, "it is paid, so the explorer has credited it or is about to"),
        ({"paid": True, "released": True}, "it is paid, so the explorer has credited it or is about to"),
        ({"paid": True, "canceled": True}, "it is paid, so the explorer has credited it or is about to"),
        ({"canceled": True, "expiration": FUTURE}, None),
        ({"cancellation_pending": True, "expiration": FUTURE}, None),
        ({"expiration": PAST}, None),
        ({"expiration": Int64(int(PAST.timestamp()))}, None),
    ],
    ids=str,
)
async def test_what_the_explorer_credits_is_not_credited_unless_somebody_insists(
    credit: MakeCredits, explorer: Explorer, escrow: Document, reason: str | None
) -> None:
    pool = explorer.buy(Rates(), [])
    order(explorer, pool_id=pool.pool_id)
    explorer.database["capacity-escrow"].insert_one({"_id": Int64(17), "paid": False, **escrow})
    if reason is not None:
        with pytest.raises(CapacityError, match=f"reservation 17: {reason}; .*--although-escrow"):
            await credit().apply(17, terms())
        assert amounts(explorer, pool.pool_id) == (0.0, 0.0, 0.0)
        assert explorer.database["pool-daemon-applied"].count_documents({}) == 0
    await credit().apply(17, terms(although_escrow=reason is not None))
    assert amounts(explorer, pool.pool_id) == (3600.0, 60.0, 5.0)


async def test_a_workload_or_a_pool_that_changes_meanwhile_is_read_again(
    credit: MakeCredits, explorer: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = explorer.buy(Rates(su=1.0), [CONTAINER], next_action=2)
    order(explorer, pool_id=pool.pool_id)
    found = deployments.Deployments.waiting
    interferences = [
        lambda: explorer.workloads.update_many({}, {"$set": {"next_action": 4}}),
        lambda: None,
    ]

    async def waiting(self: Any, *arguments: Any) -> Any:
        waits = await found(self, *arguments)
        if interferences:
            await asyncio.to_thread(interferences.pop(0))
        return waits

    monkeypatch.setattr(deployments.Deployments, "waiting", waiting)
    made = await credit().apply(17, terms())
    assert made.workloads == 0
    assert explorer.next_actions(pool.workload_ids) == [4]
    assert explorer.orders.count_documents({}) == 0
    assert amounts(explorer, pool.pool_id)[0] == 3600.0


async def test_no_credit_is_lost_beside_an_explorer_that_changes_the_pool_all_the_time(
    credit: MakeCredits, explorer: Explorer, database: Database
) -> None:
    """What the explorer has overwritten is told; what it has added itself is never undone."""
    pool = explorer.buy(Rates(), [])
    edits = PoolEdits(database=database, author=Author(identity="me@here", version="1", key="a key"))
    for number in range(RACES):
        order(explorer, number, pool_id=pool.pool_id)
    credited = 0
    with Rewriting(explorer, pool.pool_id) as explorers:
        for number in range(RACES):
            made = await credit(f"key {number}").apply(number, terms())
            assert made.edit is not None
            await explorers.until_it_has_written_twice()
            credited += await edits.stands(made.edit, int(time.time()))
    cus, sus, ipv4us = amounts(explorer, pool.pool_id)
    assert (cus, ipv4us) == (3600.0 * credited, 5.0 * credited)
    assert sus == 60.0 * credited + explorers.added
    assert 0 < credited < RACES


async def test_what_cannot_be_read_or_is_missing_is_credited_nowhere(credit: MakeCredits, explorer: Explorer) -> None:
    order(explorer)
    with pytest.raises(PoolNotFoundError, match="pool 17 of reservation 17 could not be found"):
        await credit().apply(17, terms())
    explorer.pools.insert_one(explorer.draft(Rates(), [], cus="much").document | {"_id": Int64(17)})
    with pytest.raises(UnreadableDocumentError):
        await credit().apply(17, terms())
    explorer.database["capacity-reservations"].insert_one(saved(18) | {"json": "{}"})
    with pytest.raises(ReservationError, match="json and data_reservation differ"):
        await credit().apply(18, terms())
    assert explorer.database["pool-daemon-applied"].count_documents({}) == 0


OTHER_KEY = {"pubkey": "ab" * 32}


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ({"user": (CUSTOMER_TID, OTHER_KEY)}, "customer's signature: customer's signature does not hold"),
        ({"user": (SPONSOR_TID, OTHER_KEY)}, "sponsor's signature: sponsor's signature does not hold"),
        ({"user": (CUSTOMER_TID, {"pubkey": None})}, "customer's signature: customer's public key has 0 bytes, not 32"),
        ({"fields": {"customer_signature": "ab" * 64}}, "customer's signature: customer's signature does not hold"),
        ({"fields": {"sponsor_signature": "none"}}, "sponsor's signature: sponsor's signature is not hexadecimal"),
        ({"fields": {"customer_tid": Int64(99)}}, "customer's signature: not checked: the customer is unknown"),
    ],
    ids=str,
)
@pytest.mark.parametrize("dry_run", [False, True])
async def test_what_is_not_signed_by_those_it_names_is_not_credited_and_the_reason_is_told(
    credit: MakeCredits, explorer: Explorer, spoil: dict[str, Any], reason: str, *, dry_run: bool
) -> None:
    pool = explorer.buy(Rates(), [])
    document = saved(17, sponsor=True, pool_id=pool.pool_id, **AMOUNTS)
    explorer.database["capacity-reservations"].insert_one(document | spoil.get("fields", {}))
    if "user" in spoil:
        tid, changes = spoil["user"]
        explorer.database["user"].update_one({"_id": tid}, {"$set": changes})
    with pytest.raises(VerificationError, match=f"reservation 17: {reason}; nothing is credited"):
        await credit(dry_run=dry_run).apply(17, terms())
    assert amounts(explorer, pool.pool_id) == (0.0, 0.0, 0.0)
    assert explorer.database["pool-daemon-applied"].count_documents({}) == 0


async def test_a_sponsor_that_is_trusted_no_longer_has_signed_all_the_same(
    credit: MakeCredits, explorer: Explorer
) -> None:
    pool = explorer.buy(Rates(), [])
    order(explorer, sponsor=True, pool_id=pool.pool_id)
    explorer.database["user"].update_one({"_id": SPONSOR_TID}, {"$set": {"trusted_sales_channel": False}})
    await credit().apply(17, terms())
    assert amounts(explorer, pool.pool_id) == (3600.0, 60.0, 5.0)


async def test_a_reservation_of_an_older_explorer_is_credited_to_an_older_pool(
    credit: MakeCredits, explorer: Explorer
) -> None:
    document = saved(17)
    for name in ("sponsor_tid", "sponsor_signature"):
        del document[name]
    del document["data_reservation"]["ipv4us"]
    explorer.database["capacity-reservations"].insert_one(document)
    explorer.pools.insert_one({"_id": Int64(17), "customer_tid": Int64(7)})
    await credit().apply(17, terms())
    pool = explorer.stored(explorer.pools, 17)
    assert (pool["cus"], pool["node_ids"]) == (3600.0, [NODE])
    assert "active_cu" not in pool


def test_a_second_apply_says_when_and_by_whom_and_changes_nothing(
    reservations: Reservations, explorer: Explorer
) -> None:
    pool = explorer.buy(Rates(), [CONTAINER], next_action=2)
    order(explorer, pool_id=pool.pool_id)
    first = reservations.run("apply", "17", "--reason", "ticket 4711")
    assert (first.returncode, first.stderr) == (ExitCode.OK, "")
    assert first.stdout.startswith(f"reservation 17: credited to pool {pool.pool_id}, which has 3.6k CU seconds")
    assert "; workloads deployed: 1\n" in first.stdout
    explorer.database["pool-daemon-applied"].update_one({}, {"$set": {"by": "ann\x1b[2J@db"}})
    before = explorer.bytes_of(explorer.pools, pool.pool_id)
    second = reservations.run("apply", "17", "--reason", "again")
    assert (second.returncode, second.stderr) == (ExitCode.OK, "")
    assert second.stdout.startswith("reservation 17: was applied 2")
    assert second.stdout.endswith(" UTC by ann\\x1b[2J@db: ticket 4711; nothing is changed\n")
    told = json.loads(reservations.run("apply", "17", "--reason", "again", "--json").stdout)
    assert (told["repeated"], told["pool"], told["writes"]) == (True, None, [])
    assert explorer.bytes_of(explorer.pools, pool.pool_id) == before
    assert "applied" in reservations.run("list").stdout


def test_a_dry_run_of_apply_prints_the_writes_and_makes_none(reservations: Reservations, explorer: Explorer) -> None:
    pool = explorer.buy(Rates(), [CONTAINER], next_action=2)
    order(explorer, pool_id=pool.pool_id)
    names = ("capacity-pools", "workload", "workqueue", "pool-daemon-applied", "pool-daemon-events")
    before = [explorer.contents(name) for name in names]
    dry = reservations.run("apply", "17", "--reason", "a ticket", "--dry-run", "--json")
    written = [next(iter(write.items())) for write in json.loads(dry.stdout)["writes"]]
    assert written == [
        ("insert", "pool-daemon-applied"),
        ("update", "capacity-pools"),
        ("insert", "pool-daemon-events"),
        ("update", "workload"),
        ("update", "workqueue"),
    ]
    shown = reservations.run("apply", "17", "--reason", "a ticket", "--dry-run").stdout.splitlines()
    assert shown[0] == "would write, in one transaction:"
    assert len(shown) == 6
    assert [explorer.contents(name) for name in names] == before


def test_a_credit_that_the_explorer_overwrites_is_told_with_the_remedy(
    reservations: Reservations, explorer: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = explorer.buy(Rates(), [])
    order(explorer, pool_id=pool.pool_id)
    as_read = explorer.stored(explorer.pools, pool.pool_id)
    real = asyncio.sleep

    async def overwrite(seconds: float) -> None:
        explorer.pools.replace_one({"_id": pool.pool_id}, as_read)
        await real(seconds)

    monkeypatch.setattr("pool_daemon.commands.reservations_write.asyncio.sleep", overwrite)
    undone = reservations.run("apply", "17", "--reason", "a ticket")
    assert undone.returncode == ExitCode.FAILED
    assert f"pools top-up {pool.pool_id} --cu 3600x1s --su 60x1s --ipv4 5x1s` and" in undone.stderr


def test_a_credit_without_a_reason_is_a_usage_error(reservations: Reservations) -> None:
    refused = reservations.run("apply", "17")
    assert refused.returncode == ExitCode.USAGE
    assert "the following arguments are required: --reason" in refused.stderr
