"""The brake on a real server: what it holds, what it lets go, and when."""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC
from typing import Any

import pytest
import pytest_asyncio
from arithmetic_model import Rates
from bson import Decimal128
from explorer import CONTAINER, FREE, VOLUME, Explorer, Kind, Purchase
from fail_point import fail_point, times_entered
from pymongo import MongoClient
from structlog.testing import capture_logs
from virtual_clock import VirtualClock

from pool_daemon.clock import SystemClock
from pool_daemon.errors import StoreUnavailableError
from pool_daemon.scheduling.brake import Brake
from pool_daemon.scheduling.restraints import Origin
from pool_daemon.settings import sections
from pool_daemon.store.client import Database, connect
from pool_daemon.store.decommissions import Decommissions
from pool_daemon.store.holds import HoldStore, Sweep
from pool_daemon.store.losses import LossReader
from pool_daemon.store.setup import setup

Client = MongoClient[dict[str, Any]]

NOW = int(time.time())
DAY = 86_400
FEW = 4
"""Pools that may fall due at once, whatever their share."""
READS = ("find", "aggregate", "count", "distinct")


class Observer:
    """Knows what it was told last."""

    def __init__(self) -> None:
        self.told: str | None = None

    def held(self, reason: str, *, detail: str) -> None:
        self.told = f"{reason}: {detail}"

    def released(self, reason: str) -> None:
        assert reason == "brake"
        self.told = None


class Latch:
    """A gate that a test closes and opens."""

    reason: str | None = None

    def closed_by(self) -> str | None:
        return self.reason


class Scene:
    """The database of an explorer with a daemon's brake on it, which may be restarted."""

    def __init__(self, *, database: Database, explorer: Explorer) -> None:
        self.explorer = explorer
        self.clock = VirtualClock(NOW)
        self.gate = Latch()
        self.observer = Observer()
        self.looks: list[dict[int, int]] = []
        self.database = database
        self.holds = HoldStore(database=database, identity="me")
        self.documents = explorer.database["pool-daemon-brake"]
        self._decommissions = Decommissions(database=database, clock=SystemClock(), identity="me")
        self.brake = self.start()

    def start(self, **settings: Any) -> Brake:
        """Start a daemon anew."""
        self.brake = Brake(
            holds=self.holds,
            losses=LossReader(database=self.database, batch_workloads=5),
            settings=sections.Brake(**{"share": 0.2, "pools": FEW, "age_seconds": DAY, **settings}),
            clock=self.clock,
            look_again=self._look_again,
            observer=self.observer,
        )
        return self.brake

    def _look_again(self, wishes: Mapping[int, int]) -> None:
        self.looks.append(dict(wishes))

    def buy(self, number: int, *kinds: Kind, ran_out_ago: int = 10, **options: Any) -> list[Purchase]:
        """Buy pools of which compute ran out so many seconds ago, and storage never does."""
        kinds = kinds or (CONTAINER,)
        drained = sum(kind.rates.cu for kind in kinds) or 1
        amounts = Rates(1000 * drained, 1e12, 1e12)
        bought_at = NOW - ran_out_ago - 1000
        return [self.explorer.buy(amounts, kinds, bought_at=bought_at, **options) for _ in range(number)]

    def buy_lasting(self, number: int) -> None:
        """Buy pools that are drained and last for weeks."""
        for _ in range(number):
            self.explorer.buy(Rates(1e6, 0, 0), [CONTAINER], bought_at=NOW)

    async def pass_over(
        self, pools: Sequence[Purchase], *, after: int | None = None, now: int = NOW, written: Sequence[int] = ()
    ) -> list[int]:
        """Do what a pass does to these pools; return those that it settled."""
        await self.brake.inspect(after, now, written)
        origin = Origin.WRITTEN if written else Origin.OVERDUE if after is None else Origin.DUE
        settled = await self.brake.sift([pool.pool_id for pool in pools], origin, now=now)
        if settled:
            settlement = await self._decommissions.settle(settled, now=NOW)
            self.brake.settled(settled, lost=settlement.lost_something, now=now)
        self.brake.passed()
        return settled

    async def sift(self, pool_ids: Sequence[int]) -> list[int]:
        """Ask about pools that have just fallen due."""
        return await self.brake.sift(pool_ids, Origin.DUE, now=NOW)

    def held(self) -> set[int]:
        return {document["_id"] for document in self.documents.find({"state": "held"})}

    def assert_kept(self, pools: Sequence[Purchase]) -> None:
        workload_ids = [workload_id for pool in pools for workload_id in pool.workload_ids]
        assert set(self.explorer.next_actions(workload_ids)) == {3}

    def assert_gone(self, pools: Sequence[Purchase]) -> None:
        workload_ids = [workload_id for pool in pools for workload_id in pool.workload_ids]
        assert set(self.explorer.next_actions(workload_ids)) == {4}


