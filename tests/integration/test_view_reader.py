"""What the page shows of a pool or an owner: what the commands say, in bounded time and length."""

import json
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio
from arithmetic_model import Rates
from bson import Int64
from daemon_process import running_daemon
from deadline import soonest_of
from endpoint import Endpoint
from explorer import CONTAINER, PLENTY, VOLUME, Explorer
from fail_point import fail_point
from grace_scene import in_grace
from indexes import build_indexes
from pymongo import MongoClient
from pymongo.monitoring import CommandListener, CommandStartedEvent

from pool_daemon.cli import main
from pool_daemon.errors import ExitCode, PoolNotFoundError, StoreError
from pool_daemon.harness import environment
from pool_daemon.settings.grace import Grace
from pool_daemon.store import owned_pools
from pool_daemon.store.client import connect
from pool_daemon.store.records import Actor, ActorKind
from pool_daemon.telemetry.endpoint.pool_views import MOST_BYTES
from pool_daemon.views import explanation, view_reader
from pool_daemon.views.grace_view import grace_views
from pool_daemon.views.view_reader import ViewReader

DAY = 86_400
Document = dict[str, Any]


@pytest.fixture
def explorer(mongo_uri: str, mongo: MongoClient[Document], database_name: str) -> Explorer:
    build_indexes(mongo_uri, database_name)
    return Explorer(database=mongo[database_name])


@pytest_asyncio.fixture
async def reader(mongo_uri: str, database_name: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ViewReader]:
    monkeypatch.setattr(explanation, "RECHECK_SECONDS", 0.0)
    database = connect(uri=mongo_uri, name=database_name)
    yield ViewReader(database=database, actor=Actor(ActorKind.DAEMON, "me"))
    database.close()


