"""`pool-daemon events`: the daemon's records, found by pool, owner, workload, node, type and time."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import Any

import pytest
from actors import ME
from arithmetic_model import Rates
from bson import Int64, ObjectId
from deadline import until
from explorer import CONTAINER, Explorer
from fail_point import fail_point
from indexes import build_indexes
from pymongo import MongoClient
from pymongo.collection import Collection

from pool_daemon.capacity.exhaustion import Resource
from pool_daemon.capacity.pool import NEVER, new_pool
from pool_daemon.cli import main
from pool_daemon.errors import ExitCode
from pool_daemon.harness import environment
from pool_daemon.store import event_history
from pool_daemon.store.cases import Case, Decommissioned
from pool_daemon.store.client import connect
from pool_daemon.store.event_history import EventFilter, EventHistory, Record
from pool_daemon.store.event_stream import EventStream
from pool_daemon.store.events import EventStore
from pool_daemon.store.pool_changes import Author
from pool_daemon.store.pool_edits import PoolEdits
from pool_daemon.store.records import NUMBERS, Actor, ActorKind, EventKind, Subject, Why, envelope
from pool_daemon.store.sessions import Session

NOON = 1_796_040_000
"""2026-11-30 12:00 UTC"""

Document = dict[str, Any]
Run = Callable[..., list[str]]


@pytest.fixture
def explorer(mongo: MongoClient[Document], mongo_uri: str, database_name: str) -> Explorer:
    """Write to a database that has the indexes."""
    build_indexes(mongo_uri, database_name)
    return Explorer(database=mongo[database_name])


@pytest.fixture
def run(run_command: Run) -> Run:
    return partial(run_command, "events")


def record(events: Collection[Document], workload_id: Any, *, at: float = NOON, **fields: Any) -> None:
    document = {
        "_id": ObjectId(int(at).to_bytes(4, "big") + ObjectId().binary[4:]),
        "kind": "decommissioned",
        "workload_id": Int64(workload_id) if isinstance(workload_id, int) else workload_id,
        "pool_id": Int64(17),
        "customer_tid": Int64(7),
        "workload_type": 1,
        "node_id": "node-a",
        "resources": ["cu"],
        "reason": "resource exhausted",
        "empty_at": Int64(int(at)),
        "decommissioned_at": datetime.fromtimestamp(at, UTC),
        "by": "me",
    }
    events.insert_one(document | fields)


def found(lines: list[str]) -> list[int]:
    return [json.loads(line)["workload_id"] for line in lines]


@pytest.mark.usefixtures("explorer")
def test_a_record_that_the_daemon_made_is_shown(run: Run, mongo_uri: str, database_name: str) -> None:
    pool = new_pool(17, 7, 0, [], now=NOON)
    gone = Decommissioned(501, 17, 7, 12, "node-a", (Resource.COMPUTE, Resource.ADDRESSES), NOON)
    case = Case(as_read=pool, synced=pool, gone=(gone,), orders=(None,), sizes=(0,))

    async def write() -> None:
        database = connect(uri=mongo_uri, name=database_name)
        store = EventStore(database=database, actor=Actor(ActorKind.DAEMON, "me", "1.0", lambda: 3, lambda: 9))

        async def body(session: Session) -> None:
            await store.decommissioned([case], at=NOON + 0.25, session=session)

        await database.transact(body, doing="writing")
        database.close()

    asyncio.run(write())
    head, row = run("list")
    assert (head.split()[:3], len(head) <= 80, len(row) <= 80) == (["at", "(UTC)", "pool"], True, True)
    assert row.split() == ["2026-11-30", "12:00:00", "17", "501", "virtual_machine", "cu,ipv4u", "250", "ms"]
    (told,) = map(json.loads, run("list", "--json"))
    assert len(told.pop("record_id")) == 24
    assert told == {
        "kind": "decommissioned",
        "at": NOON + 0.25,
        "pool_id": 17,
        "customer_tid": 7,
        "workload_id": 501,
        "workload_type": 12,
        "node_id": "node-a",
        "resources": ["cu", "ipv4u"],
        "reason": "resource exhausted",
        "empty_at": NOON,
        "by": "me",
        "amounts": [],
        "nodes": [],
        "actor": "daemon",
        "version": "1.0",
        "term": 3,
        "pass_number": 9,
        "before": dict.fromkeys(NUMBERS[:6], 0.0) | {"last_updated": NOON, "empty_at": NEVER},
        "after": None,
    }


def test_an_operators_changes_stand_between_the_decommissions(
    run: Run, explorer: Explorer, mongo_uri: str, database_name: str
) -> None:
    pool = explorer.buy(Rates(cu=5.0), [])

    async def change() -> None:
        database = connect(uri=mongo_uri, name=database_name)
        for number, at in enumerate((NOON + 10, NOON + 30)):
            author = Author(f"root@\x1b[2J{number}", "1.0", f"key-{number}", "ticket 4711")
            edits = PoolEdits(database=database, author=author)
            if number:
                await edits.add_nodes(pool.pool_id, ["node-b"], at)
            else:
                await edits.top_up(pool.pool_id, (86_400.0 * 60, 0.0, 3600.0), at)
        database.close()

    asyncio.run(change())
    for number, at in enumerate((NOON, NOON + 20, NOON + 40)):
        record(explorer.events, number, at=at, pool_id=Int64(pool.pool_id))

    lines = run("list", "--pool", str(pool.pool_id))
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in "".join(lines)
    assert [line.split()[3] for line in lines[1:]] == ["0", "topped_up", "1", "nodes_added", "2"]
    assert "topped_up 1 CU for 60 d, 1 IPv4U for 60 min, " in lines[2]
    assert "nodes_added node-b, root@" in lines[4]

    kinds = [json.loads(line)["kind"] for line in run("list", "--json", "--owner", "7", "--limit", "2")]
    assert kinds == ["nodes_added", "decommissioned"]
    exported = [json.loads(line) for line in run("export", "--since", "2026-11-30T12:00:10")]
    assert [each["at"] for each in exported] == [NOON + 10, NOON + 20, NOON + 30, NOON + 40]
    assert (exported[0]["amounts"], exported[0]["reason"]) == ([86_400.0 * 60, 0.0, 3600.0], "ticket 4711")
    assert exported[2]["nodes"] == ["node-b"]
    assert found(run("list", "--json", "--type", "container")) == [0, 1, 2]


def test_records_are_found_by_each_of_their_features(run: Run, explorer: Explorer) -> None:
    record(explorer.events, 1)
    record(explorer.events, 2, pool_id=Int64(18), customer_tid=Int64(8))
    record(explorer.events, 3, node_id="n" * 200)
    record(explorer.events, 4, workload_type=2)
    assert found(run("list", "--json", "--pool", "18")) == [2]
    assert found(run("list", "--json", "--owner", "7")) == [1, 3, 4]
    assert found(run("list", "--json", "--node", "n" * 250)) == [3]
    assert found(run("list", "--json", "--type", "volume")) == [4]
    assert found(run("list", "--json", "--workload", "3")) == [3]
    assert found(run("list", "--json", "--owner", "7", "--type", "container", "--node", "node-a")) == [1]
    assert run("list", "--pool", "19") == ["none"]
    assert found(run("export", "--since", "2026-11-30", "--owner", "8")) == [2]


@pytest.mark.parametrize("window", [1, 2, 3, 7, 50_000])
def test_windows_leave_nothing_out_and_show_nothing_twice(
    run: Run, explorer: Explorer, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    monkeypatch.setattr(event_history, "WINDOW", window)
    for number in range(12):
        record(explorer.events, number, at=NOON + number // 2, customer_tid=Int64(7 + (number % 3 == 0)))
    assert found(run("list", "--json")) == list(range(12))
    assert found(run("list", "--json", "--limit", "5")) == [7, 8, 9, 10, 11]
    assert found(run("list", "--json", "--owner", "8")) == [0, 3, 6, 9]
    assert found(run("list", "--json", "--owner", "8", "--limit", "2")) == [6, 9]
    assert found(run("export", "--since", "2026-11-30")) == list(range(12))
    assert found(run("export", "--since", "2026-11-30T12:00:03", "--until", "2026-11-30T12:00:05")) == [6, 7, 8, 9]


def test_an_instant_bounds_what_is_read_though_no_index_holds_it(run: Run, explorer: Explorer) -> None:
    day = 86_400
    for number in range(200):
        record(explorer.events, number, at=NOON + number * day)
    explorer.database.command("profile", 2)
    assert found(run("list", "--json", "--since", "2026-12-02", "--until", "2026-12-04")) == [2, 3]
    explorer.database.command("profile", 0)
    reads = list(explorer.database["system.profile"].find({"op": "query", "ns": explorer.events.full_name}))
    assert reads
    assert max(read["docsExamined"] for read in reads) <= 3


def test_a_record_whose_id_was_made_in_another_second_is_found_all_the_same(run: Run, explorer: Explorer) -> None:
    record(explorer.events, 1, decommissioned_at=datetime.fromtimestamp(NOON - 1800, UTC))
    record(explorer.events, 2, decommissioned_at=datetime.fromtimestamp(NOON + 1800, UTC))
    assert found(run("list", "--json", "--since", "2026-11-30T12:20")) == [2]
    assert found(run("list", "--json", "--until", "2026-11-30T11:40")) == [1]


def test_a_pools_records_are_found_through_the_index_and_a_workloads_through_its_pool(
    run: Run, explorer: Explorer
) -> None:
    for number in range(300):
        record(explorer.events, number, pool_id=Int64(number % 100), customer_tid=Int64(number % 50))
    explorer.workloads.insert_one(explorer.new_workload(42, CONTAINER, _id=Int64(142)))
    explorer.database.command("profile", 2)
    assert found(run("list", "--json", "--pool", "42")) == [42, 142, 242]
    assert found(run("list", "--json", "--workload", "142")) == [142]
    assert found(run("list", "--json", "--owner", "42", "--limit", "3")) == [192, 242, 292]
    explorer.database.command("profile", 0)
    reads = list(explorer.database["system.profile"].find({"op": "query", "ns": explorer.events.full_name}))
    # Each second read looks for changes by operators; of the owner's six records the last three are read.
    assert [read["docsExamined"] for read in reads] == [3, 0, 1, 0, 3, 0]


def test_records_are_found_by_their_kind(run: Run, explorer: Explorer) -> None:
    record(explorer.events, 1)
    held = envelope(EventKind.HELD, at=NOON + 1, actor=ME, subject=Subject(17, 7), why=Why("many\x1b"))
    took_over = envelope(EventKind.TOOK_OVER, at=NOON + 2, actor=ME, why=Why("the lease was expired"))
    explorer.events.insert_many([held, took_over])
    lines = run("list")
    assert [line.split()[2] for line in lines[1:]] == ["17", "17", "?"]
    assert r"held, me: many\x1b" in lines[2]
    for kind, number in (("held", 1), ("took_over", 1), ("released", 0), ("topped_up", 0)):
        assert [json.loads(line)["kind"] for line in run("list", "--json", "--kind", kind)] == [kind] * number
    assert [json.loads(line)["kind"] for line in run("list", "--json", "--pool", "17")] == ["decommissioned", "held"]


def test_events_are_followed_until_the_command_is_interrupted(
    explorer: Explorer, mongo_uri: str, database_name: str
) -> None:
    """What was there comes first, then what is wanted of what comes, each once, at once and as a line of JSON."""
    for number in range(3):
        record(explorer.events, number)
    words = ["events", "list", "--follow", "--json", "--pool", "17", "--limit", "2"]
    command = [sys.executable, "-m", "pool_daemon", *words]
    settings = environment(DATABASE__URI=mongo_uri, DATABASE__NAME=database_name)
    with subprocess.Popen(command, env=os.environ | settings, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        lines = iter(following.stdout.readline, "")
        assert found(list(islice(lines, 2))) == [1, 2]
        record(explorer.events, 3, pool_id=Int64(18))
        record(explorer.events, 4)
        assert found(list(islice(lines, 1))) == [4]
        explorer.events.insert_one(envelope(EventKind.HELD, at=NOON, actor=ME, subject=Subject(17), why=Why("many")))
        assert json.loads(next(lines))["kind"] == "held"
        following.send_signal(signal.SIGINT)
        assert following.wait(10) == ExitCode.FORCED
        assert list(lines) == []


async def test_a_stream_that_breaks_goes_on_where_it_was(
    mongo: MongoClient[Document], mongo_uri: str, database_name: str, explorer: Explorer
) -> None:
    waits: list[str] = []
    database = connect(uri=mongo_uri, name=database_name)
    stream = EventStream(database=database, on_wait=lambda error: waits.append(str(error)))
    record(explorer.events, 0)
    async with aclosing(stream.follow(EventFilter(pool=17), limit=10)) as events:
        assert (await anext(events)).workload_id == 0
        coming = asyncio.create_task(anext(events))
        with fail_point(mongo, "getMore", mode="alwaysOn", closeConnection=True):
            await until(lambda: len(waits) > 1, within_seconds=20, what="two attempts")
            for number in range(1, 4):
                record(explorer.events, number)
        assert [(await coming).workload_id, *[(await anext(events)).workload_id for _ in range(2)]] == [1, 2, 3]
    database.close()


async def test_what_is_committed_while_the_last_ones_are_read_comes_once(
    mongo_uri: str, database_name: str, explorer: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_last = EventHistory.last

    async def last(history: EventHistory, wanted: EventFilter, *, limit: int) -> list[Record]:
        record(explorer.events, 1)
        before = await read_last(history, wanted, limit=limit)
        record(explorer.events, 2)
        return before

    monkeypatch.setattr(EventHistory, "last", last)
    database = connect(uri=mongo_uri, name=database_name)
    stream = EventStream(database=database, on_wait=lambda error: pytest.fail(str(error)))
    async with aclosing(stream.follow(EventFilter(), limit=10)) as events:
        coming = [await anext(events), await anext(events)]
        record(explorer.events, 3)
        coming.append(await anext(events))
    assert [each.workload_id for each in coming] == [1, 2, 3]
    database.close()


def test_an_end_of_what_has_none_is_a_usage_error(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    del run
    assert main(["events", "list", "--follow", "--until", "1h"]) == ExitCode.USAGE
    assert "leave one of them out" in capsys.readouterr().err
    assert main(["events", "list", "--kind", "gone"]) == ExitCode.USAGE
    assert "invalid choice: 'gone'" in capsys.readouterr().err


def test_records_of_old_and_odd_kinds_are_shown_and_break_no_table(run: Run, explorer: Explorer) -> None:
    explorer.events.insert_one({"kind": "\x1b[2J"})
    explorer.events.insert_one({"_id": "operator:x", "amounts": ["x", 1], "nodes": [7, "\x1b[2J" * 99]})
    record(explorer.events, "x" * 100_000, at=time.time(), resources=["\x1b[2J"], workload_type="\x1b[2J", pool_id="x")
    lines = run("list")
    assert len(lines) == 4
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in "".join(lines)
    assert json.loads(run("export", "--since", "1h")[-1])["workload_id"] == "string"
