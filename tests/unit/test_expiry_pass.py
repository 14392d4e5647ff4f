"""One pass over pools in memory: what it takes up, what it leaves, and whose fault it says a failure is."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from deadline import until
from grid_in_memory import Grid
from no_brake import NoBrake
from pymongo.errors import WriteError
from virtual_clock import VirtualClock

from pool_daemon.errors import (
    CommonCauseError,
    StoreConflictError,
    StoreError,
    StoreOverloadError,
    StoreUnavailableError,
    UnreadableDocumentError,
)
from pool_daemon.expiry.expirer import Expirer
from pool_daemon.expiry.work_queue import Cause, WorkQueue
from pool_daemon.guards.gate import Closed
from pool_daemon.guards.guards import Guards
from pool_daemon.guards.quarantine import Quarantine
from pool_daemon.settings.sections import Expiry, Log, Retry
from pool_daemon.store.cases import Settlement
from pool_daemon.store.pools import Deadline
from pool_daemon.store.quarantine import Quarantined
from pool_daemon.store.records import EventKind, Subject
from pool_daemon.store.sessions import SEARCHES
from pool_daemon.telemetry.observer import Observer
from pool_daemon.telemetry.reports import Reports

NOW = 1_800_000_000


@dataclass
class Latch:
    """A gate that a test closes; at the reading of the number `glitch_at` it is closed for that once."""

    reason: Closed | None = None
    glitch_at: int | None = None
    readings: int = 0

    def closed_by(self) -> Closed | None:
        self.readings += 1
        return Closed.CLOCKS_APART if self.readings == self.glitch_at else self.reason


@dataclass
class Inspector(NoBrake):
    """A brake that holds nothing and remembers what it was shown."""

    inspected: list[tuple[int | None, int]] = field(default_factory=list)

    async def inspect(self, after: int | None, now: int) -> None:
        self.inspected.append((after, now))


class NoStore:
    """A quarantine that is written nowhere."""

    identity = "me"

    async def save(self, quarantined: Quarantined) -> None:
        """Forget it."""

    async def remove(self, pool_id: int) -> bool:
        """Forget it."""
        del pool_id
        return False

    async def all(self) -> AsyncGenerator[Quarantined, None]:
        none: list[Quarantined] = []
        for quarantined in none:
            yield quarantined


class Scene:
    """An expirer on a grid in memory."""

    def __init__(self, grid: Grid | None = None, *, settings: Expiry | None = None, retry: Retry | None = None) -> None:
        self.grid = grid or Grid()
        self.clock = VirtualClock(NOW + 0.25)
        self.queue = WorkQueue()
        self.latch = Latch()
        self.brake = Inspector()
        observer = Observer(identity="me", version="0", clock=self.clock)
        self.quarantine = Quarantine(
            store=NoStore(),
            settings=retry or Retry(),
            clock=self.clock,
            look_again=lambda pools: self.queue.add_all(pools, cause=Cause.RETRY),
            observer=observer,
            record=lambda kind, subject, _why: self.recorded.append((kind, subject)),
        )
        self.recorded: list[tuple[EventKind, Subject]] = []
        self.expirer = Expirer(
            store=self.grid.store,
            queue=self.queue,
            guards=Guards(gate=self.latch, brake=self.brake, quarantine=self.quarantine),
            reports=Reports(observer=observer, settings=Log()),
            clock=self.clock,
            settings=settings or Expiry(),
        )

    def pass_time_when_settling(self, number: int, then: Callable[[], None]) -> None:
        """Let a second pass as the batch of that number is settled, and something happen."""

        def on_settle(_: Sequence[int]) -> None:
            if len(self.grid.attempts) == number:
                self.clock.pass_time(1)
                then()

        self.grid.on_settle = on_settle


@pytest.fixture
def scene() -> Scene:
    return Scene()


def refused(number: int = 121, text: str = "Document failed validation") -> StoreError:
    """Return an error as the store raises it of a server that refuses a write."""
    error = StoreError(f"writing work orders: {text}")
    error.__cause__ = WriteError(text, code=number)
    return error


def failing(poison: Collection[int], error: Callable[[], Exception] = refused) -> Callable[[Sequence[int]], None]:
    """Return what fails whenever one of some pools is in a batch."""

    def on_settle(pool_ids: Sequence[int]) -> None:
        if not set(poison).isdisjoint(pool_ids):
            raise error()

    return on_settle


async def test_what_falls_due_meanwhile_is_taken_up_and_the_brake_has_seen_it(scene: Scene) -> None:
    for owner in range(10):
        scene.grid.add(100, empty_at=NOW, owner=owner)
    (fresh,) = scene.grid.add(1, empty_at=NOW + 1, owner=99)
    scene.pass_time_when_settling(1, lambda: None)
    await scene.expirer.run_pass(NOW)
    assert fresh in scene.grid.settled
    assert scene.brake.inspected == [(None, NOW), (NOW, NOW + 1)]
    assert scene.queue.watermark == NOW + 1


class SlowGrid(Grid):
    """Settles nothing of an owner until the test says so."""

    def __init__(self, slow_owner: int) -> None:
        super().__init__()
        self._slow_owner = slow_owner
        self.go = asyncio.Event()

    async def settle(self, pool_ids: Sequence[int], **how: Any) -> Settlement:
        if any(self.pools[pool_id].owner == self._slow_owner for pool_id in pool_ids):
            self.on_settle(pool_ids)
            await self.go.wait()
        return await super().settle(pool_ids, **how)


class SlowProbes(Grid):
    """Finds out about locks when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()

    async def locked_among(self, pool_ids: Sequence[int]) -> set[int]:
        locked = await super().locked_among(pool_ids)
        await self.go.wait()
        return locked