def ids(pools: Sequence[Purchase]) -> list[int]:
    return [pool.pool_id for pool in pools]


@pytest_asyncio.fixture
async def scene(mongo_uri: str, mongo: Client, database_name: str) -> AsyncIterator[Scene]:
    database = connect(uri=mongo_uri, name=database_name, timeout_seconds=2)
    await setup(database)
    yield Scene(database=database, explorer=Explorer(database=mongo[database_name]))
    database.close()


async def test_more_pools_due_at_once_than_the_number_and_the_share_are_held_and_said_once(scene: Scene) -> None:
    scene.buy_lasting(19)
    pools = scene.buy(FEW + 1)
    with capture_logs() as logs:
        assert await scene.pass_over(pools) == []
        assert await scene.pass_over(pools) == []
    scene.assert_kept(pools)
    assert scene.held() == set(ids(pools))
    (line,) = logs
    assert (line["event"], line["log_level"], line["pools"]) == ("brake_held", "error", FEW + 1)
    assert line["reason"] == "5 pools, 21% of those in use, fell due at once"
    assert scene.observer.told == "brake: pools held: 5; see `pool-daemon brake status`"
    document = scene.documents.find_one({"_id": pools[0].pool_id})
    assert document is not None
    assert document.pop("held_at").replace(tzinfo=UTC).timestamp() == NOW
    assert document == {
        "_id": pools[0].pool_id,
        "state": "held",
        "reason": line["reason"],
        "empty_at": pools[0].empty_at,
        "by": "me",
    }


async def test_as_many_as_the_number_are_settled_whatever_their_share(scene: Scene) -> None:
    pools = scene.buy(FEW)
    assert await scene.pass_over(pools) == ids(pools)
    scene.assert_gone(pools)


async def test_as_many_as_the_share_are_settled_whatever_their_number(scene: Scene) -> None:
    scene.buy_lasting(20)
    pools = scene.buy(FEW + 1)
    assert await scene.pass_over(pools) == ids(pools)
    scene.assert_gone(pools)


async def test_pools_that_nothing_drains_do_not_make_the_share_smaller(scene: Scene) -> None:
    for _ in range(30):
        scene.explorer.buy(Rates(1e6, 0, 0), [])
    pools = scene.buy(FEW + 1)
    assert await scene.pass_over(pools) == []


async def test_only_what_came_due_since_the_last_pass_counts(scene: Scene) -> None:
    before = scene.buy(FEW, ran_out_ago=100)
    assert await scene.pass_over(before) == ids(before)
    since = scene.buy(FEW, ran_out_ago=10)
    assert await scene.pass_over(since, after=NOW - 50) == ids(since)
    crowd = scene.buy(FEW + 1, ran_out_ago=10)
    assert await scene.pass_over(crowd, after=NOW - 50) == []


@pytest.mark.parametrize("ago", [10, 30 * DAY])
async def test_pools_with_nothing_to_lose_neither_trip_the_brake_nor_are_held(scene: Scene, ago: int) -> None:
    """Decommissioned already, free of charge, or using only what still lasts: they may stay due for years."""
    idle = [
        *scene.buy(10, CONTAINER, ran_out_ago=ago, next_action=4),
        *scene.buy(10, FREE[0], ran_out_ago=ago, empty_at=NOW - ago),
        *scene.buy(10, VOLUME, ran_out_ago=ago, empty_at=NOW - ago),
        *scene.buy(10, ran_out_ago=ago, next_action=6),
    ]
    pools = scene.buy(FEW)
    assert await scene.pass_over([*idle, *pools]) == [*ids(idle), *ids(pools)]
    assert scene.documents.count_documents({}) == 0


async def test_what_falls_due_while_others_are_held_goes_its_way(scene: Scene) -> None:
    held = scene.buy(FEW + 1, ran_out_ago=100)
    await scene.pass_over(held)
    pools = scene.buy(FEW, ran_out_ago=10)
    assert await scene.pass_over([*held, *pools], after=NOW - 50) == ids(pools)
    scene.assert_gone(pools)
    scene.assert_kept(held)


async def test_what_is_held_is_held_after_a_restart_and_does_not_count_again(scene: Scene) -> None:
    held = scene.buy(FEW + 1, ran_out_ago=100)
    await scene.pass_over(held)
    scene.start()
    assert await scene.sift(ids(held)) == []
    pools = scene.buy(FEW)
    with capture_logs() as logs:
        assert await scene.pass_over([*held, *pools]) == ids(pools)
    assert logs == []
    assert scene.held() == set(ids(held))


