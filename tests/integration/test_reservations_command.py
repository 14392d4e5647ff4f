"""`pool-daemon reservations` on a database: verified with the keys of its users, saved once, listed and shown."""

import asyncio
import json
import time
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from arithmetic_model import Rates
from bson import Int64
from explorer import Explorer
from indexes import build_indexes
from pymongo import MongoClient
from reservations_command import NODE, SPONSOR_TID, Reservations, add_users, file_of, saved, signed

from pool_daemon.capacity.reservation import Reservation
from pool_daemon.errors import ExitCode
from pool_daemon.store import reservations as store_reservations
from pool_daemon.store.client import connect
from pool_daemon.store.pool_changes import Author
from pool_daemon.store.reservation_writes import ReservationWrites


@pytest.fixture
def explorer(mongo: MongoClient[dict[str, Any]], database_name: str) -> Explorer:
    explorer = Explorer(database=mongo[database_name])
    add_users(explorer.database)
    return explorer


@pytest.fixture
def reservations(mongo_uri: str, database_name: str) -> Reservations:
    return Reservations(mongo_uri, database_name)


def test_a_reservation_is_verified_with_the_keys_of_its_users(
    reservations: Reservations, explorer: Explorer, tmp_path: Path
) -> None:
    pool = explorer.buy(Rates(), [])
    extension: dict[str, Any] = {"pool_id": pool.pool_id, "sponsor": True}
    explorer.database["capacity-reservations"].insert_one(saved(17, **extension))
    for named in ("17", file_of(tmp_path, signed(**extension))):
        verified = reservations.run("verify", named)
        assert (verified.returncode, verified.stderr) == (ExitCode.OK, "")
        assert verified.stdout.splitlines() == [
            "ok           signed text           says the same as data_reservation",
            "ok           nodes                 1 named",
            "not checked  one farm              the data contract names no farms",
            "ok           customer              user 7",
            "ok           customer's signature  holds",
            "ok           sponsor               user 8, a trusted sales channel",
            "ok           sponsor's signature   holds",
            f"ok           pool                  extends pool {pool.pool_id}",
        ]
    explorer.database["user"].update_one({"_id": SPONSOR_TID}, {"$unset": {"trusted_sales_channel": 1}})
    explorer.pools.update_one({"_id": pool.pool_id}, {"$push": {"node_ids": "\x1b[2J" + "n" * 1000}})
    refused = reservations.run("verify", "17", "--json")
    assert refused.returncode == ExitCode.FAILED
    told = json.loads(refused.stdout)
    assert not told["holds"]
    assert [each["name"] for each in told["checks"] if each["outcome"] == "failed"] == ["sponsor", "pool"]
    assert len(refused.stdout) < 1500
    assert "\x1b" not in reservations.run("verify", "17").stdout


@pytest.mark.parametrize("pubkey", [None, 5, "k" * 1_000_000, "\x1b"], ids=["null", "number", "long", "control"])
def test_a_users_key_that_is_none_verifies_nothing(reservations: Reservations, explorer: Explorer, pubkey: Any) -> None:
    explorer.database["user"].update_many({}, {"$set": {"pubkey": pubkey}})
    explorer.database["capacity-reservations"].insert_one(saved(17))
    verified = reservations.run("verify", "17")
    assert verified.returncode == ExitCode.FAILED
    assert "\nfailed       customer's signature  customer's public key " in verified.stdout
    assert len(verified.stdout) < 1000
    assert "\x1b" not in verified.stdout


def test_a_reservation_that_is_not_there_or_too_long_is_said_in_one_line(
    reservations: Reservations, explorer: Explorer
) -> None:
    assert reservations.run("verify", "17").stderr == (
        "pool-daemon: reservation 17: the specified reservation was not found\n"
    )
    explorer.database["capacity-reservations"].insert_one(saved(17) | {"json": "x" * 5_000_000})
    refused = reservations.run("verify", "17")
    assert refused.returncode == ExitCode.FAILED
    assert refused.stderr.startswith("pool-daemon: reservation 17 has 5,000,")
    explorer.database["capacity-reservations"].insert_one(saved(18) | {"customer_tid": "\x1b"})
    assert reservations.run("verify", "18").stderr == ("pool-daemon: customer_tid is of type str, not a whole number\n")


def test_a_reservation_of_an_older_explorer_is_verified(reservations: Reservations, explorer: Explorer) -> None:
    document = saved(17)
    for name in ("sponsor_tid", "sponsor_signature"):
        del document[name]
    del document["data_reservation"]["ipv4us"]
    explorer.database["capacity-reservations"].insert_one(document | {"_id": Int64(17)})
    assert reservations.run("verify", "17").returncode == ExitCode.OK