async def test_what_falls_due_while_all_places_are_taken_waits_for_none_of_them() -> None:
    """One place more is kept for it: the batches of a crowd take a second on a busy server."""
    grid = SlowGrid(slow_owner=7)
    scene = Scene(grid)
    crowd = grid.add(5000, empty_at=NOW, owner=7)
    fresh, fresher = (grid.add(1, empty_at=NOW + seconds, owner=99)[0] for seconds in (1, 2))
    started: list[Sequence[int]] = []
    grid.on_settle = started.append
    scene.clock.pass_time(0.7)
    running = asyncio.create_task(scene.expirer.run_pass(NOW))
    await until(lambda: len(started) == Expiry().concurrency, within_seconds=5, what="all places to be taken")
    for settled in ([fresh], [fresh, fresher]):
        scene.clock.pass_time(1)
        await until(lambda: grid.settled == settled, within_seconds=5, what=f"{settled} to be settled")  # noqa: B023
    grid.go.set()
    await running
    assert sorted(grid.settled) == [*crowd, fresh, fresher]


async def test_what_is_asked_for_meanwhile_is_taken_up_wherever_it_stands(scene: Scene) -> None:
    scene.grid.add(200, empty_at=NOW)
    below, of_workload = scene.grid.add(2, empty_at=NOW - 500)
    await scene.expirer.run_pass(NOW)
    scene.grid.settled.clear()
    scene.queue.add(below, at=NOW, cause=Cause.CHANGED)
    scene.queue.add_workloads([of_workload * 100])
    await scene.expirer.run_pass(NOW)
    assert scene.grid.settled == [below, of_workload]


async def test_a_pool_that_is_asked_for_and_not_due_costs_no_transaction(scene: Scene) -> None:
    (lasting,) = scene.grid.add(1, empty_at=NOW + 500)
    scene.queue.add(lasting, at=NOW, cause=Cause.CHANGED)
    await scene.expirer.run_pass(NOW)
    assert scene.grid.attempts == []


