"""The brake and whole passes on a real server: what is held, what goes, and when."""

import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

import pytest
import pytest_asyncio
from arithmetic_model import Rates
from bson import Int64
from explorer import CONTAINER, FREE, VOLUME, Explorer, Kind, Purchase
from fail_point import fail_point, times_entered
from pymongo import MongoClient
from structlog.testing import capture_logs
from virtual_clock import VirtualClock

from pool_daemon.errors import StoreError
from pool_daemon.expiry.expirer import Expirer
from pool_daemon.expiry.expiry_pass import PassReport
from pool_daemon.expiry.work_queue import Cause, WorkQueue
from pool_daemon.guards.brake import Brake
from pool_daemon.guards.gate import Closed, Gates
from pool_daemon.guards.guards import Guards
from pool_daemon.guards.held_pools import HeldPools
from pool_daemon.guards.quarantine import Quarantine
from pool_daemon.settings import sections
from pool_daemon.store import impact
from pool_daemon.store.cases import Limits
from pool_daemon.store.client import connect
from pool_daemon.store.holds import HoldStore
from pool_daemon.store.impact import ImpactReader
from pool_daemon.store.pools import DuePool, PoolStore
from pool_daemon.store.quarantine import QuarantineStore
from pool_daemon.store.setup import create_collections, setup
from pool_daemon.store.store import Store
from pool_daemon.telemetry.observer import Observer
from pool_daemon.telemetry.reports import Reports

Client = MongoClient[dict[str, Any]]

FEW = 8
"""Unexpected pools that go in any case."""

HOUR = 3600
READS = ("find", "aggregate", "count", "distinct")


class Told:
    """Knows what it was told last of the brake."""

    text: str | None = None

    def held(self, reason: str, *, detail: str, pools: int) -> None:
        assert pools > 0
        self.text = f"{reason}: {detail}"

    def released(self, reason: str) -> None:
        assert reason == "brake"
        self.text = None


class Latch:
    """A gate that a test closes and opens."""

    reason: Closed | None = None

    def closed_by(self) -> Closed | None:
        return self.reason


