"""The brake and whole passes on a real server: what is held, what goes, and when."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from brake_scene import BATCH_WORKLOADS, FEW, HOUR, Client, Scene, ids, scene_on
from bson import Int64
from explorer import CONTAINER, FREE, VOLUME
from structlog.testing import capture_logs

from pool_daemon.expiry.work_queue import Cause
from pool_daemon.store.pools import DuePool, PoolStore


@pytest_asyncio.fixture
async def scene(mongo_uri: str, mongo: Client, database_name: str) -> AsyncIterator[Scene]:
    async with scene_on(mongo_uri, mongo, database_name) as scene:
        yield scene


async def test_what_a_start_finds_overdue_is_held_whole_if_it_is_too_much_and_said_once(scene: Scene) -> None:
    pools = scene.buy(FEW + 1)
    scene.start()
    with capture_logs() as logs:
        assert await scene.run_passes() == 0
        assert await scene.full_scan() == 0
    assert scene.held() == set(ids(pools))
    (line,) = [line for line in logs if line["log_level"] == "error"]
    assert (line["event"], line["pools"]) == ("brake_held", FEW + 1)
    assert line["reason"] == "9 pools, 100% of those in use, ended unexpectedly"
    assert scene.told.text == f"brake: {line['reason']}; see `pool-daemon brake status`"
    document = scene.documents.find_one({"_id": pools[0].pool_id})
    assert document is not None
    assert (document["owner"], document["workloads"]) == (pools[0].document["customer_tid"], 1)


async def test_what_a_start_finds_overdue_goes_if_it_is_few_or_a_small_share(scene: Scene) -> None:
    few = scene.buy(FEW)
    scene.start()
    assert await scene.run_passes() == len(few)
    scene.buy_lasting(5 * FEW)
    more = scene.buy(FEW + 1)
    scene.start()
    assert await scene.run_passes() == len(more)
    assert scene.held() == set()


async def test_pools_that_end_while_the_stream_is_followed_go_however_many(scene: Scene) -> None:
    pools = scene.buy(5 * FEW, ended_ago=-5)
    scene.clock.pass_time(10)
    assert await scene.run_passes() == len(pools)


async def test_a_take_over_in_the_middle_of_a_mass_expiry_holds_nothing(scene: Scene) -> None:
    """A standby has followed the stream for long; what it finds is what the other has not come to."""
    pools = scene.buy(5 * FEW, ended_ago=-5)
    scene.clock.pass_time(10)
    assert await scene.full_scan() == len(pools)


async def test_what_ended_behind_a_gap_in_the_stream_is_overdue_beyond_what_was_known(scene: Scene) -> None:
    pools = scene.buy(FEW + 1, ended_ago=-5)
    scene.clock.pass_time(10)
    scene.brake.unexpected.watching_since(scene.now)
    assert await scene.full_scan() == 0
    assert scene.held() == set(ids(pools))


@pytest.mark.parametrize("tells_owner", [True, False])
async def test_the_crowd_of_one_owner_costs_no_read_where_the_stream_told_whose_it_is(
    scene: Scene, *, tells_owner: bool
) -> None:
    """The pools of others, which fall due in the midst of it, wait for each read."""
    crowd = scene.buy(5 * FEW, ended_ago=0, owners=[7] * 5 * FEW)
    scene.write(crowd, tells_owner=tells_owner)
    assert await scene.run_passes() == len(crowd)
    assert scene.pool_counts.asked_owners == (0 if tells_owner else len(crowd))


async def test_ends_that_are_a_small_share_whosever_they_are_cost_no_read_of_owners(scene: Scene) -> None:
    scene.buy_lasting(10 * FEW)
    purchases = scene.buy(2 * FEW, ended_ago=0)
    scene.write(purchases)
    assert await scene.run_passes() == len(purchases)
    assert scene.pool_counts.asked_owners == 0


@pytest.mark.parametrize("at_once", [1, 3, FEW, 10 * FEW])
async def test_of_a_restore_that_the_stream_tells_no_more_goes_than_a_few_at_any_speed(
    scene: Scene, at_once: int
) -> None:
    pools = scene.buy(10 * FEW, owners=[7] * 10 * FEW)
    gone = 0
    for start in range(0, len(pools), at_once):
        scene.write(pools[start : start + at_once])
        gone += await scene.run_passes()
        scene.clock.pass_time(600)
    assert gone <= FEW
    assert scene.running(pools) == len(scene.held()) == len(pools) - gone


@pytest.mark.parametrize("at_once", [1, 3, FEW])
async def test_full_scans_one_after_the_other_let_no_more_of_a_restore_go(scene: Scene, at_once: int) -> None:
    """Each meets a few pools before the stream, which was followed for days, has told of them."""
    scene.brake.unexpected.since = scene.now - 48 * HOUR
    await scene.run_pass()
    restored = []
    gone = 0
    for _ in range(5 * FEW):
        restored += scene.buy(at_once)
        gone += await scene.full_scan()
        scene.clock.pass_time(60)
    assert gone <= FEW
    assert len(scene.held()) == len(restored) - gone


async def test_what_the_stream_tells_takes_no_room_that_a_full_scan_has_counted_for_others(scene: Scene) -> None:
    """A backup comes back while one full scan has counted the first of it, and the next one is about to act on that."""
    scene.brake.unexpected.since = scene.now - 48 * HOUR
    await scene.run_pass()
    counted = scene.buy(FEW - 2)
    scene.queue.request_full_scan()
    gone = (await scene.run_pass()).decommissioned
    told = scene.buy(FEW - 2)
    scene.write(told)
    gone += await scene.run_passes()
    assert gone <= FEW
    assert len(scene.held()) == len(counted) + len(told) - gone


@pytest.mark.parametrize("parts", [[FEW + 2, FEW + 2, FEW + 2], [FEW + 2, 0, 0, 2 * FEW]])
async def test_a_small_share_goes_only_once_it_has_stopped_growing(scene: Scene, parts: list[int]) -> None:
    """A backup is restored over what is there while full scans follow each other: at first it is a small share.

    It may pause between its parts; meanwhile the first one is counted again and again.
    """
    scene.buy_lasting(10 * FEW)
    scene.start()
    restored = []
    gone = 0
    for part in parts:
        restored += scene.buy(part)
        scene.queue.request_full_scan()
        gone += (await scene.run_pass()).decommissioned
    assert await scene.run_passes() == gone == 0
    assert scene.held() == set(ids(restored))


async def test_what_falls_due_while_late_pools_are_counted_goes_and_they_are_counted_on(scene: Scene) -> None:
    """On a busy grid there is a pass between any two full scans."""
    scene.buy_lasting(10 * FEW)
    scene.start()
    late = scene.buy(FEW + 2)
    for _ in range(2):
        await scene.run_pass()
    gone = 0
    for _ in range(20):
        if not scene.queue.full_scan_is_ahead:
            break
        punctual = scene.buy(1, ended_ago=-1)
        scene.clock.pass_time(1)
        assert (await scene.run_pass()).decommissioned == len(punctual)
        scene.queue.request_full_scan()
        gone += (await scene.run_pass()).decommissioned
    assert gone == len(late)


async def test_what_turns_up_behind_what_was_settled_is_a_restore_even_of_one_owner(scene: Scene) -> None:
    """A full scan meets it before the stream tells of it; he cannot have arranged that."""
    await scene.run_pass()
    pools = scene.buy(10 * FEW, owners=[7] * 10 * FEW)
    assert await scene.full_scan() == 0
    assert scene.held() == set(ids(pools))


async def test_a_count_that_was_cut_short_lets_nothing_go(scene: Scene) -> None:
    pools = scene.buy(FEW)
    due = await PoolStore(database=scene.database).due_among(ids(pools), until=scene.now)
    scene.start()
    allowed = []
    for complete in (False, True, True):
        await scene.brake.inspect(None, scene.now)
        allowed.append(len(await scene.settle_batch(due, full_scan=True)))
        scene.brake.passed(complete=complete)
    assert allowed == [0, 0, len(pools)]


async def test_what_was_counted_as_overdue_does_not_go_as_written_past_its_end(scene: Scene) -> None:
    """The stream tells of a restore after a full scan has counted it as what one owner has let end."""
    pools = scene.buy(10 * FEW, owners=[7] * 10 * FEW)
    scene.start()
    await scene.run_pass()
    scene.write(pools)
    assert await scene.run_passes() == 0
    assert scene.held() == set(ids(pools))


async def test_a_restore_of_the_workloads_alone_is_one_too(scene: Scene) -> None:
    pools = scene.buy(10 * FEW, ended_ago=-5)
    scene.clock.pass_time(10)
    await scene.run_passes()
    scene.clock.pass_time(600)
    for pool in pools:
        scene.explorer.workloads.update_many({"pool_id": pool.pool_id}, {"$set": {"next_action": 3}})
        scene.brake.unexpected.record(pool.pool_id, None, scene.now)
        scene.queue.add(pool.pool_id, at=scene.now, cause=Cause.CHANGED)
    gone = await scene.run_passes()
    assert gone <= FEW
    assert len(scene.held()) == len(pools) - gone


async def test_workloads_that_come_back_before_their_pools_are_settled_do_not_go(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restore brings the pools first: when the brake looks, they have nothing to lose."""
    pools = scene.buy(3 * FEW)
    workloads = list(scene.explorer.workloads.find())
    scene.explorer.workloads.delete_many({})
    scene.start()
    filter_allowed = scene.brake.filter_allowed

    async def restored_behind_it(*arguments: Any, **others: Any) -> list[DuePool]:
        allowed = await filter_allowed(*arguments, **others)
        if workloads:
            scene.explorer.workloads.insert_many(workloads)
            workloads.clear()
        return allowed

    monkeypatch.setattr(scene.brake, "filter_allowed", restored_behind_it)
    gone = await scene.run_passes()
    assert gone <= FEW
    assert len(scene.held()) == len(pools) - gone