class TestPoolsAddedById:
    async def test_they_are_due_or_dropped(self, scene: Scene) -> None:
        (lasting,) = scene.grid.add(1, empty_at=NOW + 500)
        scene.queue.add(lasting, at=NOW, cause=Cause.CHANGED)
        scene.queue.add_workloads([lasting * 100])
        assert not await scene.expirer.any_due(NOW)
        assert scene.queue.next_at() is None
        assert not scene.queue.take(NOW).workload_ids

    @pytest.mark.parametrize("by_workload", [False, True])
    async def test_one_that_is_due_is_left_to_the_pass(self, scene: Scene, *, by_workload: bool) -> None:
        await scene.expirer.run_pass(NOW)
        (due,) = scene.grid.add(1, empty_at=NOW - 500)
        if by_workload:
            scene.queue.add_workloads([due * 100])
        else:
            scene.queue.add(due, at=NOW, cause=Cause.CHANGED)
        assert await scene.expirer.any_due(NOW)
        await scene.expirer.run_pass(NOW)
        assert scene.grid.settled == [due]

    async def test_they_are_kept_if_that_cannot_be_read(self, scene: Scene) -> None:
        scene.queue.add(7, at=NOW, cause=Cause.CHANGED)

        async def away(*_: object, **__: object) -> list[object]:
            raise StoreUnavailableError("away")

        scene.grid.due_among = away  # type: ignore[assignment,method-assign] # the database is away for this check alone
        with pytest.raises(StoreUnavailableError):
            await scene.expirer.any_due(NOW)
        assert scene.queue.next_at() == NOW

    async def test_a_closed_gate_drops_them_for_a_full_scan(self, scene: Scene) -> None:
        await scene.expirer.run_pass(NOW)
        scene.queue.add(7, at=NOW, cause=Cause.CHANGED)
        scene.latch.reason = Closed.STANDBY
        assert not await scene.expirer.any_due(NOW)
        assert scene.queue.next_at() is None
        assert scene.queue.full_scan_requested

    async def test_more_than_a_page_of_them_is_left_to_a_pass_in_which_they_delay_nothing(self, scene: Scene) -> None:
        await scene.expirer.run_pass(NOW)
        waiting = scene.grid.add(3_000, empty_at=NOW - 500)
        (fresh,) = scene.grid.add(1, empty_at=NOW + 1, owner=2)
        scene.queue.add_all(dict.fromkeys(waiting, NOW), cause=Cause.CHANGED)
        read_before: dict[int, int] = {}
        scene.grid.on_settle = lambda pool_ids: read_before.update(dict.fromkeys(pool_ids, scene.grid.read_by_id))
        scene.clock.pass_time(1)
        assert await scene.expirer.any_due(NOW + 1)
        assert scene.grid.read_by_id == 0
        await scene.expirer.run_pass(NOW + 1)
        assert read_before[fresh] == 0
        assert set(scene.grid.settled) == {*waiting, fresh}

    async def test_one_that_runs_empty_while_they_are_read_waits_for_a_page_at_most(self, scene: Scene) -> None:
        await scene.expirer.run_pass(NOW)
        lasting = scene.grid.add(20_000, empty_at=NOW + 500)
        (fresh,) = scene.grid.add(1, empty_at=NOW + 1, owner=2)
        scene.queue.add_all(dict.fromkeys(lasting, NOW), cause=Cause.CHANGED)
        read_before: list[int] = []
        scene.grid.on_settle = lambda _: read_before.append(scene.grid.read_by_id)
        scene.grid.on_read_by_id = lambda: scene.clock.pass_time(0.4)
        await scene.expirer.run_pass(NOW)
        assert scene.grid.settled == [fresh]
        assert read_before[0] <= 4000


async def test_a_check_that_is_added_while_the_next_deadline_is_read_may_be_what_comes_next(scene: Scene) -> None:
    scene.grid.add(1, empty_at=NOW + 60)
    read = scene.grid.next_deadline

    async def next_deadline(ts: int) -> Deadline | None:
        scene.queue.add(7, at=NOW + 5, cause=Cause.RETRY)
        return await read(ts)

    scene.grid.next_deadline = next_deadline  # type: ignore[method-assign]
    report = await scene.expirer.run_pass(NOW)
    assert (report.next_at, report.next_pool_id) == (NOW + 5, None)


async def test_a_clock_that_has_stepped_back_leaves_pools_added_by_id_to_the_pass(scene: Scene) -> None:
    await scene.expirer.run_pass(NOW)
    scene.queue.add(7, at=NOW - 10, cause=Cause.CHANGED)
    assert await scene.expirer.any_due(NOW - 5)
    assert scene.queue.next_at() == NOW - 10


async def test_a_long_full_scan_takes_up_what_falls_due_though_another_is_wanted(scene: Scene) -> None:
    scene.grid.add(2000, empty_at=NOW)
    (fresh,) = scene.grid.add(1, empty_at=NOW + 1)
    scene.pass_time_when_settling(1, scene.queue.request_full_scan)
    await scene.expirer.run_pass(NOW)
    assert fresh in scene.grid.settled
    assert scene.queue.take(NOW + 1).after is None


async def test_a_full_scan_is_not_put_off_by_what_falls_due(scene: Scene) -> None:
    await scene.expirer.run_pass(NOW)
    scene.clock.pass_time(1)
    (due,) = scene.grid.add(1, empty_at=NOW + 1)
    (fresh,) = scene.grid.add(1, empty_at=NOW + 2)
    scene.pass_time_when_settling(1, scene.queue.request_full_scan)
    await scene.expirer.run_pass(NOW + 1)
    assert scene.grid.settled == [due]
    assert scene.queue.take(NOW + 2).after is None
    assert fresh not in scene.grid.settled


