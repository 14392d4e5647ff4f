"""Grace in a settlement, on a real server: what stays, what goes when, and what is written of it."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from actors import ME
from arithmetic_model import Document, Rates
from deadline import wait_until
from explorer import CONTAINER, VOLUME, ZDB, Explorer, Purchase
from fail_point import fail_point, times_entered
from pymongo import MongoClient

from pool_daemon.capacity.grace import GracePolicy
from pool_daemon.capacity.workload import WorkloadType
from pool_daemon.clock import SystemClock
from pool_daemon.store.cases import Limits, Settlement
from pool_daemon.store.client import Database, connect
from pool_daemon.store.decommissions import Decommissions
from pool_daemon.store.grace import GRACE, GraceStore
from pool_daemon.store.grace_decisions import GraceReader
from pool_daemon.store.grace_ender import GraceEnder
from pool_daemon.store.impact import ImpactReader
from pool_daemon.store.interface import get_pool
from pool_daemon.store.overdue import OverduePools
from pool_daemon.store.setup import create_collections

WEEK = 7 * 86_400
POLICY = GracePolicy({WorkloadType.VOLUME: WEEK}, budget_seconds=30 * 86_400)


@dataclass
class Scene:
    """A database with an explorer, and what settles its pools; `told` names the pools whose owners were told."""

    explorer: Explorer
    database: Database
    policy: GracePolicy
    told: set[int] | None = None

    @property
    def reader(self) -> GraceReader:
        async def told(since: Any, _session: Any) -> set[int]:
            assert since
            return self.told or set()

        return GraceReader(
            store=GraceStore(database=self.database),
            policy_of=lambda _: self.policy,
            told=None if self.told is None else told,
        )

    async def settle(self, pool: Purchase, *, now: int, limits: Limits | None = None, after: Any = None) -> Settlement:
        settler = Decommissions(database=self.database, clock=SystemClock(), actor=ME, grace=self.reader)
        chosen = limits or Limits(500, 2**20)
        return await settler.settle([pool.pool_id], now=now, limits=chosen, after=after)

    def record(self, pool: Purchase) -> Document:
        return self.explorer.stored(self.explorer.database[GRACE], pool.pool_id)

    def events(self, kind: str) -> list[Document]:
        return list(self.explorer.events.find({"kind": kind}))

    def buy(self, *kinds: Any, ended_at: int) -> Purchase:
        """Buy a pool of which everything ran out at a second."""
        rates = [sum(each) for each in zip(*(kind.rates for kind in kinds), strict=True)]
        return self.explorer.buy(Rates(*(100 * rate for rate in rates)), list(kinds), bought_at=ended_at - 100)


@pytest_asyncio.fixture
async def scene(mongo: MongoClient[Document], mongo_uri: str, database_name: str) -> AsyncIterator[Scene]:
    database = connect(uri=mongo_uri, name=database_name)
    await create_collections(database, grace=True)
    explorer = Explorer(database=mongo[database_name])
    for name in ("workqueue", "workload", "capacity-pools"):
        explorer.database.create_collection(name)
    yield Scene(explorer, database, POLICY)
    database.close()


def seconds_ago(seconds: int) -> int:
    return int(time.time()) - seconds


async def test_what_has_grace_stays_until_the_second_of_its_end_and_what_has_none_goes(scene: Scene) -> None:
    ended_at = seconds_ago(10)
    pool = scene.buy(CONTAINER, VOLUME, ended_at=ended_at)
    container, volume = pool.workload_ids
    settlement = await scene.settle(pool, now=ended_at + 5)
    assert scene.explorer.next_actions([container, volume]) == [4, 3]
    assert settlement.look_again == {pool.pool_id: ended_at + WEEK}
    assert scene.record(pool)["since"] == {"su": ended_at}
    (began,) = scene.events("grace_began")
    assert (began["resources"], began["workloads"], began["until"]) == (["su"], 1, ended_at + WEEK)

    early = await scene.settle(pool, now=ended_at + WEEK - 1)
    assert (early.decommissioned, early.grace_changes) == ([], [])
    late = await scene.settle(pool, now=ended_at + WEEK + 2)
    assert [(gone.workload_id, gone.grace_ended_at) for gone in late.decommissioned] == [(volume, ended_at + WEEK)]
    (ended,) = scene.events("grace_ended")
    assert (ended["reason"], ended["since"]) == ("over", ended_at)
    assert scene.record(pool)["running"] is False


async def test_a_look_within_grace_writes_nothing(scene: Scene) -> None:
    ended_at = seconds_ago(10)
    pool = scene.buy(VOLUME, ended_at=ended_at)
    await scene.settle(pool, now=ended_at + 1)
    before = [scene.explorer.contents(name) for name in ("capacity-pools", GRACE, "pool-daemon-events")]
    for second in range(2, 6):
        await scene.settle(pool, now=ended_at + second)
    assert [scene.explorer.contents(name) for name in ("capacity-pools", GRACE, "pool-daemon-events")] == before


async def test_a_pool_that_the_explorer_rewrites_is_in_grace_since_it_was_seen_first(scene: Scene) -> None:
    ended_at = seconds_ago(10)
    pool = scene.buy(VOLUME, ended_at=ended_at)
    await scene.settle(pool, now=ended_at + 1)
    for _ in range(3):
        scene.explorer.top_up(pool.pool_id, Rates(cu=0))
    assert scene.explorer.stored(scene.explorer.pools, pool.pool_id)["empty_at"] > ended_at
    settlement = await scene.settle(pool, now=int(time.time()))
    assert (settlement.look_again, scene.record(pool)["since"]) == ({pool.pool_id: ended_at + WEEK}, {"su": ended_at})


@pytest.mark.parametrize("moment", ["begins", "begins in a pool that was written since", "ends"])
async def test_a_top_up_in_the_middle_of_the_transaction_in_which_grace_begins_or_ends_wins(
    scene: Scene, mongo: MongoClient[Document], moment: str
) -> None:
    pool = scene.buy(VOLUME, ended_at=seconds_ago(10))
    now = int(time.time())
    if moment == "ends":
        scene.policy = GracePolicy({WorkloadType.VOLUME: 5}, 30 * 86_400)
        await scene.settle(pool, now=now - 8)
    if moment.endswith("since"):
        scene.explorer.top_up(pool.pool_id, Rates())
        now = int(time.time())
    entered = times_entered(mongo)
    with fail_point(mongo, "update", blockConnection=True, blockTimeMS=1000):
        settling = asyncio.create_task(scene.settle(pool, now=now))
        await asyncio.to_thread(
            wait_until, lambda: times_entered(mongo) > entered, within_seconds=10, what="its first write"
        )
        scene.explorer.top_up(pool.pool_id, Rates(su=1e9))
        assert (await settling).cases == []
    assert scene.explorer.next_actions(pool.workload_ids) == [3]
    assert len(scene.events("grace_began")) == int(moment == "ends")
    assert scene.events("grace_ended") == []


async def test_a_pool_that_was_topped_up_leaves_grace_and_a_new_end_begins_a_new_one(scene: Scene) -> None:
    ended_at = seconds_ago(60)
    pool = scene.buy(VOLUME, ended_at=ended_at)
    await scene.settle(pool, now=ended_at + 1)
    scene.explorer.top_up(pool.pool_id, Rates(su=1e6))
    ender = GraceEnder(database=scene.database, grace=scene.reader, actor=ME)
    assert await ender.due_among([pool.pool_id], now=int(time.time())) == set()
    await ender.end([pool.pool_id], now=int(time.time()))
    record = scene.record(pool)
    assert (record["since"], record["running"]) == ({}, False)
    assert [each["from"] for each in record["spent"]] == [ended_at]
    assert [each["reason"] for each in scene.events("grace_ended")] == ["topped up"]

    again_at = scene.explorer.stored(scene.explorer.pools, pool.pool_id)["empty_at"]
    await scene.settle(pool, now=again_at + 5)
    assert scene.record(pool)["since"] == {"su": again_at}


async def test_a_pool_in_grace_is_neither_affected_nor_overdue(scene: Scene) -> None:
    ended_at = seconds_ago(10)
    pool = scene.buy(VOLUME, ended_at=ended_at)
    await scene.settle(pool, now=ended_at + 1)
    for now, affected in ((ended_at + 5, {}), (ended_at + WEEK, {pool.pool_id: 1})):
        assert await ImpactReader(database=scene.database, grace=scene.reader).of([pool.pool_id], now=now) == affected
        overdue = OverduePools(database=scene.database, grace=scene.reader)
        assert await overdue.among([await get_pool(scene.database, pool.pool_id)], now=now) == list(affected)


async def test_a_protected_pool_is_withheld_when_its_grace_begins_and_not_again_when_it_ends(scene: Scene) -> None:
    ended_at = seconds_ago(10)
    pool = scene.buy(VOLUME, ended_at=ended_at)
    protected = Limits(500, 2**20, frozenset({pool.pool_id}))
    withheld = await scene.settle(pool, now=ended_at + 1, limits=protected)
    assert [(each.pool_id, each.workloads) for each in withheld.withheld] == [(pool.pool_id, 1)]
    assert scene.explorer.database[GRACE].count_documents({}) == 0

    await scene.settle(pool, now=ended_at + 1)
    late = await scene.settle(pool, now=ended_at + WEEK, limits=protected)
    assert (late.withheld, len(late.decommissioned)) == ([], 1)


async def test_a_large_pool_is_anchored_once_though_it_is_read_in_portions(scene: Scene) -> None:
    ended_at = seconds_ago(10)
    pool = scene.buy(*[VOLUME] * 5, ended_at=ended_at)
    portions = Limits(2, 2**20)
    settlement, after = await scene.settle(pool, now=ended_at + 1, limits=portions), None
    while settlement.rest is not None:
        after = settlement.rest.after
        settlement = await scene.settle(pool, now=ended_at + 1, limits=portions, after=after)
    assert after == pool.workload_ids[3]
    record = scene.record(pool)
    assert (record["since"], record["newest"]) == ({"su": ended_at}, {"su": pool.workload_ids[-1]})
    assert len(scene.events("grace_began")) == 1
    assert scene.explorer.next_actions(pool.workload_ids) == [3] * 5


async def test_a_workload_that_comes_later_has_no_grace(scene: Scene) -> None:
    ended_at = seconds_ago(10)
    pool = scene.buy(VOLUME, ended_at=ended_at)
    await scene.settle(pool, now=ended_at + 1)
    late = scene.explorer.add(pool.pool_id, VOLUME)
    await scene.settle(pool, now=int(time.time()))
    assert scene.explorer.next_actions([*pool.workload_ids, late]) == [3, 4]


async def test_what_is_to_be_told_first_waits_for_that_but_not_for_ever(scene: Scene) -> None:
    scene.policy = GracePolicy({WorkloadType.VOLUME: WEEK}, 30 * 86_400, until_told_seconds=3600)
    scene.told = set()
    ended_at = seconds_ago(10)
    pool = scene.buy(VOLUME, ended_at=ended_at)
    await scene.settle(pool, now=ended_at + 1)
    assert (await scene.settle(pool, now=ended_at + WEEK + 100)).decommissioned == []
    scene.told.add(pool.pool_id)
    assert len((await scene.settle(pool, now=ended_at + WEEK + 100)).decommissioned) == 1

    other = scene.buy(VOLUME, ended_at=ended_at)
    await scene.settle(other, now=ended_at + 1)
    assert len((await scene.settle(other, now=ended_at + WEEK + 3600)).decommissioned) == 1


async def test_an_operators_end_and_extension_decide(scene: Scene) -> None:
    ended_at = seconds_ago(10)
    pools = [scene.buy(VOLUME, ended_at=ended_at) for _ in range(2)]
    for pool in pools:
        await scene.settle(pool, now=ended_at + 1)
    store = GraceStore(database=scene.database)
    now = int(time.time())
    await store.set_end(pools[0].pool_id, now, at=now, actor=ME, reason="fraud")
    await store.set_end(pools[1].pool_id, ended_at + 2 * WEEK, at=now, actor=ME, reason="on holiday")
    assert len((await scene.settle(pools[0], now=now + 1)).decommissioned) == 1
    assert (await scene.settle(pools[1], now=ended_at + WEEK)).decommissioned == []
    assert len((await scene.settle(pools[1], now=ended_at + 2 * WEEK)).decommissioned) == 1
    assert [each["reason"] for each in scene.events("grace_ended")] == ["operator", "operator"]


async def test_an_operator_who_extends_a_grace_in_the_middle_of_its_end_wins(
    scene: Scene, mongo: MongoClient[Document]
) -> None:
    """The 0-DB stays in any case, so that the record would have nothing else to say."""
    now = int(time.time())
    scene.policy = GracePolicy({WorkloadType.VOLUME: 5, WorkloadType.ZDB: WEEK}, 30 * 86_400)
    pool = scene.buy(VOLUME, ZDB, ended_at=now - 10)
    await scene.settle(pool, now=now - 8)
    entered = times_entered(mongo)
    with fail_point(mongo, "update", blockConnection=True, blockTimeMS=1000):
        settling = asyncio.create_task(scene.settle(pool, now=now))
        await asyncio.to_thread(
            wait_until, lambda: times_entered(mongo) > entered, within_seconds=10, what="its first write"
        )
        store = GraceStore(database=scene.database)
        await store.set_end(pool.pool_id, now + 60, at=now, actor=ME, reason="on holiday")
        assert (await settling).decommissioned == []
    assert scene.explorer.next_actions(pool.workload_ids) == [3, 3]
    late = await scene.settle(pool, now=now + 60)
    assert [gone.workload_id for gone in late.decommissioned] == pool.workload_ids


async def test_of_two_that_settle_a_pool_at_once_one_begins_its_grace(scene: Scene) -> None:
    pool = scene.buy(VOLUME, ended_at=seconds_ago(10))
    await asyncio.gather(*(scene.settle(pool, now=int(time.time())) for _ in range(4)), return_exceptions=True)
    assert len(scene.events("grace_began")) == 1


async def test_a_pool_rests_while_it_is_in_grace_and_nothing_new_is_in_it(scene: Scene) -> None:
    ended_at = seconds_ago(10)
    pools = [scene.buy(VOLUME, ended_at=ended_at) for _ in range(4)]
    resting, grown, over, never = pools
    for pool in (resting, grown, over):
        await scene.settle(pool, now=ended_at + 1)
    scene.explorer.add(grown.pool_id, VOLUME)
    await scene.settle(over, now=ended_at + WEEK)
    store = GraceStore(database=scene.database)
    assert await store.resting([pool.pool_id for pool in pools]) == {resting.pool_id}
    assert never.pool_id not in await store.of([never.pool_id])
