"""Notices of a running daemon: to a receiver by HTTP, with the end itself; and none without settings."""

import asyncio
import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
from actors import ME, ROOMY
from arithmetic_model import Rates
from bson import Int64
from daemon_process import DaemonProcess, running_daemon
from deadline import wait_until
from explorer import CONTAINER, PLENTY, VOLUME, Explorer
from indexes import build_indexes
from telemetry_scene import new_observer
from webhook_receiver import WebhookReceiver

from pool_daemon.clock import SystemClock
from pool_daemon.harness import environment
from pool_daemon.store.client import connect
from pool_daemon.store.decommissions import Decommissions
from pool_daemon.store.ends import Ends
from pool_daemon.store.outbox import Outbox
from pool_daemon.store.setup import NOTICE_COLLECTIONS, missing_indexes

KEY = "whsec_" + base64.b64encode(bytes(range(32))).decode()
SOON_SECONDS = 60


@pytest.fixture(scope="module")
def receiver() -> Iterator[WebhookReceiver]:
    receiver = WebhookReceiver()
    with receiver.listening():
        yield receiver


@pytest.fixture(scope="module")
def told(receiver: WebhookReceiver) -> dict[str, str]:
    return {
        "NOTICES__BEFORE": "7d, 1d, 1h",
        "NOTICES__INTERVAL_SECONDS": "0.2",
        "WEBHOOK__URL": receiver.url,
        "WEBHOOK__KEYS": KEY,
        "HTTP__PORT": "0",
    }


@pytest.fixture(scope="module")
def daemon_settings(told: dict[str, str]) -> dict[str, str]:
    return told


def pools_in(events: list[dict[str, Any]]) -> list[int]:
    return [pool["pool_id"] for event in events for pool in event["data"]["pools"]]


@pytest.mark.usefixtures("daemon")
def test_an_owner_is_told_before_the_end_after_a_top_up_and_of_the_end(
    explorer: Explorer, receiver: WebhookReceiver
) -> None:
    pool = explorer.buy(Rates(cu=1800, su=PLENTY), [CONTAINER, VOLUME])
    wait_until(
        lambda: pool.pool_id in pools_in(receiver.events("pool.expiring")), within_seconds=SOON_SECONDS, what="a notice"
    )
    (request,) = [each for each in receiver.requests if pool.pool_id in pools_in([each.event])]
    headers = {name.lower(): value for name, value in request.headers.items()}
    assert import_module("standardwebhooks").Webhook(KEY).verify(request.body, headers) == request.event
    assert request.event["data"] == {
        "customer_tid": 7,
        "pools": [{"pool_id": pool.pool_id, "empty_at": pool.empty_at, "lead_seconds": 3600}],
    }
    assert (request.event["specversion"], request.event["subject"]) == ("1.0", f"pool/{pool.pool_id}")

    explorer.top_up(pool.pool_id, Rates(cu=PLENTY))
    wait_until(
        lambda: pool.pool_id in pools_in(receiver.events("pool.replenished")), within_seconds=SOON_SECONDS, what="more"
    )

    explorer.shorten(pool.pool_id, Rates(cu=1, su=PLENTY))
    explorer.wait_until_gone(pool.workload_ids[:1], within_seconds=SOON_SECONDS)
    for kind in ("pool.exhausted", "workloads.decommissioned"):
        wait_until(lambda: pool.pool_id in pools_in(receiver.events(kind)), within_seconds=SOON_SECONDS, what=kind)  # noqa: B023
    (lost,) = [
        each
        for event in receiver.events("workloads.decommissioned")
        for each in event["data"]["pools"]
        if each["pool_id"] == pool.pool_id
    ]
    assert (lost["workloads"], lost["workload_ids"], lost["resources"]) == (1, pool.workload_ids[:1], ["cu"])
    assert explorer.next_actions(pool.workload_ids) == [4, 3]


@pytest.mark.usefixtures("daemon")
def test_the_notices_command_shows_what_was_told_and_sends_again(
    explorer: Explorer, receiver: WebhookReceiver, told: dict[str, str], mongo_uri: str
) -> None:
    pool = explorer.buy(Rates(cu=80_000), [CONTAINER])
    wait_until(
        lambda: pool.pool_id in pools_in(receiver.events("pool.expiring")), within_seconds=SOON_SECONDS, what="a notice"
    )

    def notices(*words: str, code: int = 0) -> str:
        environ = environment(DATABASE__URI=mongo_uri, DATABASE__NAME=explorer.database.name, **told)
        command = [sys.executable, "-m", "pool_daemon", "notices", *words]
        ran = subprocess.run(command, env=os.environ | environ, check=False, text=True, capture_output=True, timeout=60)
        assert ran.returncode == code, ran.stderr
        return ran.stdout

    def delivered() -> list[dict[str, Any]]:
        entries = [json.loads(line) for line in notices("list", "--json").splitlines()]
        return [each for each in entries if pool.pool_id in pools_in([each["event"]]) and each["state"] == "delivered"]

    wait_until(delivered, within_seconds=SOON_SECONDS, what="the event to be recorded as delivered")
    (entry,) = delivered()
    assert "1h before" in notices("preview", "--pool", str(pool.pool_id))
    assert json.loads(notices("preview", "--pool", str(pool.pool_id), "--json"))["told"]["lead"] == 86_400
    assert f"pool/{pool.pool_id}" in notices("list")
    assert notices("list", "--dead") == "no event is dead\n"

    before = len(receiver.requests)
    assert "sent again to webhook" in notices("replay", entry["event_id"])
    wait_until(
        lambda: entry["event_id"] in [each.event["id"] for each in receiver.requests[before:]],
        within_seconds=SOON_SECONDS,
        what="the event again",
    )
    notices("replay", "unknown", code=1)
    notices("preview", "--pool", "999", code=1)
    assert notices("test", "webhook") == "webhook has taken a test event\n"
    assert len(receiver.events("pool-daemon.test")) == 1
    receiver.status = 500
    assert "status 500" in notices("test", "webhook", code=1)
    receiver.status = 204