@pytest.mark.parametrize("reading", range(2, 12))
async def test_a_gate_that_closes_for_a_moment_leaves_nothing_out(scene: Scene, reading: int) -> None:
    """What was about to be settled then has to come up again: either the pass goes on with it, or it has not ended."""
    pools = scene.grid.add(2000, empty_at=NOW)
    scene.latch.glitch_at = reading
    await scene.expirer.run_pass(NOW)
    await scene.expirer.run_pass(NOW)
    assert set(scene.grid.settled) == set(pools)


async def test_a_pass_that_is_cut_short_puts_everything_back(scene: Scene) -> None:
    scene.grid.add(2000, empty_at=NOW)
    scene.queue.add(7000, at=NOW, cause=Cause.CHANGED)

    def on_settle(_: Sequence[int]) -> None:
        scene.latch.reason = Closed.STOPPING

    scene.grid.on_settle = on_settle
    await scene.expirer.run_pass(NOW)
    work = scene.queue.take(NOW)
    assert work.after is None
    assert work.by_id.keys() == {7000}


async def test_a_closed_gate_settles_nothing_and_knows_the_next_deadline(scene: Scene) -> None:
    scene.grid.add(1, empty_at=NOW)
    scene.grid.add(1, empty_at=NOW + 60)
    scene.latch.reason = Closed.STANDBY
    report = await scene.expirer.run_pass(NOW)
    assert (report.cut_short_by, report.next_at) == ("standby", NOW + 60)
    assert scene.grid.attempts == []


