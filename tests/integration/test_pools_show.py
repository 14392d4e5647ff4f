"""One pool, whole: what is left and until when, what to buy, its workloads, and what keeps the daemon from it."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from arithmetic_model import Rates
from bson import Int64
from explorer import CONTAINER, FREE, PUBLIC_IP, VOLUME, Explorer

DAY = 86_400
Show = Callable[..., list[str]]


@pytest.fixture
def show(run_command: Callable[..., list[str]]) -> Show:
    return lambda pool, *options: run_command("pools", "show", str(pool.pool_id), *options)


def test_amounts_are_said_as_they_are_bought(show: Show, explorer: Explorer) -> None:
    pool = explorer.buy(Rates(cu=60.5 * DAY, su=100 * DAY), [CONTAINER, CONTAINER, VOLUME])
    lines = show(pool)
    assert max(map(len, lines)) <= 80
    compute, storage, addresses = (
        next(line for line in lines if line.startswith(name)) for name in ("com", "sto", "add")
    )
    assert compute.split()[:4] == ["compute", "2", "5.23M", "2"]
    assert " 2 CU for 30 d " in compute
    assert compute.endswith(", in 30 d")
    assert " 1 SU for 100 d " in storage
    assert addresses.split() == ["addresses", "nothing", "0", "none", "never"]
    assert "first" not in storage
    assert next(line for line in lines if line.startswith("runs empty")).endswith(": compute first")


def test_what_to_buy_is_what_the_pool_needs_to_last_so_much_longer(show: Show, explorer: Explorer) -> None:
    pool = explorer.buy(Rates(cu=2.0 * DAY, su=20.0 * DAY), [CONTAINER, CONTAINER, VOLUME])
    lines = show(pool)
    at = next(number for number, line in enumerate(lines) if line.startswith("to last 30 d more, until "))
    assert lines[at + 1].split(maxsplit=2) == ["compute", f"{60 * DAY:,}", "2 CU for 30 d"]
    assert lines[at + 2].split(maxsplit=2) == ["storage", f"{11 * DAY:,}", "1 SU for 11 d"]
    whole = json.loads(show(pool, "--json", "--lasts", "7d")[0])
    assert whole["to_last"] == {"seconds": 7 * DAY, "until": pool.empty_at + 7 * DAY, "buy": {"cu": 14 * DAY}}
    explorer.top_up(pool.pool_id, Rates(cu=14.0 * DAY))
    assert explorer.stored(explorer.pools, pool.pool_id)["empty_at"] >= pool.empty_at + 7 * DAY


def test_each_workload_is_shown_with_its_state_units_and_order(show: Show, explorer: Explorer) -> None:
    pool = explorer.buy(Rates(cu=5.0 * DAY), [CONTAINER, VOLUME, PUBLIC_IP, *FREE[:1]])
    running, ordered, lost, free = pool.workload_ids
    explorer.workloads.update_many({"_id": {"$in": [ordered, lost]}}, {"$set": {"next_action": 4}})
    explorer.orders.insert_one(explorer.stored(explorer.workloads, ordered))
    stray = explorer.new_workload(pool.pool_id, CONTAINER)
    failed = explorer.new_workload(pool.pool_id, CONTAINER, next_action=4)
    odd = explorer.new_workload(pool.pool_id, CONTAINER, next_action=2, workload_type=3)
    gone = explorer.new_workload(pool.pool_id, CONTAINER, next_action=6)
    explorer.workloads.insert_many([stray, failed, odd, gone])

    lines = show(pool)
    assert max(map(len, lines)) <= 80
    rows = {int(line[:12]): line[12:].split(maxsplit=5) for line in lines if line[:12].strip().isdecimal()}
    assert rows == {
        running: ["container", "deploy", "1", "0", "0"],
        free: ["proxy", "deploy", "0", "0", "0"],
        stray["_id"]: ["container", "deploy", "1", "0", "0", "not in pool's list"],
        ordered: ["volume", "delete", "0", "1", "0", "order waits"],
        lost: ["public_ip", "delete", "0", "0", "1", "order missing"],
        failed["_id"]: ["container", "delete", "1", "0", "0", "nothing runs"],
        odd["_id"]: ["network", "pay", "?", "?", "?", "units unknown"],
    }
    assert "workloads     4 listed; by next action: 1 pay, 3 deploy, 3 delete, 1 deleted" in lines

    whole = json.loads(show(pool, "--json", "--limit", "1")[0])
    assert whole["workloads_by_action"] == {"pay": 1, "deploy": 3, "delete": 3, "deleted": 1}
    (first,) = whole["workloads"]
    assert (first["workload_id"], first["type_name"], first["units"]) == (
        running,
        "container",
        {"cu": 1, "su": 0, "ipv4u": 0},
    )
    assert show(pool, "--limit", "2")[-1] == "and 5 more; --limit N shows more of them"


def test_what_keeps_the_daemon_from_a_pool_is_said(show: Show, explorer: Explorer) -> None:
    pool = explorer.buy_expired(CONTAINER)
    other = explorer.buy_expired(CONTAINER)
    assert not any(line.startswith(("brake", "quarantine")) for line in show(pool))
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    held = {"state": "held", "reason": "many\x1b[2J", "held_at": at, "by": "me", "owner": 7, "workloads": 1}
    quarantined = {"reason": "broken", "tries": 5, "first_failed_at": at, "next_try_at": at, "by": "me"}
    explorer.database["pool-daemon-brake"].insert_one(
        {"_id": Int64(pool.pool_id), "empty_at": Int64(pool.empty_at), **held}
    )
    explorer.database["pool-daemon-quarantine"].insert_one({"_id": Int64(pool.pool_id), **quarantined})

    lines = show(pool)
    assert r"brake         held since 2026-01-02 03:04:05 UTC: many\x1b[2J" in lines
    assert "quarantine    since 2026-01-02 03:04:05 UTC: broken" in lines
    whole = json.loads(show(pool, "--json")[0])
    assert (whole["hold"]["state"], whole["quarantine"]["tries"]) == ("held", 5)
    assert not any(line.startswith(("brake", "quarantine")) for line in show(other))


def test_a_pool_that_ran_out_says_since_when_or_that_it_is_not_known(show: Show, explorer: Explorer) -> None:
    pool = explorer.buy(Rates(cu=100.0), [CONTAINER], bought_at=int(time.time()) - 3700)
    assert any(line.startswith("compute") and line.endswith(" ago") for line in show(pool))
    explorer.pools.update_one({"_id": pool.pool_id}, {"$set": {"cus": 0.0}})
    assert any(line.startswith("compute") and line.endswith(" exhausted") for line in show(pool))


def test_a_pool_that_nothing_drains_needs_no_purchase(show: Show, explorer: Explorer) -> None:
    pool = explorer.buy(Rates(cu=3.0 * DAY), [])
    lines = show(pool)
    assert "nothing drains it: it lasts without a purchase" in lines
    assert any(" 1 CU for 3 d" in line and line.endswith("never") for line in lines)
    assert lines[-1] == "workloads     0 listed; by next action: none"


def test_customers_text_of_any_length_is_cut_and_escaped(show: Show, explorer: Explorer) -> None:
    long = "x" * 3_000_000
    pool = explorer.buy(Rates(cu=3.0 * DAY), [CONTAINER], node_ids=["\x1b[2J", long])
    explorer.workloads.insert_many(
        [
            explorer.new_workload(pool.pool_id, CONTAINER, node_id=long, capcity={"cpu": long}),
            explorer.new_workload(pool.pool_id, CONTAINER, _id=long[:9000]),
            explorer.new_workload(pool.pool_id, CONTAINER, workload_type="\x1b[2J"),
        ]
    )
    lines = show(pool)
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in "\n".join(lines)
    assert sum(line.split()[3:6] == ["?"] * 3 for line in lines) == 2
    assert any(line.split()[:2] == ["string", "container"] for line in lines)