class Scene:
    """An explorer's database, and a daemon's passes with a brake, which may be restarted."""

    def __init__(self, *, uri: str, explorer: Explorer) -> None:
        self.explorer = explorer
        self.database = connect(uri=uri, name=explorer.database.name, timeout_seconds=2)
        self.documents = explorer.database["pool-daemon-brake"]
        self.gate = Latch()
        self.owners = iter(range(1000, 10**9))
        self.start()

    def start(self, *, dry_run: bool = False, **settings: Any) -> None:
        """Start a daemon anew, with a change stream that begins now."""
        self.clock = VirtualClock(time.time())
        self.told = Told()
        self.queue = WorkQueue()
        self.holds = HoldStore(database=self.database, identity="me", dry_run=dry_run)
        self.impact = ImpactReader(database=self.database)
        self.held_pools = HeldPools(
            holds=self.holds,
            impact=self.impact,
            pools=PoolStore(database=self.database),
            clock=self.clock,
            observer=self.told,
            queue=self,
        )
        self.brake = Brake(
            held=self.held_pools,
            impact=self.impact,
            settings=sections.Brake(**{"max_share": 0.2, "min_pools": FEW, "per_owner": 2, **settings}),
            clock=self.clock,
        )
        observer = Observer(identity="me", version="0", clock=self.clock)
        quarantine = Quarantine(
            store=QuarantineStore(database=self.database),
            settings=sections.Retry(),
            clock=self.clock,
            identity="me",
            look_again=self.try_again,
            observer=observer,
        )
        self.expirer = Expirer(
            store=Store(database=self.database, clock=self.clock, identity="me", dry_run=dry_run),
            queue=self.queue,
            guards=Guards(gate=Gates(), brake=self.brake, quarantine=quarantine),
            reports=Reports(observer=observer, settings=sections.Log()),
            clock=self.clock,
            settings=sections.Expiry(batch_workloads=20),
        )
        self.brake.notes.note_watching(self.now)

    @property
    def now(self) -> int:
        return int(self.clock.now())

    def look_at_everything(self) -> None:
        self.queue.request_full_scan()

    def try_again(self, wishes: Mapping[int, int]) -> None:
        self.queue.add_all(wishes, cause=Cause.RETRY)

    def buy(
        self, number: int, *kinds: Kind, ended_ago: int = HOUR, owners: Iterable[int] | None = None, **fields: Any
    ) -> list[Purchase]:
        """Have pools of which compute ran out so many seconds ago, each of an owner of its own unless told."""
        kinds = kinds or (CONTAINER,)
        drained = sum(kind.rates.cu for kind in kinds) or 1
        owner = iter(owners) if owners is not None else self.owners
        return [
            self.explorer.buy(
                Rates(1000 * drained, 1e12, 1e12),
                kinds,
                bought_at=self.now - ended_ago - 1000,
                **{"customer_tid": Int64(next(owner)), **fields},
            )
            for _ in range(number)
        ]

    def buy_lasting(self, number: int) -> list[Purchase]:
        """Have pools that are drained and last for weeks."""
        return self.buy(number, ended_ago=-30 * 24 * HOUR)

    def write(self, pools: Sequence[Purchase], *, ago: int = 0) -> None:
        """Have the watcher notice that somebody wrote these pools so many seconds ago."""
        for pool in pools:
            self.brake.notes.note_write(pool.pool_id, pool.empty_at, self.now - ago)
            if pool.empty_at <= self.now:
                self.queue.add(pool.pool_id, at=self.now, cause=Cause.CHANGED)

    async def run_pass(self) -> PassReport:
        return await self.expirer.run_pass(self.now)

    async def run_passes(self) -> int:
        """Run passes until none is asked for; return how many workloads were decommissioned."""
        number = (await self.run_pass()).decommissioned
        for _ in range(10):
            if not self.queue.full_scan_requested:
                return number
            number += (await self.run_pass()).decommissioned
        raise AssertionError("the brake asks for one full scan after the other")

    async def full_scan(self) -> int:
        self.queue.request_full_scan()
        return await self.run_passes()

    async def release(self, pools: Sequence[Purchase]) -> None:
        await self.holds.release(ids(pools), at=self.clock.now())
        await self.brake.look(self.gate)

    def held(self) -> set[int]:
        return set(self.documents.distinct("_id", {"state": "held"}))

    def running(self, pools: Sequence[Purchase]) -> int:
        workload_ids = [workload_id for pool in pools for workload_id in pool.workload_ids]
        return self.explorer.next_actions(workload_ids).count(3)


def ids(pools: Sequence[Purchase]) -> list[int]:
    return [pool.pool_id for pool in pools]


@pytest_asyncio.fixture
async def scene(mongo_uri: str, mongo: Client, database_name: str) -> AsyncIterator[Scene]:
    scene = Scene(uri=mongo_uri, explorer=Explorer(database=mongo[database_name]))
    await create_collections(scene.database)
    await setup(scene.database)
    await scene.run_passes()
    yield scene
    scene.database.close()


async def test_what_a_start_finds_overdue_is_held_whole_if_it_is_too_much_and_said_once(scene: Scene) -> None:
    pools = scene.buy(FEW + 1)
    scene.start()
    with capture_logs() as logs:
        assert await scene.run_passes() == 0
        assert await scene.full_scan() == 0
    assert scene.held() == set(ids(pools))
    (line,) = [line for line in logs if line["log_level"] == "error"]
    assert (line["event"], line["pools"], line["workloads"]) == ("brake_held", FEW + 1, FEW + 1)
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
    scene.brake.notes.note_watching(scene.now)
    assert await scene.full_scan() == 0
    assert scene.held() == set(ids(pools))


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
    scene.brake.notes.since = scene.now - 48 * HOUR
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
    scene.brake.notes.since = scene.now - 48 * HOUR
    await scene.run_pass()
    counted = scene.buy(FEW - 2)
    scene.queue.request_full_scan()
    gone = (await scene.run_pass()).decommissioned
    told = scene.buy(FEW - 2)
    scene.write(told)
    gone += await scene.run_passes()
    assert gone <= FEW
    assert len(scene.held()) == len(counted) + len(told) - gone


