"""`pool-daemon policy`: the grace that operators agree with single owners."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from bson import Int64
from pymongo import MongoClient
from pymongo.collection import Collection

from pool_daemon.cli import main
from pool_daemon.errors import ExitCode

Document = dict[str, Any]
Run = Callable[..., list[str]]
HOUR, DAY = 3600, 86_400


@pytest.fixture
def run(run_command: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `policy` with settings under which volumes stay for a week."""
    monkeypatch.setenv("POOL_DAEMON_GRACE__VOLUME", "7d")
    return partial(run_command, "policy")


@pytest.fixture
def policies(mongo: MongoClient[Document], database_name: str) -> Collection[Document]:
    return mongo[database_name]["pool-daemon-policies"]


@pytest.fixture
def records(mongo: MongoClient[Document], database_name: str) -> Collection[Document]:
    return mongo[database_name]["pool-daemon-events"]


def test_a_policy_is_written_as_it_is_documented_with_a_record_of_who_and_why(
    run: Run, policies: Collection[Document], records: Collection[Document]
) -> None:
    (said,) = run("set", "7", "--virtual-machine", "36h", "--container", "0", "--budget", "10d", "--reason", "contract")
    assert said == "customer 7: container 0, virtual_machine 36h, budget 10d; the rest is the default"
    (document,) = policies.find()
    assert {name: document[name] for name in ("_id", "grace", "budget", "reason")} == {
        "_id": 7,
        "grace": {"container": 0, "virtual_machine": 36 * HOUR},
        "budget": 10 * DAY,
        "reason": "contract",
    }
    assert all(isinstance(each, Int64) for each in (document["_id"], document["budget"], *document["grace"].values()))
    (record,) = records.find()
    assert (record["kind"], record["customer_tid"], record["reason"]) == ("policy_set", 7, "contract")
    assert (record["actor"], record["by"], record["policy"]) == ("operator", document["by"], document)


@pytest.mark.parametrize("form", [[], ["--json"]])
@pytest.mark.parametrize(
    "words",
    [["policy", "set", "7", "--volume", "2h", "--reason", "a"], ["policy", "list"], ["grace", "list"]],
    ids=lambda words: "-".join(words[:2]),
)
def test_what_has_no_effect_without_grace_in_the_settings_says_so(
    run_command: Run, words: list[str], form: list[str]
) -> None:
    warning = "[grace] of these settings gives no type a time: policies and extensions have no effect until it does\n"
    for line in run_command(*words, *form, error=warning):
        assert "[grace]" not in line


def test_another_policy_of_the_same_owner_takes_the_place_of_the_first(
    run: Run, policies: Collection[Document]
) -> None:
    run("set", "7", "--container", "2h", "--budget", "1d", "--reason", "a")
    run("set", "7", "--volume", "3d", "--reason", "b")
    (document,) = policies.find()
    assert (document["grace"], "budget" in document) == ({"volume": 3 * DAY}, False)


def test_policies_are_listed_by_owner_and_one_that_is_malformed_is_named(
    run: Run, policies: Collection[Document]
) -> None:
    assert run("list") == ["no owner has a grace of his own"]
    run("set", "9", "--volume", "90min", "--reason", "two\u2014one")
    run("set", "8", "--budget", "0", "--reason", "none at all")
    heading, *lines = run("list")
    assert heading.split() == ["owner", "set", "at", "by", "grace", "and", "reason"]
    assert [(line.split()[0], line.split("  ")[-1].strip()) for line in lines] == [
        ("8", "budget 0: none at all"),
        ("9", "volume 90min: two\u2014one"),
    ]
    policies.insert_one({"_id": 5, "grace": {"volume": "7d"}, "reason": "by hand"})
    *_, line = run("list", code=ExitCode.FAILED)
    assert "malformed, so the default: volume is of type str, not a whole number" in line
    *found, bad = map(json.loads, run("list", "--json", code=ExitCode.FAILED))
    assert [(each["owner"], each["grace"], each["budget"]) for each in found] == [
        (8, {}, 0),
        (9, {"volume": 5400}, None),
    ]
    assert bad == {"owner": 5, "problem": "volume is of type str, not a whole number"}


def test_a_policy_is_unset_once_even_a_malformed_one(
    run: Run, policies: Collection[Document], records: Collection[Document]
) -> None:
    policies.insert_one({"_id": Int64(5), "grace": 1})
    assert run("unset", "5", "--dry-run") == ["customer 5 would have the default again"]
    assert run("unset", "5", "--dry-run", "--json") == ['{"owner": 5, "unset": false}']
    assert policies.count_documents({}) == 1
    assert run("unset", "5", "--reason", "ended") == ["customer 5 has the default again"]
    assert run("unset", "5", code=ExitCode.FAILED) == ["customer 5 has no grace of his own"]
    assert [(each["kind"], each["reason"]) for each in records.find()] == [("policy_unset", "ended")]


def test_a_dry_run_prints_the_writes_and_makes_none(
    run: Run, policies: Collection[Document], records: Collection[Document]
) -> None:
    heading, *writes = run("set", "7", "--zdb", "1d", "--reason", "a", "--dry-run")
    assert heading == "would write, in one transaction:"
    assert [json.loads(write).get("update", json.loads(write).get("insert")) for write in writes] == [
        "pool-daemon-policies",
        "pool-daemon-events",
    ]
    (line,) = run("set", "7", "--zdb", "1d", "--reason", "a", "--dry-run", "--json")
    assert json.loads(line)["grace"] == {"zdb": DAY}
    assert policies.count_documents({}) == records.count_documents({}) == 0


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (["set", "7", "--reason", "a"], "name what the owner gets: --zdb"),
        (["set", "7", "--volume", "7d"], "--reason"),
        (["set", "7", "--volume", "7", "--reason", "a"], "--volume: must be a duration"),
        (["set", "7", "--budget", "367d", "--reason", "a"], "--budget: must be at most 366d"),
        (["set", "7", "--volume", "1d", "--reason", ""], "--reason: must be one line"),
        (["set", str(2**63), "--volume", "1d", "--reason", "a"], "OWNER: must be a whole number"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_remedy(
    words: list[str], remedy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["policy", *words]) == ExitCode.USAGE
    assert remedy in capsys.readouterr().err