@pytest.mark.parametrize("twice", [False, True])
def test_a_submitted_reservation_is_saved_as_the_explorer_saves_one_with_its_empty_pool(
    reservations: Reservations, explorer: Explorer, tmp_path: Path, *, twice: bool
) -> None:
    file = file_of(tmp_path, signed(sponsor=True))
    explorer.database["counters"].insert_one({"_id": "capacity-reservations", "sequence": Int64(40)})
    for _ in range(1 + twice):
        submitted = reservations.run("submit", file, "--reason", "a ticket", "--json")
        assert (submitted.returncode, submitted.stderr) == (ExitCode.OK, "")
    told = json.loads(submitted.stdout)
    assert (told["reservation"]["id"], told["repeated"]) == (41, twice)
    stored = explorer.stored(explorer.database["capacity-reservations"], 41)
    assert list(stored.items()) == list(saved(41, sponsor=True).items())
    assert [type(stored[name]) for name in ("_id", "customer_tid", "sponsor_tid")] == [Int64] * 3
    assert [type(stored["data_reservation"][name]) for name in ("pool_id", "cus", "sus", "ipv4us")] == [Int64] * 4
    pool = explorer.stored(explorer.pools, 41)
    assert (pool["cus"], pool["node_ids"], pool["customer_tid"], pool["sponsor_tid"]) == (0.0, [NODE], 7, 8)
    assert (pool["empty_at"], pool["active_workload_ids"]) == (2**63 - 1, [])
    assert explorer.database["capacity-reservations"].count_documents({}) == explorer.pools.count_documents({}) == 1
    (record,) = explorer.events.find()
    assert (record["kind"], record["pool_id"], record["reservation_id"], record["reason"]) == (
        "created",
        41,
        41,
        "a ticket",
    )


async def test_one_reservation_submitted_by_eight_at_once_is_saved_once(
    explorer: Explorer, mongo_uri: str, database_name: str
) -> None:
    await asyncio.to_thread(build_indexes, mongo_uri, database_name)
    database = connect(uri=mongo_uri, name=database_name)
    writes = ReservationWrites(database=database, author=Author(identity="me@here", version="1", key="a key"))
    reservation, now = Reservation.from_json(signed()), int(time.time())
    made = await asyncio.gather(*(writes.submit(reservation, now) for _ in range(8)))
    database.close()
    assert len({each.reservation.reservation_id for each in made}) == 1
    assert [each.repeated for each in made].count(False) == 1
    assert explorer.database["capacity-reservations"].count_documents({}) == explorer.pools.count_documents({}) == 1


def test_a_customer_may_order_the_same_again(reservations: Reservations, explorer: Explorer, tmp_path: Path) -> None:
    file = file_of(tmp_path, signed())
    assert reservations.run("submit", file).returncode == ExitCode.OK
    again = reservations.run("submit", file, "--idempotency-key", "the next month")
    assert again.stdout.startswith("reservation 2: saved, and pool 2, empty")
    repeated = reservations.run("submit", file, "--idempotency-key", "the next month")
    assert (repeated.returncode, repeated.stdout) == (0, "reservation 2: this was submitted before\n")
    assert explorer.pools.count_documents({}) == 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"customer_tid": 99}, "customer: user 99 is unknown"),
        ({"customer_signature": "ab" * 64}, "customer's signature: customer's signature does not hold"),
        ({"sponsor_signature": ""}, "sponsor's signature: sponsor_signature is required"),
        ({"sponsor_tid": 7}, "sponsor: user 7 is no trusted_sales_channel"),
        ({"json": "{}"}, "signed text: json and data_reservation differ in cus"),
        ({"id": 5}, "id is 5: it is saved already; only 0 is a new one"),
    ],
)
def test_what_the_explorer_would_refuse_is_refused_and_nothing_is_written(
    reservations: Reservations, explorer: Explorer, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    refused = reservations.run("submit", file_of(tmp_path, signed(sponsor=True) | changes))
    assert (refused.returncode, refused.stdout) == (ExitCode.FAILED, "")
    assert refused.stderr == f"pool-daemon: {reason}\n"
    assert explorer.database.list_collection_names() == ["user"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"node_ids": []}, "nodes: node_ids must name a node"),
        ({"node_ids": ["a", "a"]}, "nodes: node_ids names a node twice"),
        ({"pool_id": 99}, "pool: pool 99 is unknown"),
        ({"pool_id": 17, "node_ids": ["b"]}, "pool: node_ids must name every node of the pool, 'a' too"),
        ({"pool_id": 18}, f"pool: node_ids must name every node of the pool, '{'n' * 100}' too"),
        ({"pool_id": 17, "node_ids": ["a"], "cus": 0}, "pool: it adds neither units nor a node to the pool"),
    ],
)
def test_an_order_that_fits_no_pool_is_refused(
    reservations: Reservations, explorer: Explorer, tmp_path: Path, data: dict[str, Any], reason: str
) -> None:
    explorer.pools.insert_one(explorer.draft(Rates(), [], node_ids=["a"]).document | {"_id": Int64(17)})
    long = explorer.draft(Rates(), [], node_ids=["n" * 1_000_000])
    explorer.pools.insert_one(long.document | {"_id": Int64(18)})
    refused = reservations.run("submit", file_of(tmp_path, signed(**data)))
    assert (refused.returncode, refused.stderr) == (ExitCode.FAILED, f"pool-daemon: {reason}\n")
    assert explorer.database["capacity-reservations"].count_documents({}) == 0