async def test_what_is_overdue_by_more_than_the_age_at_the_first_look_is_held_and_the_rest_is_not(
    scene: Scene,
) -> None:
    old = scene.buy(2, ran_out_ago=DAY + 1)
    young = scene.buy(2, ran_out_ago=DAY)
    with capture_logs() as logs:
        assert await scene.pass_over([*old, *young]) == ids(young)
    scene.assert_kept(old)
    (line,) = logs
    assert (line["event"], line["pools"]) == ("brake_held", 2)
    assert line["reason"] == "overdue by more than 86400 s at the first look after a start"


async def test_what_appears_long_overdue_while_the_daemon_runs_is_settled_at_once(scene: Scene) -> None:
    await scene.pass_over([])
    pools = scene.buy(2, ran_out_ago=30 * DAY)
    assert await scene.pass_over(pools) == ids(pools)
    more = scene.buy(2, ran_out_ago=30 * DAY)
    assert await scene.pass_over(more, after=NOW - 1) == ids(more)


async def test_a_pool_counts_as_overdue_since_the_resource_ran_out_that_its_workload_uses(scene: Scene) -> None:
    """Its compute ran out a month ago, when the container went; the volume lasted until a minute ago."""
    bought_at = NOW - 31 * DAY
    amounts = Rates(DAY, 31 * DAY - 60, 0)
    (pool,) = [scene.explorer.buy(amounts, [VOLUME], bought_at=bought_at, active_cu=1.0, empty_at=bought_at + DAY)]
    assert await scene.pass_over([pool]) == [pool.pool_id]
    scene.assert_gone([pool])


async def test_a_pool_with_more_workloads_than_are_read_at_once_is_seen_whole(scene: Scene) -> None:
    (mostly_free,) = scene.buy(1, *[FREE[0]] * 12, CONTAINER, ran_out_ago=2 * DAY)
    several = scene.buy(3, *[CONTAINER] * 4, ran_out_ago=2 * DAY)
    assert await scene.pass_over([mostly_free, *several]) == []
    assert scene.held() == {mostly_free.pool_id, *ids(several)}


async def test_a_workload_whose_pool_id_cannot_be_read_keeps_nobody_from_being_held(scene: Scene) -> None:
    pools = scene.buy(FEW + 1)
    decimal = Decimal128(str(pools[0].pool_id))
    scene.explorer.workloads.insert_one({"_id": 1, "pool_id": decimal, "next_action": 3})
    assert await scene.pass_over(pools) == []
    assert scene.held() == set(ids(pools))


async def test_a_released_pool_is_handed_out_once_settled_and_never_held_again_for_the_same_end(scene: Scene) -> None:
    pools = scene.buy(FEW + 2)
    await scene.pass_over(pools)
    assert await scene.holds.release([*ids(pools[:-1]), 404], at=NOW) == ids(pools[:-1])
    with capture_logs() as logs:
        await scene.brake.look(scene.gate)
        await scene.brake.look(scene.gate)
    assert [(entry["event"], entry["pools"]) for entry in logs] == [("brake_released", FEW + 1)]
    assert scene.looks == [dict.fromkeys(ids(pools[:-1]), NOW)]
    scene.start()
    assert await scene.pass_over(pools) == ids(pools[:-1])
    scene.assert_gone(pools[:-1])
    scene.assert_kept(pools[-1:])
    await scene.brake.look(scene.gate)
    assert [document["_id"] for document in scene.documents.find()] == [pools[-1].pool_id]
    assert scene.observer.told == "brake: pools held: 1; see `pool-daemon brake status`"


@pytest.mark.parametrize("seconds", [-3600, 3600])
async def test_what_is_released_outlives_a_clock_that_the_gate_does_not_trust(scene: Scene, seconds: int) -> None:
    """Seen from an hour before, no pool is due, and a release of what is not due concerns nobody."""
    pools = scene.buy(FEW + 2)
    await scene.pass_over(pools)
    await scene.holds.release(ids(pools[1:]), at=NOW)
    scene.clock.step(seconds)
    scene.gate.reason = "clocks"
    await scene.brake.look(scene.gate)
    assert (scene.documents.count_documents({"state": "released"}), scene.looks) == (FEW + 1, [])
    assert scene.observer.told == "brake: pools held: 1; see `pool-daemon brake status`"
    scene.clock.step(-seconds)
    scene.gate.reason = None
    await scene.brake.look(scene.gate)
    assert scene.looks == [dict.fromkeys(ids(pools[1:]), NOW)]


