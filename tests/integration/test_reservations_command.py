"""`pool-daemon reservations` on a database: verified with the keys of its users."""

import json
from pathlib import Path
from typing import Any

import pytest
from arithmetic_model import Rates
from bson import Int64
from explorer import Explorer
from pymongo import MongoClient
from reservations_command import SPONSOR_TID, Reservations, add_users, file_of, saved, signed

from pool_daemon.errors import ExitCode


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