class TestWhoseFaultItIs:
    async def test_a_pool_that_fails_while_others_succeed_is_blamed_alone(self, scene: Scene) -> None:
        pools = scene.grid.add(100, empty_at=NOW)
        scene.grid.on_settle = failing([42])
        report = await scene.expirer.run_pass(NOW)
        assert report.failure is None
        assert (report.settled, report.failed_pools) == (99, 1)
        assert sorted(scene.grid.settled) == [pool_id for pool_id in pools if pool_id != 42]
        assert scene.quarantine.knows(42)

    async def test_a_pool_that_is_quarantined_is_recorded_with_its_owner(self) -> None:
        scene = Scene(retry=Retry(attempts=1))
        scene.grid.add(10, empty_at=NOW, owner=101)
        (poison,) = scene.grid.add(1, empty_at=NOW, owner=144)
        scene.grid.on_settle = failing([poison])
        await scene.expirer.run_pass(NOW)
        assert scene.recorded == [(EventKind.QUARANTINED, Subject(poison, 144))]

    @pytest.mark.parametrize("beside", [False, True])
    async def test_a_pool_that_has_failed_and_was_topped_up_fails_no_more(self, scene: Scene, *, beside: bool) -> None:
        """Else it would count as undone for ever: nothing that is due leads to it again."""
        scene.grid.add(10, empty_at=NOW)
        (poison,) = scene.grid.add(1, empty_at=NOW)
        scene.grid.on_settle = failing([poison])
        await scene.expirer.run_pass(NOW)
        assert scene.quarantine.knows(poison)
        retry_at = scene.queue.next_at()
        assert retry_at is not None
        scene.grid.move(poison, empty_at=NOW + 86_400)
        if beside:
            scene.grid.add(1, empty_at=retry_at)
            await scene.expirer.run_pass(retry_at)
        else:
            assert not await scene.expirer.any_due(retry_at)
        assert not scene.quarantine.knows(poison)

    async def test_where_all_fail_alike_the_pass_has_failed_and_nobody_is_blamed(self, scene: Scene) -> None:
        pools = scene.grid.add(2000, empty_at=NOW)
        scene.grid.on_settle = failing(pools)
        report = await scene.expirer.run_pass(NOW)
        assert isinstance(report.failure, CommonCauseError)
        assert "Document failed validation" in str(report.failure)
        assert not any(scene.quarantine.knows(pool_id) for pool_id in pools)
        assert len(scene.grid.attempts) < 30
        scene.grid.on_settle = lambda _: None
        report = await scene.expirer.run_pass(NOW)
        assert (report.failure, report.settled) == (None, 2000)

    async def test_a_single_pool_that_fails_alone_is_blamed_once_another_has_succeeded(self, scene: Scene) -> None:
        (poison,) = scene.grid.add(1, empty_at=NOW)
        scene.grid.on_settle = failing([poison])
        assert (await scene.expirer.run_pass(NOW)).failure is not None
        assert (await scene.expirer.run_pass(NOW)).failure is not None
        assert not scene.quarantine.knows(poison)
        scene.grid.add(1, empty_at=NOW + 1)
        assert (await scene.expirer.run_pass(NOW + 1)).failure is None
        assert scene.quarantine.knows(poison)

    async def test_a_success_of_another_pass_counts_against_a_pool_that_failed_before_it(self, scene: Scene) -> None:
        (poison,) = scene.grid.add(1, empty_at=NOW)
        scene.grid.on_settle = failing([poison])
        await scene.expirer.run_pass(NOW)
        scene.expirer.evidence.succeeded([4711])
        report = await scene.expirer.run_pass(NOW)
        assert (report.failure, report.failed_pools) == (None, 1)

    async def test_known_culprits_do_not_hide_a_common_cause_nor_make_one(self, scene: Scene) -> None:
        culprits = scene.grid.add(3, empty_at=NOW)
        (innocent,) = scene.grid.add(1, empty_at=NOW)
        scene.grid.on_settle = failing(culprits)
        await scene.expirer.run_pass(NOW)
        scene.clock.pass_time(10)
        assert (await scene.expirer.run_pass(NOW + 10)).failure is None
        scene.clock.pass_time(10)
        scene.grid.move(innocent, empty_at=NOW + 15)
        scene.grid.on_settle = failing([*culprits, innocent], lambda: refused(371, "User writes blocked"))
        assert (await scene.expirer.run_pass(NOW + 20)).failure is not None

    async def test_owners_of_most_that_is_due_cannot_look_like_a_common_cause(self, scene: Scene) -> None:
        poison = scene.grid.add(400, empty_at=NOW, owner=666)
        others = scene.grid.add(100, empty_at=NOW, owner=7)
        scene.grid.on_settle = failing(poison)
        settled: set[int] = set()
        for _ in range(5):  # by chance a sample may be of poison alone: 0.8 ^ 8 is 0.17
            report = await scene.expirer.run_pass(NOW)
            settled |= set(scene.grid.settled)
            if report.failure is None:
                break
        assert settled == set(others)

    async def test_two_pools_that_fail_differently_are_each_blamed(self, scene: Scene) -> None:
        first, second = scene.grid.add(2, empty_at=NOW)

        def on_settle(pool_ids: Sequence[int]) -> None:
            raise refused() if first in pool_ids else refused(2, "bad value")

        scene.grid.on_settle = on_settle
        assert (await scene.expirer.run_pass(NOW)).failure is None
        assert scene.quarantine.knows(first)
        assert scene.quarantine.knows(second)

    @pytest.mark.parametrize("error", [UnreadableDocumentError("not decodable"), KeyError("a bug")])
    async def test_what_is_certainly_a_pools_own_is_blamed_on_it_alone(self, scene: Scene, error: Exception) -> None:
        (poison,) = scene.grid.add(1, empty_at=NOW)
        scene.grid.on_settle = failing([poison], lambda: error)
        report = await scene.expirer.run_pass(NOW)
        assert (report.failure, report.failed_pools) == (None, 1)

    async def test_a_failed_pass_knows_what_falls_due_next(self, scene: Scene) -> None:
        scene.grid.add(1, empty_at=NOW)
        (coming,) = scene.grid.add(1, empty_at=NOW + 3)
        scene.grid.on_settle = failing([1])
        report = await scene.expirer.run_pass(NOW)
        assert (report.failure is not None, report.next_at, report.next_pool_id) == (True, NOW + 3, coming)