def test_a_receiver_that_answers_410_is_left_alone_until_a_test_reaches_it(
    mongo_uri: str, database_name: str, mongo: Any, told: dict[str, str]
) -> None:
    explorer, gone = Explorer(database=mongo[database_name]), WebhookReceiver()
    gone.status = 410
    with gone.listening():
        settings = told | {"WEBHOOK__URL": gone.url}
        environ = os.environ | environment(DATABASE__URI=mongo_uri, DATABASE__NAME=database_name, **settings)
        with running_daemon(uri=mongo_uri, database_name=database_name, **settings) as daemon:
            pool = explorer.buy(Rates(cu=1800), [CONTAINER])
            wait_until(lambda: daemon.said("receiver_gone"), within_seconds=SOON_SECONDS, what="410")
            assert len(gone.requests) == 1
            gone.status = 204
            command = [sys.executable, "-m", "pool_daemon", "notices", "test", "webhook"]
            ran = subprocess.run(command, env=environ, check=False, text=True, capture_output=True, timeout=60)
            assert "was off, and gets notices again" in ran.stdout, ran.stderr
            wait_until(
                lambda: pools_in(gone.events("pool.expiring")) == [pool.pool_id] and daemon.said("receiver_back"),
                within_seconds=SOON_SECONDS,
                what="the notice",
            )


def test_without_settings_there_is_no_collection_no_index_and_no_job(
    mongo_uri: str, database_name: str, mongo: Any
) -> None:
    explorer = Explorer(database=mongo[database_name])
    explorer.buy(Rates(cu=1800), [CONTAINER])
    expired = explorer.buy_expired(CONTAINER)
    with running_daemon(uri=mongo_uri, database_name=database_name, HTTP__PORT="0") as daemon:
        explorer.wait_until_gone(expired.workload_ids, within_seconds=SOON_SECONDS)
    assert not set(NOTICE_COLLECTIONS) & set(mongo[database_name].list_collection_names())
    assert daemon.said("notices_written") == []


def test_with_settings_the_daemon_builds_the_indexes_of_the_outbox(
    mongo_uri: str, database_name: str, told: dict[str, str]
) -> None:
    async def missing() -> list[str]:
        database = connect(uri=mongo_uri, name=database_name)
        found = await missing_indexes(database, notices=True)
        database.close()
        return [index.label for index in found]

    with running_daemon(uri=mongo_uri, database_name=database_name, **told):
        wait_until(lambda: asyncio.run(missing()) == [], within_seconds=SOON_SECONDS, what=f"{asyncio.run(missing())}")


def test_a_receiver_without_a_key_is_refused_at_the_start(
    mongo_uri: str, database_name: str, told: dict[str, str]
) -> None:
    unsigned = {name: value for name, value in told.items() if name != "WEBHOOK__KEYS"}
    with DaemonProcess(uri=mongo_uri, database_name=database_name, **unsigned) as daemon:
        daemon.wait_for_exit(code=78)
    assert "webhook.keys: missing" in "\n".join(daemon.log_lines())


def test_what_a_batch_does_is_in_the_outbox_if_and_only_if_it_is_committed(
    mongo_uri: str, database_name: str, mongo: Any
) -> None:
    explorer = Explorer(database=mongo[database_name])
    build_indexes(mongo_uri, database_name)
    long_ago = int(time.time()) - 3600
    pools = [
        explorer.buy(Rates(cu=60), [CONTAINER], bought_at=long_ago, customer_tid=Int64(owner)) for owner in (1, 1, 2)
    ]

    async def settle() -> None:
        database = connect(uri=mongo_uri, name=database_name)
        outbox = Outbox(database=database, receivers=[], keep_seconds=3600)
        ends = Ends(outbox=outbox, clock=SystemClock(), observer=new_observer())
        decommissions = Decommissions(database=database, clock=SystemClock(), actor=ME, ends=ends)
        for _ in range(2):  # the second finds nothing to do, and tells nothing
            await decommissions.settle([pool.pool_id for pool in pools], now=int(time.time()), limits=ROOMY)
        database.close()

    asyncio.run(settle())
    events = [entry["event"] for entry in mongo[database_name]["pool-daemon-outbox"].find()]
    assert sorted((event["type"], event["subject"]) for event in events) == [
        ("pool.exhausted", "owner/1"),
        ("pool.exhausted", f"pool/{pools[2].pool_id}"),
        ("workloads.decommissioned", "owner/1"),
        ("workloads.decommissioned", f"pool/{pools[2].pool_id}"),
    ]