async def test_a_small_share_goes_only_once_it_has_stopped_growing(scene: Scene) -> None:
    """A backup is restored over what is there while full scans follow each other: at first it is a small share."""
    scene.buy_lasting(10 * FEW)
    scene.start()
    restored = []
    gone = 0
    for _ in range(3):
        restored += scene.buy(FEW + 2)
        scene.queue.request_full_scan()
        gone += (await scene.run_pass()).decommissioned
    assert await scene.run_passes() == gone == 0
    assert scene.held() == set(ids(restored))


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
        allowed.append(len(await scene.brake.filter_allowed(due, now=scene.now, full_scan=True)))
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
        scene.brake.notes.note_write(pool.pool_id, None, scene.now)
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
        assert await scene.brake.filter_allowed(batch, now=scene.now, full_scan=False) == []
    assert scene.held() == set(ids(pools))


async def test_pools_that_are_written_when_their_workloads_are_gone_make_no_others_be_held(scene: Scene) -> None:
    """After a mass expiry the explorer takes the workloads out of the pools one after the other."""
    emptied = scene.buy(10 * FEW, CONTAINER, CONTAINER, ended_ago=0, next_action=4)
    purchases = scene.buy(FEW, ended_ago=0)
    scene.write([*emptied, *purchases])
    assert await scene.run_passes() == len(purchases)
    assert scene.held() == set()


async def test_a_hold_says_how_many_workloads_go_however_many_portions_they_are_read_in(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(impact, "PORTION", Limits(workloads=2, size=1))
    pools = scene.buy(FEW + 1, *[CONTAINER] * 5, VOLUME)
    scene.start()
    assert await scene.run_passes() == 0
    assert [document["workloads"] for document in scene.documents.find()] == [5] * len(pools)


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
    await scene.brake.look(scene.gate)
    pools = scene.buy(FEW // 2)
    affected = await scene.impact.of(ids(pools), now=scene.now)
    leader = HoldStore(database=scene.database, identity="the leader")
    await leader.hold(affected.values(), reason="a backup", at=scene.now)
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
    await scene.brake.look(scene.gate)
    assert (scene.documents.count_documents({}), scene.told.text) == (0, None)
    before = times_entered(mongo)
    with fail_point(mongo, *READS, mode="alwaysOn", errorCode=50):
        await scene.brake.look(scene.gate)
    assert times_entered(mongo) == before


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
    await scene.brake.look(scene.gate)
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
    await scene.brake.look(scene.gate)
    assert await scene.run_passes() == FEW


async def test_a_pass_that_could_not_count_lets_nothing_go(scene: Scene, mongo: Client) -> None:
    pools = scene.buy(FEW + 1)
    scene.start()
    with fail_point(mongo, "aggregate", "find", mode={"skip": 6}, errorCode=50), pytest.raises(StoreError):
        await scene.run_pass()
    scene.queue.request_full_scan()
    assert await scene.run_passes() == 0
    assert scene.held() == set(ids(pools))


async def test_a_dry_run_says_what_would_be_held_and_writes_nothing(scene: Scene) -> None:
    pools = scene.buy(FEW + 1)
    scene.start(dry_run=True)
    with capture_logs() as logs:
        assert await scene.run_passes() == 0
        assert await scene.full_scan() == 0
    assert scene.documents.count_documents({}) == 0
    assert [line["pools"] for line in logs if line["event"] == "brake_would_hold"] == [len(pools)]
    assert scene.held_pools.count == len(pools)


async def test_a_brake_that_is_off_lets_everything_go(scene: Scene) -> None:
    held = scene.buy(FEW + 1)
    scene.start()
    await scene.run_passes()
    scene.start(enabled=False)
    await scene.brake.look(scene.gate)
    assert scene.told.text is None
    assert await scene.run_passes() == len(held)