class TestLockedPools:
    async def test_they_wait_for_a_second_and_are_blamed_for_nothing(self, scene: Scene) -> None:
        scene.grid.add(100, empty_at=NOW)
        scene.grid.locked = {7, 42}
        report = await scene.expirer.run_pass(NOW)
        assert (report.settled, report.failed_pools, report.failure, report.locked) == (98, 0, None, 2)
        assert report.next_at == NOW + 1
        scene.grid.locked = set()
        scene.clock.pass_time(1)
        report = await scene.expirer.run_pass(NOW + 1)
        assert (report.settled, report.locked) == (2, 0)

    async def test_they_wait_longer_each_time_up_to_a_bound(self, scene: Scene) -> None:
        scene.grid.locked = set(scene.grid.add(1, empty_at=NOW))
        waits, now = [], NOW
        for _ in range(5):
            at = (await scene.expirer.run_pass(now)).next_at
            assert at is not None
            waits.append(at - now)
            scene.clock.pass_time(at - now)
            now = at
        assert waits == [1, 2, 4, 4, 4]

    async def test_however_many_they_are_the_others_of_their_batches_go_in_a_few_transactions(
        self, scene: Scene
    ) -> None:
        pools = scene.grid.add(5000, empty_at=NOW)
        scene.grid.locked = set(pools) - {3, 777, 4999}
        await scene.expirer.run_pass(NOW)
        assert set(scene.grid.settled) == {3, 777, 4999}
        assert len(scene.grid.attempts) < 100

    async def test_they_hold_no_place_while_they_are_looked_for(self) -> None:
        grid = SlowProbes()
        scene = Scene(grid, settings=Expiry(concurrency=1))
        # The locked ones are the first three batches, and no owner is heavy.
        grid.locked = {grid.add(1, empty_at=NOW - 1, owner=owner)[0] for owner in range(1000, 1350)}
        others = [pool_id for owner in range(30) for pool_id in grid.add(100, empty_at=NOW, owner=owner)]
        running = asyncio.create_task(scene.expirer.run_pass(NOW))
        await until(lambda: set(others) <= set(grid.settled), within_seconds=5, what="the others to be settled")
        assert len(grid.probed) == SEARCHES
        grid.go.set()
        await running
        assert scene.queue.next_at() is not None

    async def test_those_that_were_locked_are_looked_for_again_before_they_are_settled(self, scene: Scene) -> None:
        scene.grid.locked = set(scene.grid.add(20, empty_at=NOW))
        await scene.expirer.run_pass(NOW)
        scene.grid.attempts.clear()
        scene.clock.pass_time(1)
        await scene.expirer.run_pass(NOW + 1)
        assert scene.grid.attempts == []

    async def test_what_conflicts_although_nothing_is_locked_goes_in_smaller_pieces(self, scene: Scene) -> None:
        """Other writers were faster, or have locked what is not looked for, such as an order."""
        scene.grid.add(100, empty_at=NOW)
        scene.grid.on_settle = failing({7}, lambda: StoreConflictError("faster"))
        report = await scene.expirer.run_pass(NOW)
        assert (report.settled, report.failed_pools, report.locked) == (99, 0, 1)

    async def test_a_stop_is_noticed_while_they_are_looked_for(self, scene: Scene) -> None:
        scene.grid.locked = set(scene.grid.add(500, empty_at=NOW))

        def on_settle(_: Sequence[int]) -> None:
            if len(scene.grid.attempts) == 2:
                scene.latch.reason = Closed.STOPPING

        scene.grid.on_settle = on_settle
        report = await scene.expirer.run_pass(NOW)
        assert report.cut_short_by == "stopping"
        assert len(scene.grid.probed) < 8


class TestWhatIsTooMuchForTheServer:
    async def test_it_is_tried_in_smaller_pieces_before_anybody_is_blamed(self, scene: Scene) -> None:
        scene.grid.add(100, empty_at=NOW)

        def on_settle(pool_ids: Sequence[int]) -> None:
            if len(pool_ids) > 10:
                raise StoreOverloadError("no room in the cache")

        scene.grid.on_settle = on_settle
        report = await scene.expirer.run_pass(NOW)
        assert (report.settled, report.failed_pools) == (100, 0)

    async def test_a_time_out_halves_the_batches_and_success_doubles_them(self, scene: Scene) -> None:
        scene.grid.add(1000, empty_at=NOW)

        def on_settle(pool_ids: Sequence[int]) -> None:
            if len(pool_ids) > 10:
                error = StoreUnavailableError("too slow")
                error.__cause__ = WriteError("too slow", code=50, details={})
                raise error

        scene.grid.on_settle = on_settle
        for _ in range(10):
            with pytest.raises(StoreUnavailableError):
                await scene.expirer.run_pass(NOW)
            if scene.expirer.throttle.limits.workloads < 20:
                break
        assert scene.expirer.throttle.limits.workloads < 20
        before = len(scene.grid.settled)
        scene.grid.on_settle = lambda _: None
        await scene.expirer.run_pass(NOW)
        assert len(scene.grid.settled) == before + 1000
        assert scene.expirer.throttle.limits.workloads == 500