async def test_a_bulk_edit_that_brings_many_ends_forward_is_held_before_the_first_goes(scene: Scene) -> None:
    pools = scene.buy(10 * FEW, ended_ago=-60)
    scene.write(pools)
    scene.clock.pass_time(60)
    assert await scene.run_passes() == 0
    assert scene.held() == set(ids(pools))


async def test_the_last_of_a_bulk_edit_is_held_though_they_alone_would_be_few(scene: Scene) -> None:
    pools = scene.buy(2 * FEW, ended_ago=-30)
    scene.write(pools)
    scene.clock.pass_time(30)
    due = await PoolStore(database=scene.database).due_among(ids(pools), until=scene.now)
    for seconds, batch in enumerate((due[:FEW], due[FEW:])):
        await scene.brake.inspect(scene.now + seconds - 1, scene.now + seconds)
        assert await scene.settle_batch(batch, full_scan=False) == set()
    assert scene.held() == set(ids(pools))


async def test_what_of_a_bulk_edit_is_reported_in_the_midst_of_a_pass_is_counted_before_the_next_batch(
    scene: Scene,
) -> None:
    """Ends that are written into the present second are due while the change stream still reports them."""
    pools = scene.buy(5 * FEW, ended_ago=0)
    due = await PoolStore(database=scene.database).due_among(ids(pools), until=scene.now)
    scene.write(pools[:FEW])
    await scene.brake.inspect(scene.now - 1, scene.now)
    await scene.settle_batch(due[:FEW], full_scan=False)
    scene.write(pools[FEW:])
    for start in range(FEW, len(due), FEW):
        assert await scene.settle_batch(due[start : start + FEW], full_scan=False) == set()
    assert scene.running(pools) == len(scene.held()) == 4 * FEW


