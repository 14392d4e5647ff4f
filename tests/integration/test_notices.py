"""Notices on a real server: each told once an episode, none for a pool that lasts, none lost."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from arithmetic_model import Document
from bson import Int64
from notice_scene import DAY, HOUR, MINUTE, Scene, scene_on
from pymongo import MongoClient
from pymongo.monitoring import CommandListener

from pool_daemon.errors import StoreConflictError
from pool_daemon.guards.gate import Closed
from pool_daemon.notices.receiver import Failed, Gone
from pool_daemon.store.outbox import DeliveryState

Client = MongoClient[Document]


@pytest_asyncio.fixture
async def scene(mongo_uri: str, mongo: Client, database_name: str) -> AsyncIterator[Scene]:
    async with scene_on(mongo_uri, mongo, database_name) as scene:
        yield scene


async def test_a_pool_is_told_once_for_each_lead_and_of_several_at_once_the_shortest(scene: Scene) -> None:
    far, week, day = scene.lasting(30 * DAY, 6 * DAY, 20 * HOUR)
    for _ in range(3):
        await scene.round()
    assert sorted(scene.told()) == [(week, 7 * DAY), (day, DAY)]

    scene.end_in(20 * HOUR, week)
    scene.end_in(30 * MINUTE, day)
    for _ in range(2):
        await scene.round()
    assert sorted(scene.told()[2:]) == [(week, DAY), (day, HOUR)]
    assert far not in [pool_id for pool_id, _ in scene.told()]
    assert {document["state"] for document in scene.outbox} == {"delivered"}


async def test_an_end_that_moves_by_less_than_a_tenth_is_not_told_again(scene: Scene) -> None:
    (pool,) = scene.lasting(23 * HOUR)
    for hours in (23, 26, 23, 26.3, 22):
        scene.end_in(hours * HOUR, pool)
        await scene.round()
    assert scene.told() == [(pool, DAY)]
    assert len(scene.inbox.events) == 1


async def test_three_falls_and_top_ups_are_three_notices_and_three_replenishments(scene: Scene) -> None:
    (pool,) = scene.lasting(30 * DAY)
    for _ in range(3):
        scene.end_in(30 * MINUTE, pool)
        await scene.round()
        await scene.round()
        scene.end_in(30 * DAY, pool)
        await scene.round()
        await scene.round()
    assert scene.told() == [(pool, HOUR)] * 3
    assert [event["type"] for event in scene.inbox.events] == ["pool.expiring", "pool.replenished"] * 3
    assert scene.notices == []


async def test_a_small_top_up_ends_the_episode_of_the_short_lead_alone(scene: Scene) -> None:
    (pool,) = scene.lasting(30 * MINUTE)
    await scene.round()
    scene.end_in(3 * DAY, pool)
    await scene.round()
    await scene.round()
    assert [event["type"] for event in scene.inbox.events] == ["pool.expiring", "pool.replenished"]
    scene.end_in(20 * HOUR, pool)
    await scene.round()
    assert scene.told() == [(pool, HOUR), (pool, DAY)]


async def test_a_pool_that_has_run_empty_is_told_nothing_more_and_begins_anew_when_it_lasts_again(scene: Scene) -> None:
    (pool,) = scene.lasting(30 * MINUTE)
    await scene.round()
    for skew in (0, 3, 0, 3):
        scene.end_in(skew, pool)  # each write of the explorer moves the end of an empty pool to its present
        await scene.round()
    assert (scene.told(), scene.notices) == ([(pool, HOUR)], [])
    scene.end_in(10 * DAY, pool)
    await scene.round()
    scene.end_in(30 * MINUTE, pool)
    await scene.round()
    assert scene.told() == [(pool, HOUR)] * 2


async def test_two_daemons_at_once_tell_each_pool_once(
    scene: Scene, mongo_uri: str, mongo: Client, database_name: str
) -> None:
    pools = scene.lasting(*([30 * MINUTE] * 50), *([20 * HOUR] * 50))
    async with scene_on(mongo_uri, mongo, database_name) as other:

        async def repeat(one: Scene) -> None:
            while len(scene.notices) < len(pools):
                with contextlib.suppress(StoreConflictError):
                    await one.announcer.look()

        await asyncio.gather(repeat(scene), repeat(other))
        await asyncio.gather(scene.deliver(), other.deliver())
        told = scene.told() + other.told()
    assert Counter(pool for pool, _ in told) == dict.fromkeys(pools, 1)
    assert len(scene.outbox) == len(pools)


class CutOff(CommandListener):
    """Cancels a task when the database has been sent so many commands."""

    def __init__(self, commands: int) -> None:
        self.left = commands
        self.task: asyncio.Task[Any] | None = None
        self.loop = asyncio.get_running_loop()

    def started(self, event: object) -> None:
        del event
        self.left -= 1
        if self.left == 0 and self.task is not None:
            self.loop.call_soon_threadsafe(self.task.cancel)

    def succeeded(self, event: object) -> None:
        """Go on."""

    def failed(self, event: object) -> None:
        """Go on."""


async def test_a_crash_at_any_command_neither_loses_a_notice_nor_tells_it_twice(scene: Scene) -> None:
    """The announcer and the delivery are cut off at each of their commands in turn, and started again."""
    fallen = 0
    commands = 1
    while True:
        (pool,) = scene.lasting(30 * MINUTE, owner=commands)
        fallen += 1
        cut_off = CutOff(commands)
        scene.start(cut_off)
        cut_off.task = asyncio.create_task(scene.round())
        await asyncio.wait({cut_off.task})
        finished = not cut_off.task.cancelled()
        scene.start()

        for _ in range(2):  # the second tells what the first takes back
            scene.make_due()
            await scene.round()
        assert not _pending(scene), f"cut off at command {commands}"
        assert [each for each, _ in scene.told()].count(pool) == 1, f"cut off at command {commands}"
        if finished:
            break
        commands += 1
    assert commands > 8
    assert len(scene.told()) == fallen


def _pending(scene: Scene) -> list[Document]:
    return [document for document in scene.outbox if document["state"] == "pending"]


async def test_a_thousand_pools_topped_up_before_their_notices_are_sent_get_none(scene: Scene) -> None:
    pools = scene.lasting(*([30 * MINUTE] * 1000))
    await scene.announcer.look()
    assert len(_pending(scene)) == len(pools)
    scene.end_in(30 * DAY, *pools)
    await scene.deliver()
    await scene.round()
    assert scene.inbox.events == []
    assert (scene.notices, {document["state"] for document in scene.outbox}) == ([], {"superseded"})


async def test_a_pool_topped_up_by_a_little_is_told_once_it_comes_within_the_lead_again(scene: Scene) -> None:
    (pool,) = scene.lasting(59 * MINUTE)
    await scene.announcer.look()
    scene.end_in(62 * MINUTE, pool)
    await scene.round()
    assert scene.inbox.events == []
    assert [document["state"] for document in scene.outbox] == ["pending"]
    scene.end_in(58 * MINUTE, pool)
    scene.make_due()
    await scene.deliver()
    assert scene.told() == [(pool, HOUR)]


async def test_a_notice_that_waited_is_replaced_by_a_more_urgent_one(scene: Scene) -> None:
    (pool,) = scene.lasting(20 * HOUR)
    await scene.announcer.look()
    scene.end_in(30 * MINUTE, pool)
    await scene.announcer.look()
    await scene.deliver()
    assert scene.told() == [(pool, HOUR)]
    assert sorted(document["state"] for document in scene.outbox) == ["delivered", "superseded"]


async def test_a_top_up_that_leaves_a_longer_lead_tells_that_if_nothing_was_delivered_before(scene: Scene) -> None:
    (pool,) = scene.lasting(30 * MINUTE)
    await scene.announcer.look()
    scene.end_in(3 * DAY, pool)
    for _ in range(3):
        await scene.announcer.look()
    await scene.deliver()
    assert scene.told() == [(pool, 7 * DAY)]


async def test_a_crowd_of_one_owner_is_one_digest_and_only_what_still_ends_is_in_it(scene: Scene) -> None:
    crowd = scene.lasting(*([30 * MINUTE] * 21), owner=5)
    few = scene.lasting(*([30 * MINUTE] * 20), owner=6)
    await scene.announcer.look()
    scene.end_in(30 * DAY, *crowd[:5])
    await scene.deliver()
    (digest,) = scene.inbox.by_type("pools.expiring")
    assert digest["subject"] == "owner/5"
    assert [pool["pool_id"] for pool in digest["data"]["pools"]] == crowd[5:]
    assert len(scene.inbox.by_type("pool.expiring")) == len(few)
    scene.end_in(30 * DAY, *crowd)
    await scene.round()
    (digest,) = scene.inbox.by_type("pools.replenished")
    assert {pool["pool_id"] for pool in digest["data"]["pools"]} == set(crowd)


async def test_a_receiver_that_fails_gets_the_same_event_again_and_delays_no_round(scene: Scene) -> None:
    scene.inbox.answers = [Failed("down"), Failed("down")]
    (pool,) = scene.lasting(30 * MINUTE)
    await scene.round()
    assert scene.outbox[0]["next_at"] > scene.outbox[0]["created_at"]
    scene.make_due()
    await scene.deliver()
    scene.make_due()
    await scene.deliver()
    assert [event["id"] for event in scene.inbox.events] == [scene.outbox[0]["event_id"]] * 3
    assert (scene.outbox[0]["attempts"], scene.outbox[0]["last_error"]) == (3, None)
    assert scene.told() == [(pool, HOUR)]


async def test_retry_after_is_kept_and_an_event_that_is_worth_nothing_by_then_is_dead(scene: Scene) -> None:
    scene.lasting(30 * MINUTE, 50 * MINUTE)
    scene.inbox.answers = [Failed("busy", 40 * MINUTE), Failed("busy", 40 * MINUTE)]
    await scene.announcer.look()
    pauses = [await scene.delivery.deliver_next() for _ in range(2)]
    assert pauses == [40 * MINUTE] * 2
    by_state = {document["state"]: document for document in scene.outbox}
    assert set(by_state) == {"pending", "dead"}
    assert by_state["pending"]["next_at"].timestamp() - scene.clock.now() > 39 * MINUTE


async def test_a_receiver_that_is_gone_gets_nothing_more_after_a_restart_either_until_it_is_turned_on(
    scene: Scene,
) -> None:
    scene.lasting(30 * MINUTE, 30 * MINUTE)
    scene.inbox.answers = [Gone("status 410")]
    await scene.announcer.look()
    for _ in range(3):
        scene.make_due()
        assert await scene.delivery.deliver_next() > 0
        scene.start()
    assert len(scene.inbox.events) == 1
    await scene.watch.look()
    receiver = scene.observer.status.snapshot.receivers["inbox"]
    assert (receiver.off, receiver.pending) == ("status 410", 2)

    assert await scene.store.receivers.turn_on("inbox")
    await scene.deliver()
    assert len(scene.told()) == 2
    await scene.watch.look()
    assert scene.observer.status.snapshot.receivers["inbox"].off is None
    assert not await scene.store.receivers.turn_on("inbox")


async def test_a_receiver_that_was_gone_gets_notices_again_once_it_has_other_settings(scene: Scene) -> None:
    scene.lasting(30 * MINUTE)
    scene.inbox.answers = [Gone("status 410")]
    await scene.announcer.look()
    await scene.delivery.deliver_next()
    scene.make_due()
    scene.inbox.digest = "another address"
    scene.start()
    await scene.deliver()
    assert len(scene.inbox.events) == 2


async def test_a_receiver_that_another_daemon_turned_off_is_left_alone_after_a_take_over(scene: Scene) -> None:
    scene.lasting(30 * MINUTE)
    await scene.round()
    scene.gate_closed_by = Closed.STANDBY
    await scene.delivery.deliver_next()
    await scene.store.receivers.turn_off("inbox", digest=scene.inbox.digest, reason="gone", now=scene.clock.now())
    scene.gate_closed_by = None
    scene.lasting(30 * MINUTE, owner=5)
    await scene.announcer.look()
    assert await scene.delivery.deliver_next() > 0
    assert len(scene.inbox.events) == 1


async def test_what_waits_for_a_receiver_is_counted_but_not_a_notice_that_waits_for_its_time(scene: Scene) -> None:
    (late, early) = scene.lasting(30 * MINUTE, 59 * MINUTE)
    await scene.announcer.look()
    scene.end_in(62 * MINUTE, early)
    scene.inbox.answers = [Failed("down", 1.0), Failed("down", 1.0)]
    for _ in range(2):
        await scene.delivery.deliver_next()
    await scene.watch.look()
    receiver = scene.observer.status.snapshot.receivers["inbox"]
    assert (receiver.pending, receiver.dead) == (1, 0)
    assert receiver.waits_monotonic is not None
    assert 0 <= scene.clock.monotonic() - receiver.waits_monotonic < MINUTE

    scene.end_in(-1, late)
    scene.make_due()
    await scene.deliver()
    await scene.watch.look()
    receiver = scene.observer.status.snapshot.receivers["inbox"]
    assert (receiver.pending, receiver.waits_monotonic, receiver.dead) == (0, None, 1)

    scene.gate_closed_by = Closed.STANDBY
    await scene.watch.look()
    assert scene.observer.status.snapshot.receivers == {}


async def test_an_event_that_came_due_after_the_time_when_it_is_useful_is_not_sent_but_dead(scene: Scene) -> None:
    (_, topped_up) = scene.lasting(30 * MINUTE, 30 * MINUTE)
    await scene.round()
    scene.end_in(30 * DAY, topped_up)
    await scene.announcer.look()
    scene.lasting(20 * MINUTE, owner=8)
    await scene.announcer.look()
    sent = len(scene.inbox.events)
    scene.clock.ahead = 8 * DAY
    await scene.deliver()
    assert len(scene.inbox.events) == sent
    assert [document["state"] for document in scene.outbox] == ["delivered"] * 2 + ["dead"] * 2


async def test_a_notice_is_useful_until_the_end_of_its_pool_though_that_has_moved(scene: Scene) -> None:
    (pool,) = scene.lasting(20 * MINUTE)
    await scene.announcer.look()
    scene.end_in(50 * MINUTE, pool)
    scene.clock.ahead = 30 * MINUTE
    await scene.deliver()
    assert scene.told() == [(pool, HOUR)]


async def test_while_the_gate_is_closed_nothing_is_told_and_nothing_sent(scene: Scene) -> None:
    scene.lasting(30 * MINUTE)
    scene.gate_closed_by = Closed.STANDBY
    await scene.announcer.look()
    assert (scene.notices, scene.outbox) == ([], [])
    scene.gate_closed_by = None
    await scene.announcer.look()
    scene.gate_closed_by = Closed.CLOCKS_APART
    assert await scene.delivery.deliver_next() > 0
    assert scene.inbox.events == []


async def test_without_a_receiver_the_outbox_itself_is_where_events_are_delivered(
    mongo_uri: str, mongo: Client, database_name: str
) -> None:
    async with scene_on(mongo_uri, mongo, database_name, receiving=False) as scene:
        (pool,) = scene.lasting(30 * MINUTE)
        await scene.announcer.look()
        scene.end_in(30 * DAY, pool)
        await scene.announcer.look()
        assert [(each["receiver"], each["state"]) for each in scene.outbox] == [(None, "delivered")] * 2
        assert [each["event"]["type"] for each in scene.outbox] == ["pool.expiring", "pool.replenished"]


async def test_documents_that_another_program_has_spoilt_stop_nothing(scene: Scene) -> None:
    (pool,) = scene.lasting(30 * MINUTE)
    scene.explorer.database["pool-daemon-notices"].insert_one({"_id": Int64(pool), "lead_seconds": "x"})
    scene.explorer.pools.insert_one({"_id": "odd", "empty_at": Int64(int(scene.clock.now()) + 60)})
    await scene.round()
    assert scene.told() == [(pool, HOUR)]


async def test_old_events_are_removed_and_told_pools_stay_told(scene: Scene) -> None:
    (pool,) = scene.lasting(6 * DAY + HOUR)
    await scene.round()
    scene.explorer.database["pool-daemon-outbox"].update_many(
        {}, {"$set": {"expires_at": scene.outbox[0]["created_at"]}}
    )
    await scene.round()
    assert (scene.outbox, len(scene.notices)) == ([], 1)
    scene.end_in(30 * DAY, pool)
    await scene.round()
    assert [event["type"] for event in scene.inbox.events] == ["pool.expiring", "pool.replenished"]


@pytest.mark.parametrize("before", [["1h"], ["30d", "7d", "1d", "1h"]], ids=["one-lead", "four-leads"])
async def test_a_round_past_pools_that_last_is_three_reads_by_index_that_meet_no_document(
    mongo_uri: str, mongo: Client, database_name: str, before: list[str]
) -> None:
    """However many pools and leads there are: the index on the end leaves the pools out."""
    rounds = 3
    async with scene_on(mongo_uri, mongo, database_name, before=before) as scene:
        scene.lasting(*([40 * DAY] * 300))
        scene.explorer.database.command("profile", 2)
        for _ in range(rounds):
            await scene.announcer.look()
        scene.explorer.database.command("profile", 0)
        done = list(scene.explorer.database["system.profile"].find({"ns": {"$not": {"$regex": "system"}}}))
    commands = Counter((each["op"], each["ns"].partition(".")[2]) for each in done)
    assert commands == {
        ("query", name): rounds for name in ("capacity-pools", "pool-daemon-notices", "pool-daemon-outbox")
    }
    assert [each["docsExamined"] for each in done] == [0] * 3 * rounds
    plans = {each["planSummary"] for each in done if each["ns"].endswith(".capacity-pools")}
    assert plans == {"IXSCAN { empty_at: 1 }"}


async def test_a_replayed_event_is_sent_again_under_its_id(scene: Scene) -> None:
    scene.lasting(30 * MINUTE)
    await scene.round()
    (entry,) = await scene.store.outbox.page(states=list(DeliveryState), limit=5)
    assert await scene.store.outbox.revive(entry.event_id, now=scene.clock.now()) == ["inbox"]
    assert await scene.store.outbox.revive(entry.event_id, now=scene.clock.now()) == []
    await scene.deliver()
    assert [event["id"] for event in scene.inbox.events] == [entry.event_id] * 2


async def test_a_pool_counts_as_told_once_an_event_of_this_episode_is_with_its_receiver(scene: Scene) -> None:
    (pool, other) = scene.lasting(30 * MINUTE, 30 * DAY)
    before = scene.clock.now() - 1
    outbox = scene.store.outbox
    await scene.announcer.look()
    assert await outbox.delivered({pool: before, other: before}) == set()
    scene.inbox.answers = [Failed("down")]
    await scene.deliver()
    assert await outbox.delivered({pool: before}) == set()
    scene.make_due()
    await scene.deliver()
    assert await outbox.delivered({pool: before, other: before}) == {pool}
    assert await outbox.delivered({pool: scene.clock.now() + 1, other: before}) == set()
    scene.end_in(30 * DAY, pool)
    await scene.round()
    assert [event["type"] for event in scene.inbox.events][-1] == "pool.replenished"
    assert await outbox.delivered({pool: scene.outbox[-1]["created_at"].timestamp()}) == set()


async def test_whatever_breaks_in_a_delivery_neither_ends_it_nor_keeps_others_from_their_turn(scene: Scene) -> None:
    (spoilt, sound) = scene.lasting(30 * MINUTE, 40 * MINUTE)
    await scene.announcer.look()
    scene.explorer.database["pool-daemon-outbox"].update_one(
        {"event.data.pools.pool_id": spoilt}, {"$set": {"event.data.pools": [{"pool": "none"}]}}
    )
    waits = 0

    async def enough(_seconds: float) -> None:
        nonlocal waits
        waits += 1
        if waits == 6:
            raise asyncio.CancelledError

    scene.start(sleep=enough)
    with contextlib.suppress(asyncio.CancelledError):
        await scene.delivery.run()
    assert waits == 6
    assert scene.told() == [(sound, HOUR)]
