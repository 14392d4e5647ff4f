"""Lists of pools by owner and by end, those that are overdue, and those that the daemon takes next."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from arithmetic_model import Rates
from bson import Int64
from explorer import CONTAINER, FREE, VOLUME, Explorer, Purchase
from indexes import build_indexes
from pymongo import MongoClient

from pool_daemon.errors import ExitCode

NEVER = 2**63 - 1
Run = Callable[..., list[str]]


@pytest.fixture
def explorer(mongo: MongoClient[dict[str, Any]], mongo_uri: str, database_name: str) -> Explorer:
    """Write to a database that has the indexes."""
    build_indexes(mongo_uri, database_name)
    return Explorer(database=mongo[database_name])


@pytest.fixture
def run(run_command: Run) -> Run:
    return partial(run_command, "pools")


def buy(explorer: Explorer, *, lasts: int, owner: int = 7) -> Purchase:
    return explorer.buy(Rates(cu=float(lasts)), [CONTAINER], customer_tid=Int64(owner))


def ids(lines: list[str]) -> list[int]:
    return [json.loads(line)["pool_id"] for line in lines]


def test_pools_are_chosen_by_their_end(run: Run, explorer: Explorer) -> None:
    late, soon = buy(explorer, lasts=7200), buy(explorer, lasts=600)
    expired = explorer.buy_expired(CONTAINER)
    lasting = explorer.buy(Rates(cu=5.0), [])

    assert ids(run("list", "--json")) == [each.pool_id for each in (late, soon, expired, lasting)]
    assert ids(run("list", "--json", "--expired")) == [expired.pool_id]
    assert ids(run("list", "--json", "--within", "1h")) == [soon.pool_id]
    assert ids(run("list", "--json", "--within", "3h")) == [soon.pool_id, late.pool_id]
    assert ids(run("list", "--json", "--within", "3h", "--sort", "id")) == [late.pool_id, soon.pool_id]


def test_pools_are_sorted_by_end_owner_or_id_also_those_of_one_owner(run: Run, explorer: Explorer) -> None:
    pools = [buy(explorer, lasts=lasts, owner=owner) for lasts, owner in ((900, 8), (700, 9), (800, 8), (600, 9))]
    a, b, c, d = (each.pool_id for each in pools)

    assert ids(run("list", "--json", "--sort", "end")) == [d, b, c, a]
    assert ids(run("list", "--json", "--sort", "owner")) == [a, c, b, d]
    assert ids(run("list", "--json", "--owner", "8", "--sort", "end")) == [c, a]
    assert ids(run("list", "--json", "--owner", "9")) == [b, d]
    assert ids(run("list", "--json", "--within", "1h", "--sort", "owner")) == [a, c, b, d]


@pytest.mark.parametrize("sort", ["id", "end", "owner"])
@pytest.mark.parametrize("which", [[], ["--owner", "7"], ["--expired"]], ids=str)
def test_long_documents_are_sorted_without_being_held(
    run: Run, explorer: Explorer, sort: str, which: list[str]
) -> None:
    nodes = ["n" * 1_000_000] * 4
    for _ in range(30):
        explorer.pools.insert_one(explorer.draft(Rates(), [], node_ids=nodes, empty_at=Int64(5)).document)
    explorer.database.command("profile", 2)

    assert len(run("list", "--json", "--sort", sort, *which)) == 30

    explorer.database.command("profile", 0)
    (read,) = explorer.database["system.profile"].find({"op": "command", "command.aggregate": "capacity-pools"})
    assert "usedDisk" not in read
    is_in_order = not which or (which, sort) == (["--expired"], "end")
    assert bool(read.get("hasSortStage")) != is_in_order


def test_a_list_ends_at_its_limit_and_says_so(run: Run, explorer: Explorer) -> None:
    first, second, _third = (buy(explorer, lasts=600) for _ in range(3))
    told = "pool-daemon: there are more; --limit 2 ends the list\n"
    assert ids(run("list", "--json", "--limit", "2", error=told)) == [first.pool_id, second.pool_id]
    assert len(run("list", "--limit", "3")) == 4


def test_an_expired_pool_is_overdue_only_while_it_should_lose_a_workload(run: Run, explorer: Explorer) -> None:
    explorer.buy_expired(next_action=4)
    explorer.buy_expired(CONTAINER, next_action=4)
    explorer.buy_expired(*FREE)
    explorer.buy(
        Rates(cu=0.5, su=1e9), [VOLUME], bought_at=int(time.time()) - 60, empty_at=Int64(int(time.time()) - 60)
    )
    overdue = explorer.buy_expired(CONTAINER, VOLUME, *FREE)

    (line,) = run("list", "--overdue", "--json")
    assert (json.loads(line)["pool_id"], json.loads(line)["overdue_workloads"]) == (overdue.pool_id, 2)
    head, row = run("list", "--overdue")
    assert "to go" in head
    assert row.split()[:6] == [str(overdue.pool_id), "7", "0", "0", "0.5", "2"]


def test_a_pool_that_cannot_be_read_is_not_left_out_of_what_is_overdue(run: Run, explorer: Explorer) -> None:
    broken = explorer.buy_expired(CONTAINER, cus="x")
    (line,) = run("list", "--overdue", "--json", code=ExitCode.FAILED)
    assert json.loads(line) == {"pool_id": broken.pool_id, "error": "cus is of type str, not a number"}


@pytest.mark.usefixtures("explorer")
def test_an_empty_list_says_what_was_asked_for(run: Run) -> None:
    assert run("list", "--expired") == ["there are no pools that have run empty"]
    assert run("list", "--overdue", "--owner", "7") == ["customer 7 has no pools that are overdue"]
    assert run("list", "--within", "1h") == ["there are no pools that run empty so soon"]
    assert run("next") == ["no pool is going to run empty"]


def test_next_is_what_is_overdue_and_then_what_runs_empty_next(run: Run, explorer: Explorer) -> None:
    second, first = buy(explorer, lasts=7200), buy(explorer, lasts=600)
    explorer.buy(Rates(cu=5.0), [])
    explorer.buy_expired(CONTAINER, next_action=4)
    overdue = explorer.buy_expired(CONTAINER)

    assert ids(run("next", "--json")) == [overdue.pool_id, first.pool_id, second.pool_id]
    assert ids(run("next", "--json", "--limit", "2")) == [overdue.pool_id, first.pool_id]
    lines = run("next")
    assert max(map(len, lines)) <= 80
    assert lines[1].endswith("min ago")


def test_next_passes_over_what_a_guard_keeps_and_says_so(
    run: Run, explorer: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, resting, tried, released = (explorer.buy_expired(CONTAINER) for _ in range(4))
    upcoming = buy(explorer, lasts=600)
    for pool, state in ((held, "held"), (released, "released")):
        explorer.database["pool-daemon-brake"].insert_one(
            {"_id": Int64(pool.pool_id), "state": state, "reason": "many", "empty_at": Int64(pool.empty_at)}
            | {"held_at": datetime.now(UTC), "by": "me", "owner": 7, "workloads": 1}
        )
    for pool, at in ((resting, time.time() + 900), (tried, time.time() - 9)):
        explorer.database["pool-daemon-quarantine"].insert_one(
            {"_id": Int64(pool.pool_id), "reason": "x", "tries": 5, "first_failed_at": datetime.now(UTC)}
            | {"next_try_at": datetime.fromtimestamp(at, UTC), "by": "me"}
        )

    told = "pool-daemon: overdue and passed over: 1 held by the brake, 1 in quarantine\n"
    found = ids(run("next", "--json", error=told))
    assert (set(found[:-1]), found[-1]) == ({tried.pool_id, released.pool_id}, upcoming.pool_id)

    monkeypatch.setenv("POOL_DAEMON_BRAKE__ENABLED", "false")
    told = "pool-daemon: overdue and passed over: 1 in quarantine\n"
    assert held.pool_id in ids(run("next", "--json", error=told))