async def test_what_of_a_bulk_edit_is_reported_while_the_rest_is_held_is_held_too(scene: Scene) -> None:
    """So few that they would go at once if the others, which do not count any more, had not been too many."""
    pools = scene.buy(5 * FEW, ended_ago=0)
    due = await PoolStore(database=scene.database).due_among(ids(pools), until=scene.now)
    scene.write(pools[:-FEW])
    await scene.brake.inspect(scene.now - 1, scene.now)
    await scene.settle_batch(due[:-FEW], full_scan=False)
    scene.write(pools[-FEW:])
    assert await scene.settle_batch(due[-FEW:], full_scan=False) == set()
    assert scene.held() == set(ids(pools))


async def test_a_pool_that_its_first_portion_has_synced_is_judged_like_any_other(scene: Scene) -> None:
    """Of its many workloads, the first ones use a resource that lasts."""
    pools = scene.buy(FEW + 1, *[VOLUME] * 30, CONTAINER, ended_ago=HOUR)
    scene.start()
    assert await scene.run_passes() == 0
    assert scene.held() == set(ids(pools))


async def test_pools_that_are_written_when_their_workloads_are_gone_make_no_others_be_held(scene: Scene) -> None:
    """After a mass expiry the explorer takes the workloads out of the pools one after the other."""
    emptied = scene.buy(10 * FEW, CONTAINER, CONTAINER, ended_ago=0, next_action=4)
    purchases = scene.buy(FEW, ended_ago=0)
    scene.write([*emptied, *purchases])
    assert await scene.run_passes() == len(purchases)
    assert scene.held() == set()


