"""What is held, on a real server: for how long, what lets it go, and what is said of it."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from arithmetic_model import Rates
from brake_scene import FEW, HOUR, Client, Scene, ids, scene_on
from bson import Decimal128
from explorer import CONTAINER
from fail_point import fail_point, times_entered
from structlog.testing import capture_logs

from pool_daemon.errors import StoreError
from pool_daemon.guards.gate import Closed
from pool_daemon.store.cases import Settlement
from pool_daemon.store.holds import HoldStore

READS = ("find", "aggregate", "count", "distinct")


@pytest_asyncio.fixture
async def scene(mongo_uri: str, mongo: Client, database_name: str) -> AsyncIterator[Scene]:
    async with scene_on(mongo_uri, mongo, database_name) as scene:
        yield scene


async def test_what_is_held_is_held_after_a_restart_and_by_a_daemon_that_takes_over(scene: Scene) -> None:
    pools = scene.buy(FEW + 1)
    scene.start()
    await scene.run_passes()
    scene.start()
    assert await scene.run_passes() == 0
    assert scene.held() == set(ids(pools))
    assert scene.held_pools.count == len(pools)


async def test_a_daemon_that_stood_by_knows_what_the_leader_has_held(scene: Scene) -> None:
    """So few that they would go, if they were found overdue."""
    await scene.held_pools.review(scene.gate)
    pools = scene.buy(FEW // 2)
    due = await scene.store.pools.due_among(ids(pools), until=scene.now)
    leader = HoldStore(database=scene.database, identity="the leader")
    await leader.hold(due, reason="a backup", at=scene.now)
    assert await scene.full_scan() == 0
    assert scene.held_pools.count == len(pools)


async def test_released_pools_go_at_once_however_many_and_the_last_of_them_ends_the_looking(
    scene: Scene, mongo: Client
) -> None:
    pools = scene.buy(3 * FEW)
    scene.start()
    await scene.run_passes()
    await scene.release(pools)
    assert await scene.run_passes() == len(pools)
    await scene.held_pools.review(scene.gate)
    assert (scene.documents.count_documents({}), scene.told.text) == (0, None)
    before = times_entered(mongo)
    with fail_point(mongo, *READS, mode="alwaysOn", errorCode=50):
        await scene.held_pools.review(scene.gate)
    assert times_entered(mongo) == before


async def test_a_release_stands_until_its_pool_is_settled(scene: Scene, mongo: Client) -> None:
    """One of the pools is locked by another writer, and one has nothing to lose any more."""
    locked, emptied, *_ = pools = scene.buy(FEW + 1)
    scene.start()
    await scene.run_passes()
    scene.explorer.workloads.update_many({"pool_id": emptied.pool_id}, {"$set": {"next_action": 4}})
    with mongo.start_session() as session, session.start_transaction():
        scene.explorer.pools.update_one({"_id": locked.pool_id}, {"$set": {"node_ids": []}}, session=session)
        await scene.release(pools)
        assert await scene.run_passes() == FEW - 1
        assert [document["_id"] for document in scene.documents.find()] == [locked.pool_id]
        session.abort_transaction()
    await scene.held_pools.review(scene.gate)
    assert await scene.run_passes() == 1
    assert scene.documents.count_documents({}) == 0


async def test_what_was_released_does_not_count_against_what_comes_after_it(scene: Scene) -> None:
    pools = scene.buy(3 * FEW)
    scene.start()
    await scene.run_passes()
    await scene.release(pools)
    await scene.run_passes()
    more = scene.buy(FEW)
    scene.write(more)
    assert await scene.run_passes() == len(more)


async def test_a_backup_that_is_restored_again_just_after_a_release_is_held_again(scene: Scene) -> None:
    pools = scene.buy(3 * FEW)
    scene.start()
    await scene.run_passes()
    await scene.release(pools)
    settled, due = pools[:FEW], pools[FEW:]
    await scene.run_passes()
    scene.clock.pass_time(2)
    for pool in settled:
        scene.explorer.pools.replace_one({"_id": pool.pool_id}, pool.document)
        scene.explorer.workloads.update_many({"pool_id": pool.pool_id}, {"$set": {"next_action": 3}})
    for pool in due:
        scene.explorer.pools.replace_one({"_id": pool.pool_id}, pool.document)
        scene.explorer.workloads.update_many({"pool_id": pool.pool_id}, {"$set": {"next_action": 3}})
    scene.write(pools)
    assert await scene.run_passes() <= FEW
    assert len(scene.held()) >= len(pools) - FEW


async def test_a_pool_that_was_allowed_and_not_settled_is_not_unexpected_when_it_is_tried_again(
    scene: Scene, mongo: Client
) -> None:
    """Another writer keeps the pools locked while passes go on, so that they lie below what was settled."""
    pools = scene.buy(3 * FEW, ended_ago=-5)
    scene.clock.pass_time(10)
    with mongo.start_session() as session, session.start_transaction():
        scene.explorer.pools.update_many({"_id": {"$in": ids(pools)}}, {"$set": {"node_ids": []}}, session=session)
        assert await scene.run_passes() == 0
        scene.clock.pass_time(1)
        await scene.run_pass()
        session.abort_transaction()
    assert await scene.full_scan() == len(pools)
    assert scene.held() == set()


async def test_a_pool_that_is_topped_up_is_held_no_more_and_one_as_empty_as_before_is(scene: Scene) -> None:
    topped_up, written, *_ = pools = scene.buy(FEW + 2, CONTAINER, CONTAINER)
    scene.start()
    await scene.run_passes()
    scene.explorer.top_up(topped_up.pool_id, Rates(1e6, 0, 0))
    scene.explorer.shorten(written.pool_id, Rates(0, 1e12, 1e12))
    scene.clock.pass_time(5)
    await scene.held_pools.review(scene.gate)
    assert scene.held() == set(ids(pools)) - {topped_up.pool_id}
    assert await scene.full_scan() == 0


async def test_holds_and_releases_outlive_a_clock_that_the_gate_does_not_trust(scene: Scene) -> None:
    pools = scene.buy(FEW + 1)
    scene.start()
    await scene.run_passes()
    scene.gate.reason = Closed.CLOCKS_APART
    scene.clock.step(-2 * HOUR)
    await scene.release(pools[1:])
    assert scene.documents.count_documents({}) == len(pools)
    scene.clock.step(2 * HOUR)
    scene.gate.reason = None
    await scene.held_pools.review(scene.gate)
    assert await scene.run_passes() == FEW


async def test_a_pass_that_could_not_count_lets_nothing_go(scene: Scene, mongo: Client) -> None:
    pools = scene.buy(FEW + 1)
    scene.start()
    with fail_point(mongo, "aggregate", "find", mode={"skip": 6}, errorCode=50), pytest.raises(StoreError):
        await scene.run_pass()
    scene.queue.request_full_scan()
    assert await scene.run_passes() == 0
    assert scene.held() == set(ids(pools))


async def test_a_hold_that_cannot_be_written_fails_the_pass_and_blames_no_pool(scene: Scene, mongo: Client) -> None:
    pools = scene.buy(FEW + 1)
    scene.start()
    await scene.run_pass()
    with fail_point(mongo, "insert", errorCode=121), pytest.raises(StoreError):
        await scene.run_pass()
    assert scene.running(pools) == len(pools)
    assert await scene.run_passes() == 0
    assert scene.held() == set(ids(pools))


async def test_a_release_outlives_a_hold_that_was_decided_before_it_and_no_later_one(scene: Scene) -> None:
    """Two batches of one pass may withhold the same pool; the operator releases it between their writes."""
    pools = scene.buy(2)
    first, second = due = await scene.store.pools.due_among(ids(pools), until=scene.now)
    await scene.holds.hold(due, reason="a backup", at=scene.now)
    await scene.holds.release([first.pool_id], at=scene.now + 0.2)
    await scene.holds.hold(due, reason="the same", at=scene.now)
    assert scene.held() == {second.pool_id}
    await scene.holds.hold(due, reason="another backup", at=scene.now + 1)
    assert scene.held() == {first.pool_id, second.pool_id}
    assert scene.documents.distinct("reason") == ["another backup"]
    assert scene.documents.count_documents({"released_at": {"$exists": True}}) == 0


async def test_a_dry_run_says_what_would_be_held_and_writes_nothing(scene: Scene) -> None:
    pools = scene.buy(FEW + 1)
    scene.start(dry_run=True)
    with capture_logs() as logs:
        assert await scene.run_passes() == 0
        assert await scene.full_scan() == 0
    assert scene.documents.count_documents({}) == 0
    assert [line["pools"] for line in logs if line["event"] == "brake_would_hold"] == [len(pools)]
    assert scene.held_pools.count == len(pools)


async def test_a_brake_that_is_switched_off_protects_nothing_any_more(scene: Scene) -> None:
    pools = scene.buy(FEW + 1)
    due = await scene.store.pools.due_among(ids(pools), until=scene.now)
    scene.start()
    protected = await scene.brake.filter_allowed(due, now=scene.now, full_scan=True)
    scene.start(enabled=False)
    allowed = await scene.brake.filter_allowed(protected, now=scene.now, full_scan=True)
    assert ([pool.protected for pool in protected], allowed) == ([True] * len(due), due)
    settlement = Settlement(withheld=protected)
    assert await scene.brake.judge([], settlement, now=scene.now, full_scan=True) == set(ids(pools))


async def test_a_brake_that_is_off_lets_everything_go(scene: Scene) -> None:
    held = scene.buy(FEW + 1)
    scene.start()
    await scene.run_passes()
    scene.start(enabled=False)
    await scene.held_pools.review(scene.gate)
    assert scene.told.text is None
    assert await scene.run_passes() == len(held)


async def test_a_hold_whose_numbers_are_decimals_is_counted_and_released(scene: Scene) -> None:
    decimals = {name: Decimal128("7") for name in ("_id", "owner", "empty_at", "workloads")}
    scene.documents.insert_one(decimals | {"state": "held"})
    scene.documents.insert_one({"_id": 8, "owner": "\x1b[2J", "state": "held", "workloads": float("nan")})
    found = {(each.owner, each.pools, each.workloads) for each in await scene.holds.by_owner()}
    assert found == {(7, 1, 7), (None, 1, 0)}
    assert sorted(await scene.holds.release([7, 8], at=0)) == [7, 8]
