"""What is recorded of holds: each pool that is held, who releases it, and what ends a hold otherwise."""

import json
import time
from typing import Any

import pytest
from bson import Int64
from pymongo import MongoClient

from pool_daemon.cli import main
from pool_daemon.errors import ExitCode
from pool_daemon.harness import environment
from pool_daemon.store.client import Database
from pool_daemon.store.holds import HoldStore
from pool_daemon.store.pools import DuePool
from pool_daemon.store.records import EventKind, Subject, Why

NOW = 1_796_040_000

Recorded = list[tuple[EventKind, Subject, Why]]


def due(pool_id: int) -> DuePool:
    return DuePool(pool_id, owner=pool_id + 100, empty_at=NOW - pool_id, workloads=3)


async def test_each_pool_that_is_held_is_recorded_with_its_owner_its_end_and_the_reason(database: Database) -> None:
    recorded: Recorded = []
    holds = HoldStore(database=database, identity="me", record=lambda *what: recorded.append(what))
    await holds.hold([due(1), due(2)], reason="21 pools ended unexpectedly", at=NOW)
    reason = "21 pools ended unexpectedly"
    assert recorded == [
        (EventKind.HELD, Subject(1, 101), Why(reason, empty_at=NOW - 1)),
        (EventKind.HELD, Subject(2, 102), Why(reason, empty_at=NOW - 2)),
    ]


async def test_a_held_pool_that_was_topped_up_is_recorded_as_released_and_one_that_was_settled_is_not(
    database: Database,
) -> None:
    recorded: Recorded = []
    holds = HoldStore(database=database, identity="me", record=lambda *what: recorded.append(what))
    await holds.hold([due(1), due(2)], reason="many", at=NOW)
    assert await holds.release([2], at=NOW + 1) == [2]
    del recorded[:]
    await holds.drop(await holds.page())
    ((kind, subject, why),) = recorded
    assert (kind, subject, why.empty_at) == (EventKind.RELEASED, Subject(1, 101), NOW - 1)
    assert await holds.page() == []


async def test_a_pool_that_was_released_meanwhile_is_not_recorded_as_held(database: Database) -> None:
    recorded: Recorded = []
    holds = HoldStore(database=database, identity="me", record=lambda *what: recorded.append(what))
    await holds.hold([due(1)], reason="many", at=NOW)
    await holds.release([1], at=NOW + 0.2)
    del recorded[:]
    await holds.hold([due(1), due(2)], reason="many", at=NOW)
    assert [(kind, subject.pool_id) for kind, subject, _ in recorded] == [(EventKind.HELD, 2)]


async def test_a_dry_run_records_no_hold(database: Database) -> None:
    recorded: Recorded = []
    holds = HoldStore(database=database, identity="me", dry_run=True, record=lambda *what: recorded.append(what))
    await holds.hold([due(1)], reason="many", at=NOW)
    assert recorded == []


@pytest.mark.parametrize("words", [["1", "2", "9"], ["--all", "--yes"], ["--owner", "101", "--yes"]])
def test_who_releases_a_pool_is_recorded_once(
    mongo: MongoClient[dict[str, Any]],
    mongo_uri: str,
    database_name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
) -> None:
    for name, value in environment(DATABASE__URI=mongo_uri, DATABASE__NAME=database_name).items():
        monkeypatch.setenv(name, value)
    held = {"state": "held", "reason": "many", "by": "me", "workloads": 3}
    mongo[database_name]["pool-daemon-brake"].insert_many(
        {"_id": Int64(pool_id), "owner": 100 + pool_id, "empty_at": Int64(NOW - pool_id)} | held for pool_id in (1, 2)
    )
    expected = ExitCode.FAILED if "9" in words else ExitCode.OK
    assert main(["brake", "release", *words, "--json"]) == expected
    main(["brake", "release", *words, "--json"])
    released = [1] if "--owner" in words else [1, 2]
    assert json.loads(capsys.readouterr().out.splitlines()[0])["released"] == len(released)
    records = list(mongo[database_name]["pool-daemon-events"].find(sort=[("pool_id", 1)]))
    assert [(each["kind"], each["actor"], each["reason"]) for each in records] == [
        ("released", "operator", "brake") for _ in released
    ]
    assert [(each["pool_id"], each["customer_tid"], each["empty_at"]) for each in records] == [
        (pool_id, 100 + pool_id, NOW - pool_id) for pool_id in released
    ]
    assert all("@" in each["by"] and each["at"].timestamp() <= time.time() for each in records)