async def test_once_pools_without_workloads_are_settled_what_is_written_near_its_end_goes_at_once_again(
    scene: Scene,
) -> None:
    emptied = scene.buy(10 * FEW, CONTAINER, CONTAINER, ended_ago=0, next_action=4)
    scene.write(emptied)
    await scene.run_pass()
    purchases = scene.buy(FEW, ended_ago=0)
    scene.write(purchases)
    assert (await scene.run_pass()).decommissioned == len(purchases)


@pytest.mark.parametrize("workloads", [5, 45])
async def test_a_hold_says_how_many_workloads_go_and_of_a_pool_beyond_one_batch_how_many_it_has(
    scene: Scene, workloads: int
) -> None:
    lasting = [VOLUME] if workloads < BATCH_WORKLOADS else []
    pools = scene.buy(FEW + 1, *[CONTAINER] * workloads, *lasting)
    scene.start()
    assert await scene.run_passes() == 0
    assert [document["workloads"] for document in scene.documents.find()] == [workloads] * len(pools)
    await scene.release(pools)
    assert await scene.run_passes() == workloads * len(pools)


async def test_one_owner_has_nothing_held_whatever_he_does(scene: Scene) -> None:
    lasting = scene.buy(1, owners=[7], ended_ago=-30)
    tiny = scene.buy(20 * FEW, owners=[7] * 20 * FEW, ended_ago=-30)
    scene.write([*tiny, *lasting])
    neighbours = scene.buy(2, ended_ago=-30)
    scene.write(neighbours)
    scene.clock.pass_time(30)
    assert await scene.run_passes() == len(tiny) + 1 + len(neighbours)
    overdue = scene.buy(20 * FEW, owners=[7] * 20 * FEW)
    scene.start()
    assert await scene.run_passes() == len(overdue)
    assert scene.held() == set()


async def test_what_else_falls_due_goes_its_way_while_others_are_held(scene: Scene) -> None:
    scene.buy(FEW + 1)
    scene.start()
    await scene.run_passes()
    pools = scene.buy(3 * FEW, ended_ago=-5)
    scene.clock.pass_time(10)
    assert await scene.run_passes() == len(pools)


async def test_while_a_backup_waits_for_an_operator_the_rest_of_it_does_too(scene: Scene) -> None:
    """The rest is of one owner, who alone would count for a few."""
    scene.buy(FEW + 1)
    scene.start()
    await scene.run_passes()
    rest = scene.buy(FEW, owners=[7] * FEW)
    assert await scene.full_scan() == 0
    assert scene.running(rest) == FEW


@pytest.mark.parametrize("ago", [10, 30 * 24 * HOUR])
async def test_pools_with_nothing_to_lose_neither_count_nor_are_held(scene: Scene, ago: int) -> None:
    """Decommissioned already, free of charge, or using only what still lasts: they may stay due for years."""
    scene.buy(FEW, CONTAINER, ended_ago=ago, next_action=4)
    scene.buy(FEW, FREE[0], ended_ago=ago, empty_at=Int64(scene.now - ago))
    scene.buy(FEW, VOLUME, ended_ago=ago, empty_at=Int64(scene.now - ago))
    pools = scene.buy(FEW, ended_ago=ago)
    scene.start()
    scene.clock.pass_time(1)
    assert await scene.run_passes() == len(pools)
    assert scene.documents.count_documents({}) == 0