def test_a_dry_run_of_submit_prints_the_writes_and_makes_none(
    reservations: Reservations, explorer: Explorer, tmp_path: Path
) -> None:
    file = file_of(tmp_path, signed())
    writes = json.loads(reservations.run("submit", file, "--dry-run", "--json").stdout)["writes"]
    assert [each["insert"] for each in writes] == [
        "pool-daemon-submitted",
        "capacity-reservations",
        "capacity-pools",
        "pool-daemon-events",
    ]
    shown = reservations.run("submit", file, "--dry-run").stdout.splitlines()
    assert shown[0] == "would write, in one transaction:"
    assert len(shown) == 5
    assert explorer.database.list_collection_names() == ["user"]


def test_a_counter_that_is_behind_overwrites_no_reservation(
    reservations: Reservations, explorer: Explorer, tmp_path: Path
) -> None:
    """As after a restore of some collections."""
    explorer.database["capacity-reservations"].insert_one(saved(1, cus=1))
    before = explorer.contents("capacity-reservations")
    refused = reservations.run("submit", file_of(tmp_path, signed()))
    assert (refused.returncode, refused.stdout) == (ExitCode.FAILED, "")
    assert refused.stderr == (
        "pool-daemon: reservation 1 or its pool exists already: the sequence in `counters` is behind; submit it again\n"
    )
    assert explorer.contents("capacity-reservations") == before
    assert reservations.run("submit", file_of(tmp_path, signed())).returncode == ExitCode.OK


def test_a_submitted_reservation_whose_document_is_missing_is_not_saved_a_second_time(
    reservations: Reservations, explorer: Explorer, tmp_path: Path
) -> None:
    file = file_of(tmp_path, signed())
    assert reservations.run("submit", file).returncode == ExitCode.OK
    explorer.database["capacity-reservations"].delete_many({})
    refused = reservations.run("submit", file)
    assert refused.returncode == ExitCode.FAILED
    assert refused.stderr.startswith("pool-daemon: reservation 1: it was submitted as this one, which has no document")


@pytest.fixture
def listed(explorer: Explorer) -> Explorer:
    """Have a reservation of each state, 1 to 6, one of another customer for pool 1, and hostile ones."""
    stored = explorer.database["capacity-reservations"]
    stored.insert_many(saved(number) for number in range(1, 7))
    stored.insert_one(saved(7, pool_id=1, sponsor=True, cus=5_184_000) | {"customer_tid": Int64(9)})
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    escrow = {"paid": False, "released": False, "canceled": False, "expiration": tomorrow}
    explorer.database["capacity-escrow"].insert_many(
        [
            {"_id": Int64(2), **escrow, "paid": True},
            {"_id": Int64(3), **escrow},
            {"_id": Int64(4), **escrow, "canceled": True},
            {"_id": Int64(5), **escrow, "expiration": datetime(2026, 1, 1, tzinfo=UTC)},
            {"_id": Int64(6), **escrow},
        ]
    )
    explorer.database["pool-daemon-applied"].insert_one(
        {"_id": Int64(6), "at": datetime(2026, 11, 1, tzinfo=UTC), "by": "ann@\x1b[2J", "reason": "a ticket"}
    )
    return explorer


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        ([], [7, 6, 5, 4, 3, 2, 1]),
        (["--owner", "9"], [7]),
        (["--pool", "1"], [7, 1]),
        (["--state", "applied"], [6]),
        (["--state", "paid"], [2]),
        (["--state", "waiting"], [3]),
        (["--state", "canceled"], [4]),
        (["--state", "expired"], [5]),
        (["--state", "open"], [7, 1]),
        (["--unapplied"], [7, 5, 4, 3, 1]),
        (["--unapplied", "--limit", "2"], [7, 5]),
        (["--owner", "5"], []),
    ],
    ids=str,
)
def test_the_newest_come_first_and_some_can_be_chosen(
    reservations: Reservations, listed: Explorer, options: list[str], ids: list[int]
) -> None:
    del listed
    printed = reservations.run("list", *options, "--json")
    assert (printed.returncode, printed.stderr) == (ExitCode.OK, "")
    assert [json.loads(line)["reservation_id"] for line in printed.stdout.splitlines()] == ids


