"""What an operator sees of the brake, and does about it."""

import io
import json
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
def holds(command_environment: None, mongo: MongoClient[dict[str, Any]], database_name: str) -> Holds:
    """Give the collection of holds that the commands look at."""
    del command_environment
    return mongo[database_name]["pool-daemon-brake"]


def hold(holds: Holds, *pool_ids: int, state: str = "held", owner: int = 3, workloads: int = 2) -> None:
    document = {
        "state": state,
        "reason": "too many",
        "empty_at": EMPTY_AT,
        "held_at": datetime.fromtimestamp(HELD_AT, UTC),
        "by": "me",
        "owner": owner,
        "workloads": workloads,
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


def test_the_status_groups_what_is_held_by_owner_and_lists_it(holds: Holds, capsys: pytest.CaptureFixture[str]) -> None:
    hold(holds, 8, 7, owner=4)
    hold(holds, 9, state="released", owner=5, workloads=1)
    hold(holds, *range(100, 140), owner=6)
    assert main(["brake", "status"]) == ExitCode.OK
    summary, heading, *lines = capsys.readouterr().out.splitlines()
    assert summary == "42 pools with 84 workloads held, 1 pools with 1 workloads released and not settled yet"
    assert heading.split() == ["owner", "state", "pools", "workloads"]
    assert [line.split() for line in lines[:3]] == [
        ["6", "held", "40", "80"],
        ["4", "held", "2", "4"],
        ["5", "released", "1", "1"],
    ]
    assert lines[4].split()[:3] == ["7", "4", "held"]
    assert lines[4].endswith("2023-11-14 22:13:20 UTC  2023-11-14 23:13:20 UTC  too many")
    assert lines[-1] == "and 23 more pools; --json lists them all"
    assert main(["brake", "status", "--json"]) == ExitCode.OK
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["pool_id"] for each in told] == [7, 8, 9, *range(100, 140)]
    assert told[0] == {
        "pool_id": 7,
        "state": "held",
        "reason": "too many",
        "empty_at": EMPTY_AT,
        "held_at": HELD_AT,
        "by": "me",
        "owner": 4,
        "workloads": 2,
    }


def test_what_an_older_version_held_is_of_an_unknown_owner(holds: Holds, capsys: pytest.CaptureFixture[str]) -> None:
    hold(holds, 7)
    holds.update_many({}, {"$unset": {"owner": "", "workloads": ""}})
    assert main(["brake", "status"]) == ExitCode.OK
    assert capsys.readouterr().out.splitlines()[2].split() == ["unknown", "held", "1", "0"]


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


def test_those_of_one_owner_are_released_and_no_others(holds: Holds, capsys: pytest.CaptureFixture[str]) -> None:
    hold(holds, 7, 8, owner=4)
    hold(holds, 9, owner=5)
    assert main(["brake", "release", "--owner", "4", "--yes"]) == ExitCode.OK
    assert (capsys.readouterr().out, released(holds)) == ("2 pools released\n", [7, 8])


def test_all_are_released_however_many(holds: Holds, capsys: pytest.CaptureFixture[str]) -> None:
    hold(holds, *range(1, 2502))
    assert main(["brake", "release", "--all", "--yes"]) == ExitCode.OK
    assert capsys.readouterr().out == "2501 pools released\n"
    assert released(holds) == list(range(1, 2502))
    assert main(["brake", "release", "--all"]) == ExitCode.OK
    assert capsys.readouterr().out == "0 pools released\n"


@pytest.mark.parametrize(
    ("terminal", "answer", "going"),
    [(True, "y\n", True), (True, "\n", False), (True, "", False), (False, "y\n", False)],
)
def test_many_are_released_only_if_somebody_agrees_to_what_goes(
    terminal: bool,  # noqa: FBT001 - a row of the table
    answer: str,
    going: bool,  # noqa: FBT001 - as above
    holds: Holds,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hold(holds, 7, 8, owner=4)
    hold(holds, 9, owner=5)
    stdin = io.StringIO(answer)
    monkeypatch.setattr(stdin, "isatty", lambda: terminal)
    monkeypatch.setattr("sys.stdin", stdin)
    assert main(["brake", "release", "--all"]) == (ExitCode.OK if going else ExitCode.FAILED)
    assert released(holds) == ([7, 8, 9] if going else [])
    assert "3 pools with 6 workloads of 2 owners are going to be decommissioned" in capsys.readouterr().err


def test_without_a_word_on_which_nothing_is_released(holds: Holds, capsys: pytest.CaptureFixture[str]) -> None:
    hold(holds, 7)
    assert main(["brake", "release"]) == ExitCode.USAGE
    assert "--all" in capsys.readouterr().err
    assert released(holds) == []
