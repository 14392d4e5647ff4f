"""`pool-daemon orders`: what no node has taken, for how long, and of which node."""

import asyncio
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from actors import ME, ROOMY
from bson import Int64
from explorer import CONTAINER, VOLUME, Explorer, Purchase

from pool_daemon.clock import SystemClock
from pool_daemon.store.client import connect
from pool_daemon.store.decommissions import Decommissions
from pool_daemon.store.setup import create_collections, setup
from pool_daemon.store.waiting_orders import WaitingOrders

Document = dict[str, Any]
Run = Callable[..., list[str]]


@pytest.fixture
def run(run_command: Run) -> Run:
    return partial(run_command, "orders", "list")


@pytest.fixture
def decommission(mongo_uri: str, database_name: str) -> Callable[[Purchase], None]:
    """Settle a pool, as the daemon does."""

    async def settle(pool: Purchase) -> None:
        database = connect(uri=mongo_uri, name=database_name)
        await create_collections(database)
        await setup(database)
        settler = Decommissions(database=database, clock=SystemClock(), actor=ME)
        await settler.settle([pool.pool_id], now=int(time.time()), limits=ROOMY)
        database.close()

    return lambda pool: asyncio.run(settle(pool))


def found(lines: list[str]) -> list[int]:
    return [json.loads(line)["workload_id"] for line in lines]


def ordered_earlier(explorer: Explorer, workload_id: int, *, hours: float) -> None:
    """Let the last record of a workload be older."""
    at = datetime.fromtimestamp(time.time() - 3600 * hours, UTC)
    explorer.events.update_one({"workload_id": workload_id}, {"$set": {"decommissioned_at": at}})


def test_an_order_waits_from_its_decommission_until_its_node_has_reported(
    run: Run, explorer: Explorer, decommission: Callable[[Purchase], None]
) -> None:
    assert run() == ["0 delete orders wait"]
    pool = explorer.buy_expired(CONTAINER, VOLUME)
    decommission(pool)
    ordered_earlier(explorer, pool.workload_ids[1], hours=3)

    lines = run()
    assert lines[0] == "2 delete orders wait, the oldest for 3 h"
    assert max(map(len, lines)) <= 80
    assert [line.split()[-3:] for line in lines[2:]] == [
        [str(pool.pool_id), str(each), pool.workloads[0]["node_id"]] for each in reversed(pool.workload_ids)
    ]
    assert lines[3].split()[1] in ("ms", "s")
    assert found(run("--json", "--older-than", "1h")) == [pool.workload_ids[1]]

    explorer.bury(pool.pool_id, pool.workload_ids[1])
    assert found(run("--json")) == [pool.workload_ids[0]]
    assert run("--older-than", "1h") == ["0 delete orders wait"]


def test_a_workload_that_was_decommissioned_twice_waits_since_the_last_time(
    run: Run, explorer: Explorer, decommission: Callable[[Purchase], None]
) -> None:
    pool = explorer.buy_expired(CONTAINER)
    decommission(pool)
    ordered_earlier(explorer, pool.workload_ids[0], hours=9)
    explorer.deploy(pool.workload_ids[0])
    decommission(pool)
    assert explorer.events.count_documents({}) == 2
    (order,) = map(json.loads, run("--json"))
    assert time.time() - order["ordered_at"] < 60


def test_orders_of_others_come_last_and_no_other_order_counts(
    run: Run, explorer: Explorer, decommission: Callable[[Purchase], None]
) -> None:
    customers = explorer.new_workload(5, CONTAINER, next_action=4, node_id="node-b")
    deployment = explorer.new_workload(5, CONTAINER, next_action=3)
    explorer.orders.insert_many([customers, deployment])
    pool = explorer.buy_expired(CONTAINER)
    decommission(pool)

    assert run()[0].endswith(" 1 of them not given by the daemon")
    assert found(run("--json")) == [pool.workload_ids[0], customers["_id"]]
    assert found(run("--json", "--node", "node-b")) == [customers["_id"]]
    assert found(run("--json", "--older-than", "1s", "--node", "node-b")) == []


def test_the_oldest_of_many_are_found_on_whichever_page_they_are(
    run: Run, explorer: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pool_daemon.store.client.PAGE", 3)
    now = time.time()
    for number in range(10):
        order = explorer.new_workload(17, CONTAINER, next_action=4)
        explorer.orders.insert_one(order)
        at = datetime.fromtimestamp(now - 3600 * (number * 7 % 10 + 1), UTC)
        explorer.events.insert_one({"pool_id": Int64(17), "workload_id": order["_id"], "decommissioned_at": at})
    lines = run("--limit", "3")
    assert [line.split()[:2] for line in lines[2:-1]] == [["10", "h"], ["9", "h"], ["8", "h"]]
    assert lines[-1] == "and 7 more; --limit N shows more of them"


async def test_since_when_an_order_waits_is_looked_up_once_and_is_now_where_nothing_says_it(
    explorer: Explorer, mongo_uri: str, database_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pool_daemon.store.client.PAGE", 3)
    now = time.time() // 1
    for number in range(1, 8):
        order = explorer.new_workload(17, CONTAINER, next_action=3 if number == 7 else 4, _id=Int64(number))
        explorer.orders.insert_one(order)
        at = datetime.fromtimestamp(now - 3600 * number, UTC)
        if number != 5:
            explorer.events.insert_one({"pool_id": Int64(17), "workload_id": Int64(number), "decommissioned_at": at})
    database = connect(uri=mongo_uri, name=database_name)
    orders = WaitingOrders(database=database)
    wanted = {number: now - 3600 * number for number in (1, 2, 3, 4, 6)} | {5: now}
    assert await orders.since({}, now=now, most=100) == wanted
    explorer.events.drop()
    explorer.orders.delete_one({"_id": 1})
    del wanted[1]
    assert await orders.since(wanted, now=now + 60, most=100) == wanted
    assert len(await orders.since({}, now=now, most=4)) == 4
    database.close()


def test_customers_text_of_any_length_is_cut_and_escaped(run: Run, explorer: Explorer) -> None:
    long = "\x1b" * 3_000_000
    explorer.orders.insert_many(
        [
            explorer.new_workload(5, CONTAINER, next_action=4, node_id=long, description=long),
            explorer.new_workload(5, CONTAINER, next_action=4, _id="x" * 9000) | {"pool_id": "\x1b"},
        ]
    )
    lines = run()
    assert len(lines) == 4
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in "".join(lines)


def test_of_text_of_any_length_the_server_sends_little(run: Run, explorer: Explorer) -> None:
    """What a line of text cuts off, JSON would show whole."""
    long = "x" * 3_000_000
    whole = explorer.new_workload(5, CONTAINER, next_action=4, node_id=long, description=long, customer_tid=long)
    odd = explorer.new_workload(5, CONTAINER, next_action=4, _id=long) | {"pool_id": long, "workload_type": long}
    explorer.orders.insert_many([whole, odd | {"node_id": [long]}])

    first, second = sorted(map(json.loads, run("--json")), key=lambda order: str(order["workload_id"]))
    assert first["workload_id"] == whole["_id"]
    assert (first["node_id"], first["customer_tid"]) == ("x" * 200, None)
    assert (second["workload_id"], second["node_id"]) == ("string", "")
    assert (second["pool_id"], second["workload_type"]) == (None, None)
