"""`pool-daemon explain`: the story of a pool or a workload, and what in it contradicts the rest."""

import asyncio
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from actors import ROOMY
from arithmetic_model import Rates
from bson import Int64
from explorer import CONTAINER, FREE, PLENTY, VOLUME, Explorer, Purchase

from pool_daemon.cli import main
from pool_daemon.clock import SystemClock
from pool_daemon.errors import ExitCode
from pool_daemon.store.client import connect
from pool_daemon.store.decommissions import Decommissions
from pool_daemon.store.pool_changes import Author
from pool_daemon.store.pool_edits import PoolEdits
from pool_daemon.store.records import Actor, ActorKind, EventKind, Subject, Why, envelope
from pool_daemon.store.setup import create_collections, setup
from pool_daemon.views import explanation

Document = dict[str, Any]


class Explain:
    """Runs the command in this process, and settles or tops up pools as the daemon and operators do."""

    def __init__(self, *, uri: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        self._uri = uri
        self._name = name
        self._capsys = capsys

    def text(self, *words: str | int, adds_up: bool = True) -> list[str]:
        code = main(["explain", *map(str, words)])
        shown = self._capsys.readouterr()
        assert (code, shown.err) == (ExitCode.OK if adds_up else ExitCode.FAILED, "")
        lines = shown.out.splitlines()
        assert max(map(len, lines)) <= 80
        assert ("it adds up" in lines) == adds_up
        return lines

    def problems(self, *words: str | int) -> list[str]:
        code = main(["explain", *map(str, words), "--json"])
        problems: list[str] = json.loads(self._capsys.readouterr().out)["problems"]
        assert code == (ExitCode.FAILED if problems else ExitCode.OK)
        return problems

    def refused(self, *words: str | int) -> str:
        assert main(["explain", *map(str, words)]) == ExitCode.FAILED
        return self._capsys.readouterr().err

    def settle(self, pool: Purchase) -> None:
        async def settle() -> None:
            database = connect(uri=self._uri, name=self._name)
            await create_collections(database)
            await setup(database)
            settler = Decommissions(
                database=database, clock=SystemClock(), actor=Actor(ActorKind.DAEMON, "daemon-a", term=lambda: 3)
            )
            await settler.settle([pool.pool_id], now=int(time.time()), limits=ROOMY)
            database.close()

        asyncio.run(settle())

    def top_up(self, pool: Purchase, *, cu: float, at: int) -> None:
        async def top_up() -> None:
            database = connect(uri=self._uri, name=self._name)
            edits = PoolEdits(database=database, author=Author("root@host", "1.0", f"key-{at}", "ticket 4711"))
            await edits.top_up(pool.pool_id, (cu, 0.0, 0.0), at)
            database.close()

        asyncio.run(top_up())


@pytest.fixture
def explaining(
    command_environment: None,
    mongo_uri: str,
    database_name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Explain:
    del command_environment
    monkeypatch.setattr(explanation, "RECHECK_SECONDS", 0.0)
    return Explain(uri=mongo_uri, name=database_name, capsys=capsys)


def test_the_story_of_a_pool_goes_from_its_purchase_to_its_end(explaining: Explain, explorer: Explorer) -> None:
    pool = explorer.buy_expired(CONTAINER, CONTAINER, *FREE[:1])
    data = {"cus": Int64(86_400 * 3), "sus": Int64(0), "ipv4us": Int64(3600)}
    explorer.database["capacity-reservations"].insert_one(
        {"_id": Int64(pool.pool_id), "json": "x" * 2_000_000, "customer_tid": Int64(7), "data_reservation": data}
    )
    explaining.top_up(pool, cu=0.25, at=int(time.time()) - 600)
    explaining.settle(pool)

    lines = explaining.text("pool", pool.pool_id)
    story = " ".join(line[21:] if line.startswith((" ", "2", "earlier")) else line for line in lines)
    wanted = [
        "reservation 910000001 of customer 7 for this pool: 1 CU for 3 d, 1 IPv4U for 60 min",
        "topped_up 1 CU for 250 ms, root@host: ticket 4711",
        "2 workloads decommissioned by daemon-a in term 3: out of compute at 2 CU, 10 min after it ran empty",
        "pool 910000001 is out of compute; empty_at: ",
        "workload 510000003, proxy: next action deploy, counts in the pool",
        "workload 510000001, container: next action delete; its order waits for node 2fi9",
        "it adds up",
    ]
    places = [story.find(each) for each in wanted]
    assert -1 not in places, story
    assert places == sorted(places)
    assert lines[0].startswith("earlier  ")


def test_the_story_of_a_workload_leaves_out_the_other_workloads(explaining: Explain, explorer: Explorer) -> None:
    pool = explorer.buy_expired(CONTAINER, VOLUME)
    explaining.settle(pool)
    first, second = pool.workload_ids
    story = " ".join(" ".join(explaining.text("workload", second)).split())
    assert (
        f"workload {second} decommissioned by daemon-a in term 3: out of storage at 1 SU, 60 min after it ran empty"
        in story
    )
    assert f"workload {second}, volume: next action delete; its order waits for node" in story
    assert str(first) not in story


def test_the_story_tells_what_was_held_repaired_and_put_back_and_that_the_node_has_done_it(
    explaining: Explain, explorer: Explorer
) -> None:
    pool = explorer.buy_expired(CONTAINER)
    (workload_id,) = pool.workload_ids
    daemon, now = Actor(ActorKind.DAEMON, "daemon-a"), time.time()
    subject = Subject(pool.pool_id, 7)
    of_workload = Subject(pool.pool_id, 7, Int64(workload_id), 1, "node")
    explorer.events.insert_many(
        [
            envelope(EventKind.HELD, at=now - 50, actor=daemon, subject=subject, why=Why("21 pools")),
            envelope(EventKind.RELEASED, at=now - 40, actor=Actor(ActorKind.OPERATOR, "ann@host"), subject=subject),
            envelope(EventKind.DRIFT_REPAIRED, at=now - 30, actor=daemon, subject=subject, why=Why("wrong rates: cu")),
        ]
    )
    explaining.settle(pool)
    explorer.events.insert_many(
        envelope(EventKind.DELETE_ORDER_RESTORED, at=time.time() + number, actor=daemon, subject=of_workload)
        for number in (1, 2)
    )
    waits = " ".join(" ".join(explaining.text("workload", workload_id)).split())
    places = [
        waits.find(each)
        for each in (
            "held, daemon-a: 21 pools",
            "released, ann@host",
            "drift_repaired, daemon-a: wrong rates: cu",
            f"workload {workload_id} decommissioned by daemon-a in term 3",
            f"delete_order_restored container {workload_id}, daemon-a",
            "its order waits for node 2fi9",
            ", put back 2 times",
        )
    ]
    assert -1 not in places, waits
    assert places == sorted(places)
    explorer.orders.delete_many({})
    explorer.workloads.update_one({"_id": workload_id}, {"$set": {"next_action": 6}})
    explorer.pools.update_one(
        {"_id": pool.pool_id}, {"$set": {"active_workload_ids": [], "active_cu": 0.0, "active_su": 0.0}}
    )
    done = " ".join(" ".join(explaining.text("workload", workload_id)).split())
    assert "next action deleted; its node has carried out the order, put back 2 times" in done


def test_a_hold_that_stands_is_told_once(explaining: Explain, explorer: Explorer) -> None:
    pool = explorer.buy_expired(CONTAINER)
    at = datetime.fromtimestamp(int(time.time()), UTC)
    explorer.database["pool-daemon-brake"].insert_one(
        {"_id": Int64(pool.pool_id), "empty_at": Int64(pool.empty_at), "state": "held", "reason": "21 pools"}
        | {"held_at": at, "by": "daemon-a"}
    )
    actor = Actor(ActorKind.DAEMON, "daemon-a")
    for earlier in (3600, 0):
        record = envelope(EventKind.HELD, at=at.timestamp() - earlier, actor=actor, subject=Subject(pool.pool_id))
        explorer.events.insert_one(record)
    told = explaining.text("pool", pool.pool_id)
    assert [line[21:] for line in told if "held" in line] == ["held, daemon-a", "held by the brake: 21 pools"]


def test_a_pool_that_lasts_says_when_what_runs_out(explaining: Explain, explorer: Explorer) -> None:
    pool = explorer.buy(Rates(cu=86_400.0 * 20, su=86_400.0 * 3), [CONTAINER, VOLUME])
    story = " ".join(" ".join(explaining.text("pool", pool.pool_id)).split())
    assert f"pool {pool.pool_id} runs out of storage " in story
    assert "in 3 d, at 1 SU" in story


def test_a_guard_explains_why_workloads_still_run(explaining: Explain, explorer: Explorer) -> None:
    pool = explorer.buy_expired(CONTAINER)
    overdue = "still run, and no guard keeps the daemon from them"
    assert [each.endswith(overdue) for each in explaining.problems("pool", pool.pool_id)] == [True]
    (problem,) = explaining.problems("workload", pool.workload_ids[0])
    assert problem.endswith("still runs though its pool is exhausted, and no guard keeps the daemon from it")
    hold = {"state": "held", "reason": "too many\x1b", "held_at": datetime.now(UTC), "by": "me"}
    explorer.database["pool-daemon-brake"].insert_one(
        {"_id": Int64(pool.pool_id), "empty_at": Int64(pool.empty_at)} | hold
    )
    assert r"held by the brake: too many\x1b" in "\n".join(explaining.text("pool", pool.pool_id))
    assert explaining.problems("workload", pool.workload_ids[0]) == []
    explorer.database["pool-daemon-brake"].update_one({}, {"$set": {"state": "released"}})
    assert len(explaining.problems("pool", pool.pool_id)) == 1


def test_a_pool_that_has_just_run_empty_is_no_contradiction(explaining: Explain, explorer: Explorer) -> None:
    pool = explorer.buy(Rates(cu=2.0), [CONTAINER], bought_at=int(time.time()) - 9)
    assert explaining.problems("pool", pool.pool_id) == []


def lost_order(explorer: Explorer, pool: Purchase) -> str:
    explorer.workloads.update_one({"_id": pool.workload_ids[0]}, {"$set": {"next_action": 4}})
    return f"workload {pool.workload_ids[0]} is to be deleted and has no order"


def stale_order(explorer: Explorer, pool: Purchase) -> str:
    order = explorer.stored(explorer.workloads, pool.workload_ids[0])
    explorer.orders.insert_one(order | {"next_action": 4})
    return f"workload {pool.workload_ids[0]} has a delete order, and its next action is deploy"


def unlisted(explorer: Explorer, pool: Purchase) -> str:
    stray = explorer.new_workload(pool.pool_id, CONTAINER)
    explorer.workloads.insert_one(stray)
    return f"workload {stray['_id']} is deployed, and its pool does not count it"


def unknown_units(explorer: Explorer, pool: Purchase) -> str:
    explorer.workloads.update_one({"_id": pool.workload_ids[0]}, {"$set": {"workload_type": 3}})
    return (
        f"workload {pool.workload_ids[0]} drains an unknown amount, and is left running: "
        "workload_type 3 has no known units"
    )


def drifted(explorer: Explorer, pool: Purchase) -> str:
    explorer.workloads.update_one({"_id": pool.workload_ids[0]}, {"$set": {"next_action": 6}})
    return "the pool's rates differ from what its workloads drain: +1 CU, 1 listed workloads are deleted"


def missing_document(explorer: Explorer, pool: Purchase) -> str:
    explorer.workloads.delete_one({"_id": pool.workload_ids[0]})
    return "1 of the workloads that the pool lists have no document"


def wrong_end(explorer: Explorer, pool: Purchase) -> str:
    explorer.pools.update_one({"_id": pool.pool_id}, {"$inc": {"empty_at": Int64(-5)}})
    first, second = (f"{datetime.fromtimestamp(pool.empty_at - less, UTC):%Y-%m-%d %H:%M:%S} UTC" for less in (5, 0))
    return f"empty_at is {first}, but amounts and rates say {second}"


def too_early(explorer: Explorer, pool: Purchase) -> str:
    workload_id = pool.workload_ids[0]
    at = datetime.now(UTC) - timedelta(days=1)
    explorer.events.insert_one(
        {"kind": "decommissioned", "pool_id": Int64(pool.pool_id), "workload_id": workload_id}
        | {"decommissioned_at": at, "empty_at": Int64(int(at.timestamp()) + 3)}
    )
    return f"workload {workload_id} was decommissioned "


def too_early_by_its_numbers(explorer: Explorer, pool: Purchase) -> str:
    workload_id = pool.workload_ids[0]
    at = datetime.now(UTC)
    before = {"cus": 86_400.0, "active_cu": 2.0, "last_updated": Int64(int(at.timestamp())), "empty_at": Int64(0)}
    explorer.events.insert_one(
        {"kind": "decommissioned", "pool_id": Int64(pool.pool_id), "workload_id": workload_id, "at": at}
        | {"empty_at": Int64(0), "resources": ["su", "cu"], "before": before}
    )
    return f"workload {workload_id} was decommissioned though compute would have lasted 12 h longer"


@pytest.mark.parametrize(
    "spoil",
    [
        lost_order,
        stale_order,
        unlisted,
        unknown_units,
        drifted,
        missing_document,
        wrong_end,
        too_early,
        too_early_by_its_numbers,
    ],
    ids=lambda spoil: spoil.__name__,
)
def test_what_does_not_add_up_is_said_and_is_a_failure(
    explaining: Explain, explorer: Explorer, spoil: Callable[[Explorer, Purchase], str]
) -> None:
    pool = explorer.buy(Rates(cu=86_400.0 * 3 + 0.3, su=PLENTY), [CONTAINER, VOLUME])
    explaining.text("pool", pool.pool_id)
    problem = spoil(explorer, pool)
    (found,) = explaining.problems("pool", pool.pool_id)
    assert found.startswith(problem)
    explaining.text("pool", pool.pool_id, adds_up=False)


def test_what_contradicts_only_once_is_another_writer_at_work(
    explaining: Explain, explorer: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = explorer.buy(Rates(cu=86_400.0), [CONTAINER])
    lost_order(explorer, pool)

    async def give_the_order(_seconds: float) -> None:
        explorer.orders.insert_one(explorer.stored(explorer.workloads, pool.workload_ids[0]))

    monkeypatch.setattr(asyncio, "sleep", give_the_order)
    assert explaining.problems("pool", pool.pool_id) == []


def test_a_pool_or_workload_that_is_gone_is_told_from_its_records(explaining: Explain, explorer: Explorer) -> None:
    pool = explorer.buy_expired(CONTAINER)
    explaining.settle(pool)
    explorer.workloads.delete_many({})
    assert (
        explaining.problems("workload", pool.workload_ids[0])[-1] == f"workload {pool.workload_ids[0]} has no document"
    )
    explorer.pools.delete_many({})
    assert explaining.problems("pool", pool.pool_id) == ["the pool has no document"]
    assert explaining.refused("pool", 5) == "pool-daemon: pool 5: the specified pool could not be found\n"
    assert explaining.refused("workload", 5).startswith("pool-daemon: workload 5: there is no document and no record")
    assert explaining.refused("pool", -(2**63)).startswith("pool-daemon: pool -9223372036854775808: ")


def test_an_unreadable_pool_is_said_to_be_so(explaining: Explain, explorer: Explorer) -> None:
    pool = explorer.buy_expired(CONTAINER, cus="x")
    assert explaining.problems("pool", pool.pool_id) == ["the pool is unreadable: cus is of type str, not a number"]