async def test_when_the_last_hold_is_gone_nobody_looks_any_more(scene: Scene, mongo: Client) -> None:
    pools = scene.buy(FEW + 1)
    await scene.pass_over(pools)
    await scene.holds.release(ids(pools), at=NOW)
    await scene.brake.look(scene.gate)
    assert await scene.pass_over(pools) == ids(pools)
    await scene.brake.look(scene.gate)
    assert (scene.documents.count_documents({}), scene.observer.told) == (0, None)
    before = times_entered(mongo)
    with fail_point(mongo, *READS, mode="alwaysOn", errorCode=50):
        await scene.brake.look(scene.gate)
        assert await scene.sift([1, 2]) == [1, 2]
    assert times_entered(mongo) == before


async def test_a_quiet_pass_costs_one_count(scene: Scene, mongo: Client) -> None:
    await scene.pass_over([])
    scene.buy(FEW)
    before = times_entered(mongo)
    with fail_point(
        mongo, "find", "aggregate", "count", "distinct", mode="alwaysOn", blockConnection=True, blockTimeMS=1
    ):
        await scene.brake.inspect(NOW - 50, NOW)
    assert times_entered(mongo) == before + 1


async def test_a_pool_that_is_topped_up_is_held_no_more_and_runs_out_like_any_other(scene: Scene) -> None:
    topped_up, *others = pools = scene.buy(FEW + 1)
    await scene.pass_over(pools)
    scene.explorer.top_up(topped_up.pool_id, Rates(100, 0, 0))
    assert await scene.sift(ids(pools)) == [topped_up.pool_id]
    await scene.brake.look(scene.gate)
    assert scene.held() == set(ids(others))
    await scene.brake.inspect(NOW, NOW + 200)
    assert await scene.sift(ids(pools)) == [topped_up.pool_id]


async def test_a_pool_that_is_topped_up_and_due_again_before_anybody_looked_is_held_no_more(scene: Scene) -> None:
    topped_up, *_ = pools = scene.buy(FEW + 1)
    await scene.pass_over(pools)
    scene.explorer.pools.update_one(
        {"_id": topped_up.pool_id}, {"$set": {"last_updated": NOW - 5, "empty_at": NOW - 2}}
    )
    assert await scene.sift(ids(pools)) == [topped_up.pool_id]


async def test_a_pool_that_is_written_but_as_empty_as_before_stays_held(scene: Scene) -> None:
    """The explorer takes a workload out of a held pool: that gives it another end, and nothing to live on."""
    pools = scene.buy(FEW + 1, CONTAINER, CONTAINER)
    await scene.pass_over(pools)
    written = pools[0]
    scene.explorer.shorten(written.pool_id, Rates(0, 1e12, 1e12))
    document = scene.explorer.pools.find_one({"_id": written.pool_id})
    assert document is not None
    assert document["empty_at"] != written.empty_at
    await scene.brake.look(scene.gate)
    assert await scene.sift(ids(pools)) == []
    scene.start()
    assert await scene.pass_over(pools) == []


async def test_a_pool_that_is_removed_is_held_no_more(scene: Scene) -> None:
    pools = scene.buy(FEW + 1)
    await scene.pass_over(pools)
    scene.explorer.pools.delete_one({"_id": pools[0].pool_id})
    await scene.brake.look(scene.gate)
    assert scene.held() == set(ids(pools[1:]))


async def test_a_hold_for_an_end_long_past_gives_way_to_a_new_one(scene: Scene) -> None:
    pools = scene.buy(FEW + 1)
    stale = {"state": "released", "reason": "long ago", "empty_at": NOW - 30 * DAY, "by": "me"}
    scene.documents.insert_many([{"_id": pool.pool_id, **stale} for pool in pools])
    assert await scene.pass_over(pools) == []
    assert scene.held() == set(ids(pools))


async def test_a_sweep_that_a_crash_cut_short_is_finished_however_few_are_left(scene: Scene) -> None:
    pools = scene.buy(FEW + 3)
    held, left = pools[:-2], pools[-2:]
    losses = await LossReader(database=scene.database).of(ids(held), now=NOW)
    await scene.holds.begin(Sweep(None, NOW, "too many"))
    await scene.holds.hold(losses, reason="too many", at=NOW)
    scene.start()
    assert await scene.pass_over(pools) == []
    assert scene.held() == set(ids(pools))
    scene.assert_kept(left)
    assert await scene.holds.unfinished() is None


