"""The quarantine on a real server: through an outage, and released from the command line."""

import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio
from fail_point import fail_point, times_entered
from pymongo import MongoClient
from structlog.testing import capture_logs
from telemetry_scene import LogOnly

from pool_daemon.cli import main
from pool_daemon.clock import SystemClock
from pool_daemon.errors import ExitCode, StoreError
from pool_daemon.guards.quarantine import Quarantine
from pool_daemon.settings import sections
from pool_daemon.store.client import Database, connect
from pool_daemon.store.pools import DuePool
from pool_daemon.store.quarantine import Quarantined, QuarantineStore

Client = MongoClient[dict[str, Any]]

POISON = StoreError("poison")
OWNER = 144


def tried(quarantine: Quarantine, *pool_ids: int) -> list[int]:
    """Return which of some pools the quarantine lets pass."""
    return [pool.pool_id for pool in quarantine.filter_allowed(DuePool(pool_id) for pool_id in pool_ids)]


@pytest_asyncio.fixture
async def database(mongo_uri: str, database_name: str) -> AsyncIterator[Database]:
    database = connect(uri=mongo_uri, name=database_name, timeout_seconds=2)
    yield database
    database.close()


class Deaf(LogOnly):
    def undone_seen(self, reason: str, pools: int, since_at: float | None = None) -> None:
        """Hear it and forget it."""

    def quarantine_seen(self, total: int, sample: Sequence[Quarantined]) -> None:
        """Hear it and forget it."""


def quarantine_of(database: Database, looks: dict[int, int] | None = None) -> Quarantine:
    def look_again(wishes: Mapping[int, int]) -> None:
        if looks is not None:
            looks.update(wishes)

    return Quarantine(
        store=QuarantineStore(database=database, identity="me"),
        settings=sections.Retry(attempts=1),
        clock=SystemClock(),
        look_again=look_again,
        observer=Deaf(),
    )


@pytest.fixture
def quarantine(database: Database) -> Quarantine:
    return quarantine_of(database)


def now() -> int:
    return int(time.time())


async def test_an_outage_crashes_nothing_and_what_could_not_be_written_is_written_afterwards(
    mongo: Client, database_name: str, quarantine: Quarantine
) -> None:
    documents = mongo[database_name]["pool-daemon-quarantine"]
    await quarantine.failed(7, POISON, now(), owner=OWNER)
    with fail_point(mongo, "update", "delete", "find", mode="alwaysOn", errorCode=50), capture_logs() as logs:
        await quarantine.failed(8, POISON, now(), owner=OWNER)
        await quarantine.settled([7])
        for _ in range(3):
            await quarantine.look()
        assert tried(quarantine, 7, 8, 9) == [7, 9]
    warnings = [entry["event"] for entry in logs if entry["log_level"] != "debug"]
    assert warnings == ["pool_quarantined", "quarantine_write_failed", "pool_released", "quarantine_write_failed"]
    assert [document["_id"] for document in documents.find()] == [7]
    await quarantine.look()
    assert [document["_id"] for document in documents.find()] == [8]
    assert tried(quarantine, 7, 8, 9) == [7, 9]


async def test_a_pool_that_is_fine_stays_so_though_its_document_cannot_be_removed_yet(
    mongo: Client, quarantine: Quarantine
) -> None:
    for pool_id in (7, 8):
        await quarantine.failed(pool_id, POISON, now(), owner=OWNER)
    with fail_point(mongo, "delete", mode="alwaysOn", errorCode=50):
        await quarantine.settled([7])
        await quarantine.look()
        assert tried(quarantine, 7, 8) == [7]


async def test_no_query_is_made_while_nothing_is_in_quarantine(mongo: Client, quarantine: Quarantine) -> None:
    await quarantine.load()
    before = times_entered(mongo)
    with fail_point(mongo, "find", "update", "delete", "aggregate", mode="alwaysOn", errorCode=11600):
        assert tried(quarantine, 7, 8) == [7, 8]
        await quarantine.settled([7, 8])
        await quarantine.look()
    assert times_entered(mongo) == before


