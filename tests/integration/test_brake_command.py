"""What an operator sees of the brake, and does about it."""

import json
import os
from datetime import UTC, datetime
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.collection import Collection

from pool_daemon.cli import main
from pool_daemon.errors import ExitCode

Holds = Collection[dict[str, Any]]

EMPTY_AT = 1_700_000_000
HELD_AT = EMPTY_AT + 3600


@pytest.fixture
def holds(
    mongo_uri: str, mongo: MongoClient[dict[str, Any]], database_name: str, monkeypatch: pytest.MonkeyPatch
) -> Holds:
    """Give the collection of holds that the commands look at."""
    for name in os.environ:
        if name.startswith("POOL_DAEMON_") or name == "CREDENTIALS_DIRECTORY":
            monkeypatch.delenv(name)
    monkeypatch.setenv("POOL_DAEMON_DATABASE__URI", mongo_uri)
    monkeypatch.setenv("POOL_DAEMON_DATABASE__NAME", database_name)
    return mongo[database_name]["pool-daemon-brake"]


def hold(holds: Holds, *pool_ids: int, state: str = "held") -> None:
    document = {
        "state": state,
        "reason": "too many",
        "empty_at": EMPTY_AT,
        "held_at": datetime.fromtimestamp(HELD_AT, UTC),
        "by": "me",
    }
    holds.insert_many([{"_id": pool_id, **document} for pool_id in pool_ids])


def released(holds: Holds) -> list[int]:
    return [document["_id"] for document in holds.find({"state": "released"}).sort("_id")]


@pytest.mark.usefixtures("holds")
def test_with_nothing_held_the_status_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["brake", "status"]) == ExitCode.OK
    assert capsys.readouterr().out == "no pool is held\n"
    assert main(["brake", "status", "--json"]) == ExitCode.OK
    assert capsys.readouterr().out == ""


def test_the_status_lists_what_is_held_and_why(holds: Holds, capsys: pytest.CaptureFixture[str]) -> None:
    hold(holds, 8, 7)
    hold(holds, 9, state="released")
    holds.insert_one({"_id": "unfinished", "after": None, "until": EMPTY_AT, "reason": "too many"})
    assert main(["brake", "status"]) == ExitCode.OK
    summary, heading, *lines = capsys.readouterr().out.splitlines()
    assert summary == "2 held, 1 released and not settled yet"
    assert heading.split() == ["pool", "state", "empty", "since", "held", "since", "reason"]
    assert lines[0].strip() == "7  held      2023-11-14 22:13:20 UTC  2023-11-14 23:13:20 UTC  too many"
    assert [line.split()[0] for line in lines] == ["7", "8", "9"]
    assert main(["brake", "status", "--json"]) == ExitCode.OK
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["pool_id"] for each in told] == [7, 8, 9]
    assert told[0] == {
        "pool_id": 7,
        "state": "held",
        "reason": "too many",
        "empty_at": EMPTY_AT,
        "held_at": HELD_AT,
        "by": "me",
    }


def test_the_status_says_that_the_brake_is_off(
    holds: Holds, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hold(holds, 7)
    monkeypatch.setenv("POOL_DAEMON_BRAKE__ENABLED", "false")
    assert main(["brake", "status"]) == ExitCode.OK
    assert capsys.readouterr().out.startswith("the brake is off")


def test_some_are_released_by_their_ids(holds: Holds, capsys: pytest.CaptureFixture[str]) -> None:
    hold(holds, 7, 8, 9)
    assert main(["brake", "release", "7", "9"]) == ExitCode.OK
    assert capsys.readouterr().out == "2 pools released\n"
    assert released(holds) == [7, 9]
    assert main(["brake", "release", "8", "9", "404"]) == ExitCode.FAILED
    assert capsys.readouterr().out == "1 pool released\npool 9 is not held\npool 404 is not held\n"
    assert main(["brake", "release", "8", "--json"]) == ExitCode.FAILED
    assert json.loads(capsys.readouterr().out) == {"released": 0, "not_held": [8]}


def test_all_are_released_without_ids_however_many(holds: Holds, capsys: pytest.CaptureFixture[str]) -> None:
    hold(holds, *range(1, 2502))
    assert main(["brake", "release"]) == ExitCode.OK
    assert capsys.readouterr().out == "2501 pools released\n"
    assert released(holds) == list(range(1, 2502))
    assert main(["brake", "release"]) == ExitCode.OK
    assert capsys.readouterr().out == "0 pools released\n"