async def test_a_sweep_that_an_outage_cut_short_is_finished_by_the_next_pass(scene: Scene, mongo: Client) -> None:
    pools = scene.buy(FEW + 1)
    with fail_point(mongo, "update", mode={"skip": 1}, errorCode=50), pytest.raises(StoreUnavailableError):
        await scene.brake.inspect(NOW - 50, NOW)
    assert scene.held() == set()
    scene.explorer.pools.delete_one({"_id": pools[0].pool_id})
    assert await scene.pass_over(pools[1:], after=NOW - 50) == []
    assert scene.held() == set(ids(pools[1:]))


async def test_a_first_look_that_an_outage_cut_short_is_made_again(scene: Scene, mongo: Client) -> None:
    old = scene.buy(2, ran_out_ago=2 * DAY)
    with fail_point(mongo, "update", errorCode=50), pytest.raises(StoreUnavailableError):
        await scene.brake.inspect(None, NOW)
    assert await scene.pass_over(old) == []


async def test_a_brake_that_is_off_holds_nothing_and_lets_go_of_what_was_held(scene: Scene) -> None:
    held = scene.buy(FEW + 1)
    await scene.pass_over(held)
    scene.start(enabled=False)
    pools = [*held, *scene.buy(FEW + 1), *scene.buy(1, ran_out_ago=2 * DAY)]
    assert await scene.pass_over(pools) == ids(pools)
    scene.assert_gone(pools)
    assert scene.held() == set(ids(held))


async def test_a_brake_that_is_switched_off_tells_that_it_holds_nothing_and_on_again_what_it_still_does(
    scene: Scene,
) -> None:
    await scene.pass_over(scene.buy(FEW + 1))
    holding = f"brake: pools held: {FEW + 1}; see `pool-daemon brake status`"
    assert scene.observer.told == holding
    scene.start(enabled=False)
    await scene.brake.look(scene.gate)
    assert scene.observer.told is None
    scene.start()
    await scene.brake.look(scene.gate)
    assert scene.observer.told == holding


async def test_a_share_of_zero_leaves_it_to_the_number(scene: Scene) -> None:
    scene.start(share=0)
    scene.buy_lasting(50)
    pools = scene.buy(FEW + 1)
    assert await scene.pass_over(pools) == []


async def written(scene: Scene, pools: Sequence[Purchase], *, now: int = NOW) -> list[int]:
    """Pass over pools that the change stream has named."""
    return await scene.pass_over(pools, after=now, now=now, written=ids(pools))


async def test_a_backup_restored_under_a_running_daemon_is_held_after_the_first_few(scene: Scene) -> None:
    """Each pass sees only a few of them, and settles those: what counts is how many came within a minute."""
    scene.buy_lasting(FEW)
    first = scene.buy(FEW)
    assert await written(scene, first) == ids(first)
    rest = [scene.buy(1) for _ in range(5)]
    for pools in rest:
        assert await written(scene, pools) == []
    assert scene.held() == {pool.pool_id for pools in rest for pool in pools}


async def test_what_is_in_hand_counts_before_anybody_knows_what_it_loses(scene: Scene) -> None:
    scene.buy_lasting(FEW)
    first, more = scene.buy(FEW), scene.buy(1)
    for pools, going in ((first, ids(first)), (more, [])):
        await scene.brake.inspect(NOW, NOW, ids(pools))
        assert await scene.brake.sift(ids(pools), Origin.WRITTEN, now=NOW) == going
    assert scene.held() == set(ids(more))


async def test_a_backup_restored_so_quickly_that_one_pass_sees_it_whole_is_held_whole(scene: Scene) -> None:
    scene.buy_lasting(FEW)
    pools = scene.buy(FEW + 1)
    assert await written(scene, pools) == []
    assert scene.held() == set(ids(pools))


async def test_a_few_pools_a_minute_that_are_written_empty_go_at_once(scene: Scene) -> None:
    scene.buy_lasting(19)
    for minute in range(3):
        pools = scene.buy(FEW)
        assert await written(scene, pools, now=NOW + 60 * minute) == ids(pools)


async def test_many_pools_written_empty_are_no_flood_where_they_are_a_small_share(scene: Scene) -> None:
    scene.buy_lasting(10 * FEW)
    pools = scene.buy(FEW + 1)
    assert await written(scene, pools) == ids(pools)


async def test_what_is_written_and_lasts_is_never_held_and_never_counts(scene: Scene) -> None:
    lasting = [scene.explorer.buy(Rates(1e6, 0, 0), [CONTAINER], bought_at=NOW) for _ in range(3 * FEW)]
    await scene.pass_over(lasting, after=NOW, written=ids(lasting))
    pools = scene.buy(FEW)
    assert await written(scene, pools) == ids(pools)
    assert scene.held() == set()