def run(
    uri: str, name: str, *words: str | int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    for variable, value in environment(DATABASE__URI=uri, DATABASE__NAME=name).items():
        monkeypatch.setenv(variable, value)
    assert main([*map(str, words)]) in (ExitCode.OK, ExitCode.FAILED)
    return capsys.readouterr().out


def test_a_running_daemon_says_what_the_commands_say(
    mongo_uri: str,
    database_name: str,
    explorer: Explorer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pool = explorer.buy(Rates(cu=20.0 * DAY, su=40.0 * DAY), [CONTAINER, VOLUME])
    gone = explorer.buy_expired(CONTAINER)
    with (
        running_daemon(uri=mongo_uri, database_name=database_name) as first,
        running_daemon(uri=mongo_uri, database_name=database_name) as second,
    ):
        endpoints = Endpoint(first), Endpoint(second)
        for endpoint in endpoints:
            endpoint.wait_for("/readyz", 200)
            status, text = endpoint.ask(f"/pools/{pool.pool_id}")
            assert status == 200, text
        roles = {endpoint.status_json()["role"] for endpoint in endpoints}
        assert roles == {"leader", "standby"}
        shown = json.loads(text)
        endpoints[0].wait_for(f"/owners/{shown['owner']}", 200)
        endpoints[0].wait_for("/pools/5", 404)
        endpoints[0].wait_for(f"/pools/{gone.pool_id}", 200)
        story = json.loads(endpoints[0].ask(f"/pools/{gone.pool_id}")[1])["story"]
    assert any("decommissioned by" in line["text"] for line in story)
    told = run(mongo_uri, database_name, "pools", "show", pool.pool_id, monkeypatch=monkeypatch, capsys=capsys)
    assert shown["workloads_head"] in told
    assert shown["resources"][0][3] == "1 CU for 20 d"
    texts = [text.rsplit(",", 1)[0] for _, text in shown["facts"]]  # the age behind the last comma grows
    assert len(texts) >= 5
    assert [text for text in texts if text not in told] == []
    assert all(text in told for row in shown["workloads"] for text in row)


async def test_the_story_is_told_as_explain_tells_it(reader: ViewReader, explorer: Explorer) -> None:
    pool = explorer.buy(Rates(cu=20.0 * DAY), [CONTAINER])
    explorer.workloads.update_one({"_id": pool.workload_ids[0]}, {"$set": {"next_action": 4}})
    shown = await reader.read("pools", pool.pool_id)
    assert shown["problems"] == [f"workload {pool.workload_ids[0]} is to be deleted and has no order"]
    assert shown["story"][-1]["text"].startswith(f"workload {pool.workload_ids[0]}, container: next action delete")


async def test_a_pool_without_a_readable_document_still_has_its_story(reader: ViewReader, explorer: Explorer) -> None:
    with pytest.raises(PoolNotFoundError):
        await reader.read("pools", 5)
    pool = explorer.buy(Rates(cu=20.0 * DAY), [CONTAINER], cus="x")
    shown = await reader.read("pools", pool.pool_id)
    assert shown["problems"] == ["the pool is unreadable: cus is of type str, not a number"]
    assert "facts" not in shown


async def test_ids_are_texts_because_a_browser_has_no_such_numbers(reader: ViewReader, explorer: Explorer) -> None:
    explorer.pools.insert_one({"_id": Int64(2**63 - 1), "customer_tid": Int64(-(2**63)), "empty_at": Int64(2**63 - 1)})
    shown = await reader.read("pools", 2**63 - 1)
    assert (shown["pool"], shown["owner"]) == ("9223372036854775807", "-9223372036854775808")
    owned = await reader.read("owners", -(2**63))
    assert [(each["pool_id"], each["ends"]) for each in owned["first"]] == [("9223372036854775807", "never")]


async def test_customers_texts_are_escaped_and_the_answer_is_short(reader: ViewReader, explorer: Explorer) -> None:
    long = "<script>\u202e\x1b" * 200_000
    pool = explorer.buy(Rates(cu=PLENTY), [CONTAINER] * 40, node_ids=[long, *["n" * 100_000] * 50])
    explorer.workloads.update_many({}, {"$set": {"node_id": long[:1_000_000], "metadata": "x" * 100_000}})
    explorer.database["pool-daemon-quarantine"].insert_one(
        {"_id": Int64(pool.pool_id), "reason": long, "tries": 5, "by": long}
        | dict.fromkeys(("first_failed_at", "next_try_at"), datetime.now(UTC))
    )
    text = json.dumps(await reader.read("pools", pool.pool_id))
    assert len(text) < MOST_BYTES / 4
    assert "<script>" in text
    assert "\\u202e" not in text.replace("\\\\u202e", "")
    assert "\\u001b" not in text


async def test_a_large_pool_is_not_compared_and_says_so(
    reader: ViewReader, explorer: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = explorer.buy(Rates(cu=20.0 * DAY), [CONTAINER] * 3)
    assert (await reader.read("pools", pool.pool_id))["is_compared"] is True
    explorer.workloads.delete_one({"_id": pool.workload_ids[0]})
    assert (await reader.read("pools", pool.pool_id))["problems"] != []
    monkeypatch.setattr(reader._known, "_most_compared", 2)
    monkeypatch.setattr(view_reader, "MOST_COMPARED", 2)
    shown = await reader.read("pools", pool.pool_id)
    assert (shown["is_compared"], shown["problems"]) == (False, [])


async def test_an_owner_is_shown_with_the_pools_that_run_empty_first(
    reader: ViewReader, explorer: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = int(time.time())
    ends = [now + 7 * DAY, now - 3, now + 60, "soon", 2**62]
    explorer.pools.insert_many(
        {"_id": Int64(each), "customer_tid": Int64(7 + each // 100), "empty_at": end, "active_workload_ids": [1, 2]}
        for each, end in enumerate([*ends, *[now + 5] * 100], start=1)
    )
    shown = await reader.read("owners", 7)
    assert shown["first"][0] == {
        "pool_id": "2", "empty_at": now - 3, "workloads": 2, "ends": shown["first"][0]["ends"],
    }  # fmt: skip
    assert (shown["pools"], len(shown["first"]), shown["is_sorted"], shown["is_counted"]) == (99, 50, True, True)
    monkeypatch.setattr(owned_pools, "MOST_COUNTED", 30)
    monkeypatch.setattr(view_reader, "MOST_COUNTED", 30)
    monkeypatch.setattr(view_reader, "MOST_READ", 20)
    monkeypatch.setattr(owned_pools, "MOST_READ", 20)
    shown = await reader.read("owners", 7)
    assert (shown["pools"], len(shown["first"]), shown["is_sorted"], shown["is_counted"]) == (30, 20, False, False)
    assert (await reader.read("owners", 9))["pools"] == 0


@pytest.mark.parametrize(("kind", "command"), [("pools", "find"), ("owners", "aggregate")])
async def test_a_read_that_takes_too_long_is_given_up(
    reader: ViewReader,
    explorer: Explorer,
    mongo: MongoClient[Document],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    command: str,
) -> None:
    pool = explorer.buy(Rates(cu=20.0 * DAY), [CONTAINER])
    monkeypatch.setattr(view_reader, "LIMIT_SECONDS", 0.4)

    async def took() -> float:
        with fail_point(mongo, command, mode="alwaysOn", blockConnection=True, blockTimeMS=2500):
            began = time.monotonic()
            with pytest.raises(StoreError):
                await reader.read(kind, pool.pool_id)
            return time.monotonic() - began

    await soonest_of(took, within_seconds=2, what="a read to be given up")


async def test_the_server_is_told_how_long_each_read_may_take(
    mongo_uri: str, database_name: str, explorer: Explorer
) -> None:
    pool = explorer.buy(Rates(cu=20.0 * DAY), [CONTAINER])
    sent: list[Mapping[str, Any]] = []

    class Commands(CommandListener):
        def started(self, event: CommandStartedEvent) -> None:
            sent.append(event.command)

        def succeeded(self, event: object) -> None: ...

        def failed(self, event: object) -> None: ...

    database = connect(uri=mongo_uri, name=database_name, listeners=[Commands()])
    reader = ViewReader(database=database, actor=Actor(ActorKind.DAEMON, "me"))
    for kind in ("pools", "owners"):
        await reader.read(kind, pool.pool_id)
    database.close()
    reads = [each for each in sent if {"find", "aggregate", "count"} & set(each)]
    assert len(reads) > 10
    assert [each for each in reads if not 0 < each.get("maxTimeMS", 0) <= 3000] == []


def test_without_the_setting_nobody_may_look_up_a_pool(mongo_uri: str, database_name: str, explorer: Explorer) -> None:
    pool = explorer.buy(Rates(cu=20.0 * DAY), [CONTAINER])
    with running_daemon(uri=mongo_uri, database_name=database_name, HTTP__POOL_VIEWS="false") as daemon:
        endpoint = Endpoint(daemon)
        endpoint.wait_for("/readyz", 200)
        assert endpoint.ask(f"/pools/{pool.pool_id}")[0] == 404
        assert endpoint.status_json()["pool_views"] is False


async def test_grace_is_shown_of_a_pool_and_of_its_owner(
    mongo_uri: str, database_name: str, explorer: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explanation, "RECHECK_SECONDS", 0.0)
    pool, other = explorer.buy_expired(VOLUME, customer_tid=7), explorer.buy_expired(VOLUME, customer_tid=7)
    in_grace(explorer, pool, for_seconds=2 * DAY + 60)
    database = connect(uri=mongo_uri, name=database_name)
    graces = grace_views(database, Grace(volume="7d", budget="30d"))
    reader = ViewReader(database=database, actor=Actor(ActorKind.DAEMON, "me"), graces=graces)
    shown, owned = await reader.read("pools", pool.pool_id), await reader.read("owners", 7)
    database.close()
    facts = [text for _, text in shown["facts"]]
    assert any(text.startswith("in grace since ") and text.endswith(", 2 d ago: out of storage") for text in facts)
    assert f"volume {pool.workload_ids[0]} goes in 4 d 23 h" in facts
    assert shown["problems"] == []
    ends = {each["pool_id"]: each["ends"] for each in owned["first"]}
    assert ends[str(pool.pool_id)].startswith("in grace since ")
    assert "grace" not in ends[str(other.pool_id)]


async def test_without_settings_for_it_nothing_of_grace_is_read(reader: ViewReader, explorer: Explorer) -> None:
    pool = explorer.buy_expired(VOLUME, customer_tid=7)
    in_grace(explorer, pool, for_seconds=DAY)
    explorer.database.create_collection("pool-daemon-policies")
    shown = json.dumps([await reader.read("pools", pool.pool_id), await reader.read("owners", 7)])
    assert grace_views(connect(uri="mongodb://127.0.0.1:1", name="explorer"), Grace()) is None
    assert "in grace" not in shown