async def test_more_pools_than_a_batch_holds_are_loaded(database: Database) -> None:
    before = quarantine_of(database)
    for pool_id in range(1, 1502):
        await before.failed(pool_id, POISON, now(), owner=OWNER)
    looks: dict[int, int] = {}
    after = quarantine_of(database, looks)
    await after.load()
    assert looks.keys() == set(range(1, 1502))


@pytest.mark.usefixtures("command_environment")
def test_the_commands_list_and_release(mongo: Client, database_name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quarantine", "list"]) == ExitCode.OK
    assert capsys.readouterr().out == "no pool is in quarantine\n"
    assert main(["quarantine", "list", "--json"]) == ExitCode.OK
    assert capsys.readouterr().out == ""
    failing = {
        "reason": "the document is too large",
        "tries": 5,
        "first_failed_at": datetime.fromtimestamp(1_700_000_000, UTC),
        "next_try_at": datetime.fromtimestamp(1_700_003_600, UTC),
        "by": "me",
    }
    mongo[database_name]["pool-daemon-quarantine"].insert_many(
        [{"_id": 7, **failing, "owner": OWNER}, {"_id": 8, **failing}]
    )
    assert main(["quarantine", "list"]) == ExitCode.OK
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split() == ["pool", "tries", "failing", "since", "next", "try", "reason"]
    assert [line.split()[0] for line in lines] == ["7", "8"]
    assert lines[0].endswith("2023-11-14 22:13:20 UTC  2023-11-14 23:13:20 UTC  the document is too large")
    assert main(["quarantine", "list", "--json"]) == ExitCode.OK
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert told[0] == {
        "pool_id": 7,
        "reason": "the document is too large",
        "tries": 5,
        "first_failed_at": 1_700_000_000,
        "next_try_at": 1_700_003_600,
        "by": "me",
        "owner": OWNER,
    }
    assert main(["quarantine", "release", "7"]) == ExitCode.OK
    assert main(["quarantine", "release", "7"]) == ExitCode.FAILED
    assert capsys.readouterr().out == "pool 7 is released\npool 7 is not in quarantine\n"
    assert main(["quarantine", "release", "8", "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == {"pool_id": 8, "released": True}
    assert mongo[database_name]["pool-daemon-quarantine"].count_documents({}) == 0
    records = list(mongo[database_name]["pool-daemon-events"].find(sort=[("pool_id", 1)]))
    assert [(each["kind"], each["actor"], each["pool_id"], each.get("customer_tid")) for each in records] == [
        ("released", "operator", 7, OWNER),
        ("released", "operator", 8, None),  # an older document, without the owner
    ]
    capsys.readouterr()
    assert main(["events", "list", "--owner", str(OWNER), "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["pool_id"] == 7


@pytest.mark.usefixtures("command_environment")
def test_all_pools_are_released_at_once_by_a_person_who_confirms_it(
    mongo: Client, database_name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    documents = mongo[database_name]["pool-daemon-quarantine"]
    at = datetime.fromtimestamp(1_700_000_000, UTC)
    failing = {"reason": "refused", "tries": 5, "first_failed_at": at, "next_try_at": at, "by": "me", "owner": OWNER}
    documents.insert_many([{"_id": pool_id, **failing} for pool_id in range(1, 1502)])
    assert main(["quarantine", "release", "--all"]) == ExitCode.FAILED
    told = capsys.readouterr()
    assert told.err.splitlines() == [
        "1,501 pools are going to be tried again",
        "nothing released; --yes does it without asking",
    ]
    assert (told.out, documents.count_documents({})) == ("", 1501)
    assert main(["quarantine", "release", "--all", "--yes"]) == ExitCode.OK
    assert capsys.readouterr().out == "1,501 pools released\n"
    records = mongo[database_name]["pool-daemon-events"].find({"kind": "released", "actor": "operator"})
    assert documents.count_documents({}) == 0
    assert sorted(each["pool_id"] for each in records) == list(range(1, 1502))
    assert main(["quarantine", "release", "--all", "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == {"released": 0}
    for words in ([], ["7", "--all"]):
        assert main(["quarantine", "release", *words]) == ExitCode.USAGE