@pytest.mark.parametrize("window", [1, 2, 3, 7, 8, 9])
@pytest.mark.parametrize(
    ("options", "ids"),
    [(["--owner", "9"], [7]), (["--pool", "1"], [7, 1]), (["--owner", "7"], ["string", 6, 5, 4, 3, 2, 1])],
    ids=str,
)
def test_what_is_chosen_is_looked_for_in_windows_none_of_which_takes_long(
    reservations: Reservations,
    listed: Explorer,
    monkeypatch: pytest.MonkeyPatch,
    window: int,
    options: list[str],
    ids: list[Any],
) -> None:
    listed.database["capacity-reservations"].insert_one({"_id": "odd", "customer_tid": 7})
    monkeypatch.setattr(store_reservations, "WINDOW", window)
    listed.database.command("profile", 2)
    printed = reservations.run("list", *options, "--json")
    listed.database.command("profile", 0)
    assert (printed.returncode, printed.stderr) == (ExitCode.OK, "")
    assert [json.loads(line)["reservation_id"] for line in printed.stdout.splitlines()] == ids
    queries = {"command.find": "capacity-reservations"}
    examined = [each["docsExamined"] for each in listed.database["system.profile"].find(queries)]
    assert max(examined) <= window
    assert sum(examined) == 8


def test_a_list_fits_the_narrowest_terminal_and_hostile_data_breaks_no_line(
    reservations: Reservations, listed: Explorer
) -> None:
    listed.database["capacity-reservations"].insert_many(
        [
            {"_id": "\x1b[2J" * 500_000},
            {"_id": Int64(20), "customer_tid": "\x1b" * 1_000_000, "data_reservation": "x" * 1_000_000},
            {"_id": Int64(21), "data_reservation": {"node_ids": ["n" * 1_000_000, 5, "\x1b"] + ["n"] * 100_000}},
        ]
    )
    printed = reservations.run("list")
    assert (printed.returncode, printed.stderr) == (ExitCode.OK, "")
    lines = printed.stdout.splitlines()
    assert len(lines) == 11
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in printed.stdout
    assert lines[-1].split() == ["1", "7", "new", "3.6k", "0", "0", "1", "open"]
    assert reservations.run("list", "--limit", "1").stdout.endswith("there are more; --limit N shows more of them\n")
    assert reservations.run("list", "--owner", "5").stdout == "none\n"
    for number in ("20", "21"):
        shown = reservations.run("show", number)
        assert (shown.returncode, shown.stderr) == (ExitCode.OK, "")
        assert max(map(len, shown.stdout.splitlines())) <= 80
        assert "\x1b" not in shown.stdout


def test_a_list_takes_no_more_memory_than_numbers_however_long_the_texts_are(
    reservations: Reservations, explorer: Explorer
) -> None:
    for number in range(30):
        long = saved(number, node_ids=["n" * 500_000]) | {"customer_signature": "a" * 500_000}
        explorer.database["capacity-reservations"].insert_one(long)
    reservations.run("list")
    tracemalloc.start()
    try:
        assert len(reservations.run("list", "--json").stdout.splitlines()) == 30
        assert reservations.run("show", "7").returncode == ExitCode.OK
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5_000_000


def test_one_reservation_is_shown_with_what_became_of_it(reservations: Reservations, listed: Explorer) -> None:
    del listed
    assert [line.rstrip() for line in reservations.run("show", "7").stdout.splitlines()] == [
        "reservation   7",
        "customer      9, sponsor 8",
        "pool          1, which it extends",
        "buys          1 CU for 60 d (5,184,000 unit seconds)",
        "nodes         1",
        f"              {NODE}",
        "state         not applied, and the explorer waits for no payment",
    ]
    shown = reservations.run("show", "6").stdout
    assert "state         applied 2026-11-01 00:00:00 UTC by ann@\\x1b[2J: a ticket\n" in shown
    assert "escrow        waiting, beside the credit of the operator\n" in shown
    for number, state in (
        ("2", "paid: the"),
        ("3", "waits for its"),
        ("4", "its payment was"),
        ("5", "not paid until"),
    ):
        assert f"state         {state}" in reservations.run("show", number).stdout
    told = json.loads(reservations.run("show", "6", "--json").stdout)
    assert (told["state"], told["applied"]["by"], told["node_ids"]) == ("applied", "ann@\x1b[2J", [NODE])
    assert reservations.run("show", "99").returncode == ExitCode.FAILED
