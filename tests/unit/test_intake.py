"""What a pass works through and in which order, on pools in memory and a clock that a test moves."""

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio
from virtual_clock import VirtualClock

from pool_daemon.scheduling.agenda import Agenda
from pool_daemon.scheduling.intake import Batch, Intake
from pool_daemon.scheduling.reports import Reports
from pool_daemon.scheduling.restraints import Origin
from pool_daemon.scheduling.throttle import Throttle
from pool_daemon.settings.sections import Expiry, Log
from pool_daemon.store.pools import DuePage, DuePool
from pool_daemon.telemetry.observer import Observer

NOW = 1_800_000_000
PAGE = 1000
HOG = 4711


@dataclass
class Grid:
    """Pools by the second at which they run empty, as far as the store tells an intake of them."""

    pools: list[tuple[int, DuePool]] = field(default_factory=list)
    deploying_ids: set[int] = field(default_factory=set)
    half_done_ids: set[int] = field(default_factory=set)

    def add(
        self, count: int, *, empty_at: int = NOW, owner: int = 1, workloads: int = 1, synced: bool = False
    ) -> list[int]:
        first = len(self.pools) + 1
        pool_ids = list(range(first, first + count))
        self.pools += [(empty_at, DuePool(pool_id, owner, workloads, synced)) for pool_id in pool_ids]
        return pool_ids

    def move(self, pool_id: int, *, empty_at: int) -> None:
        self.pools = [(empty_at if pool.pool_id == pool_id else at, pool) for at, pool in self.pools]

    async def due(self, *, after: int | None, until: int, besides: Sequence[int] = ()) -> AsyncGenerator[DuePage, None]:
        due = sorted(
            (at, pool.pool_id, pool) for at, pool in self.pools if (after is None or at > after) and at <= until
        )
        pools = [pool for _, _, pool in due if pool.owner not in besides]
        for start in range(0, len(pools), PAGE):
            yield DuePage(pools[start : start + PAGE], [])

    async def make_up(self) -> None:
        self.deploying_ids |= self.half_done_ids

    async def unreadable_deadlines(self) -> list[Any]:
        return []

    async def pools_of(self, workload_ids: Sequence[Any]) -> list[int]:
        return [int(workload_id) // 100 for workload_id in workload_ids]

    async def deploying(self, pool_ids: Sequence[int]) -> set[int]:
        return self.deploying_ids & set(pool_ids)


@dataclass
class Restraint:
    """The gate and the brake; what the brake was asked is remembered."""

    reason: str | None = None
    inspected: list[tuple[int | None, int]] = field(default_factory=list)

    def closed_by(self) -> str | None:
        return self.reason

    async def inspect(self, after: int | None, now: int, written: Collection[int]) -> None:
        del written
        self.inspected.append((after, now))


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(NOW + 0.25)


@pytest.fixture
def agenda() -> Agenda:
    return Agenda()


@pytest.fixture
def grid() -> Grid:
    return Grid()


@pytest.fixture
def restraint() -> Restraint:
    return Restraint()


class Scene:
    """One intake at a time; what it hands out is collected."""

    def __init__(self, grid: Grid, agenda: Agenda, restraint: Restraint, clock: VirtualClock) -> None:
        self._parts: dict[str, Any] = {
            "agenda": agenda,
            "store": SimpleNamespace(pools=grid, workloads=grid, decommissions=grid),
            "restraints": SimpleNamespace(gate=restraint, brake=restraint),
            "reports": Reports(observer=Observer(identity="me", version="0", clock=clock), settings=Log()),
            "clock": clock,
        }
        self.intake: Intake

    async def begin(self, *, now: int = NOW, in_order: bool = False) -> None:
        settings = Expiry(batch_workloads=500, orders_per_second=1000 if in_order else 0)
        self.intake = Intake(**self._parts, throttle=Throttle(clock=self._parts["clock"], settings=settings))
        await self.intake.begin(now)

    async def rest(self) -> list[Batch]:
        batches = []
        while (batch := await self.intake.next()) is not None:
            batches.append(batch)
        return batches


@pytest_asyncio.fixture
async def scene(grid: Grid, agenda: Agenda, restraint: Restraint, clock: VirtualClock) -> AsyncIterator[Scene]:
    scene = Scene(grid, agenda, restraint, clock)
    yield scene
    await scene.intake.close()


def handed_out(batches: Sequence[Batch]) -> list[int]:
    return [pool_id for batch in batches for pool_id in batch.pool_ids]


def position(batches: Sequence[Batch], pool_id: int) -> int:
    return next(number for number, batch in enumerate(batches) if pool_id in batch.pool_ids)


async def test_batches_grow_from_a_small_first_one(scene: Scene, grid: Grid) -> None:
    due = [pool_id for owner in range(10) for pool_id in grid.add(200, owner=owner)]
    await scene.begin()
    batches = await scene.rest()
    assert [len(batch.pool_ids) for batch in batches[:5]] == [50, 100, 200, 400, 250]
    assert max(len(batch.pool_ids) for batch in batches) <= 500
    assert handed_out(batches) == due


async def test_a_batch_holds_as_many_pools_as_have_workloads_for_it(scene: Scene, grid: Grid) -> None:
    grid.add(10, workloads=20)
    await scene.begin()
    assert [len(batch.pool_ids) for batch in await scene.rest()] == [2, 5, 3]


async def test_a_large_pool_begins_with_a_small_portion_and_takes_turns_for_the_rest(scene: Scene, grid: Grid) -> None:
    (large,) = grid.add(1, workloads=20_000)
    small = grid.add(3, owner=2, workloads=500)
    await scene.begin()
    first = await scene.intake.next()
    assert first is not None
    assert (first.pool_ids, first.most) == ([large], 50)
    scene.intake.go_on(first, after=77)
    others = await scene.rest()
    rest = others[position(others, large)]
    assert (rest.after, rest.most > 50) == (77, True)
    assert position(others, small[0]) < position(others, large)


async def test_everybody_overtakes_an_owner_who_crowds_what_is_due(scene: Scene, grid: Grid) -> None:
    crowd = grid.add(5_000, owner=HOG)
    (alone,) = grid.add(1, owner=2)
    await scene.begin()
    batches = await scene.rest()
    assert position(batches, alone) <= 2
    assert sorted(handed_out(batches)) == [*crowd, alone]


async def test_those_who_overtake_on_the_way_are_not_handed_out_a_second_time(scene: Scene, grid: Grid) -> None:
    for owner in range(300):
        grid.add(9, owner=HOG)
        grid.add(1, owner=owner)
    await scene.begin()
    batches = await scene.rest()
    assert len(handed_out(batches)) == len(set(handed_out(batches))) == 3_000


async def test_a_few_large_pools_are_a_crowd_too(scene: Scene, grid: Grid) -> None:
    grid.add(50, owner=HOG, workloads=1000)
    (alone,) = grid.add(1, owner=2)
    await scene.begin()
    assert position(await scene.rest(), alone) <= 2


async def test_a_crowd_behind_a_crowd_is_overtaken_as_well(scene: Scene, grid: Grid) -> None:
    for owner in (HOG, HOG + 1, HOG + 2):
        grid.add(2_000, owner=owner)
    (alone,) = grid.add(1, owner=2)
    await scene.begin()
    batches = await scene.rest()
    assert position(batches, alone) <= 6
    assert len(handed_out(batches)) == len(set(handed_out(batches))) == 6_001


async def test_in_order_nobody_overtakes_and_a_large_pool_goes_on_first(scene: Scene, grid: Grid) -> None:
    crowd = grid.add(2_000, owner=HOG)
    (late,) = grid.add(1, owner=2)
    await scene.begin(in_order=True)
    first = await scene.intake.next()
    assert first is not None
    scene.intake.go_on(first, after=77)
    batches = await scene.rest()
    assert batches[0].after == 77
    assert handed_out(batches)[-1] == late
    assert handed_out([first, *batches[1:]]) == [*crowd, late]


async def test_what_falls_due_meanwhile_is_taken_up_next_and_the_brake_has_looked_at_it(
    scene: Scene, grid: Grid, clock: VirtualClock, agenda: Agenda, restraint: Restraint
) -> None:
    for owner in range(10):
        grid.add(100, owner=owner)
    (fresh,) = grid.add(1, empty_at=NOW + 1, owner=99)
    await scene.begin()
    await scene.intake.next()
    assert scene.intake.seconds_to_fresh() == pytest.approx(0.75)
    clock.pass_time(1)
    batch = await scene.intake.next()
    assert batch is not None
    assert (batch.pool_ids, batch.now) == ([fresh], NOW + 1)
    assert restraint.inspected == [(None, NOW), (NOW, NOW + 1)]
    await scene.rest()
    scene.intake.finished()
    assert agenda.watermark == NOW + 1


async def test_what_is_asked_for_meanwhile_is_taken_up_wherever_it_stands(
    scene: Scene, grid: Grid, clock: VirtualClock, agenda: Agenda
) -> None:
    grid.add(10)
    await scene.begin()
    agenda.look_again(7_000, at=NOW + 1)
    agenda.look_at_workloads([900_001])
    clock.pass_time(1)
    batch = await scene.intake.next()
    assert batch is not None
    assert (batch.pool_ids, batch.origin) == ([7_000, 9_000], Origin.WRITTEN)


async def test_a_batch_says_whether_it_fell_due_or_was_found_by_a_look_at_everything(
    scene: Scene, grid: Grid, agenda: Agenda, clock: VirtualClock
) -> None:
    grid.add(1)
    await scene.begin()
    assert [batch.origin for batch in await scene.rest()] == [Origin.OVERDUE]
    grid.add(1, empty_at=NOW + 1)
    agenda.look_again_at_all({7_000: NOW + 1})
    clock.pass_time(1)
    assert [batch.origin for batch in await scene.rest()] == [Origin.DUE, Origin.DUE]


async def test_a_rescan_is_not_put_off_by_what_falls_due(
    scene: Scene, grid: Grid, clock: VirtualClock, agenda: Agenda
) -> None:
    grid.add(1)
    await scene.begin()
    agenda.rescan()
    grid.add(1, empty_at=NOW + 1)
    clock.pass_time(1)
    assert handed_out(await scene.rest()) == [1]
    assert scene.intake.seconds_to_fresh() is None
    scene.intake.finished()
    assert agenda.take(NOW + 1).after is None


async def test_a_reading_of_the_clock_that_the_gate_does_not_trust_takes_nothing_up(
    scene: Scene, grid: Grid, clock: VirtualClock, restraint: Restraint
) -> None:
    """An hour later by mistake, and right again before anybody else asks the gate."""
    grid.add(1)
    grid.add(1, empty_at=NOW + 1800)
    await scene.begin()
    clock.step(3600)
    restraint.reason = "clocks"
    assert handed_out([batch for batch in [await scene.intake.next()] if batch]) == [1]
    clock.step(-3600)
    restraint.reason = None
    assert await scene.rest() == []
    assert scene.intake.until == NOW


async def test_a_pool_that_has_overtaken_and_runs_empty_again_is_handed_out_again(
    scene: Scene, grid: Grid, clock: VirtualClock
) -> None:
    grid.add(3_000, owner=HOG)
    (alone,) = grid.add(1, owner=2)
    await scene.begin()
    batches = []
    while alone not in handed_out(batches):
        batch = await scene.intake.next()
        assert batch is not None
        batches.append(batch)
    grid.move(alone, empty_at=NOW + 1)
    clock.pass_time(1)
    assert alone in handed_out(await scene.rest())


async def test_a_rescan_leaves_out_what_was_settled_before_unless_it_has_something_deployed(
    scene: Scene, grid: Grid
) -> None:
    silent = grid.add(10, synced=True)
    unsynced = grid.add(1)
    grid.deploying_ids = {silent[3]}
    await scene.begin()
    assert handed_out(await scene.rest()) == [silent[3], *unsynced]


async def test_a_rescan_makes_up_first_for_what_was_left_half_done(scene: Scene, grid: Grid, agenda: Agenda) -> None:
    pool_ids = grid.add(1, synced=True)
    grid.half_done_ids = set(pool_ids)
    agenda.rescan()

    await scene.begin()

    assert handed_out(await scene.rest()) == pool_ids


async def test_whoever_overtakes_in_a_rescan_has_something_to_be_done_about(scene: Scene, grid: Grid) -> None:
    crowd = grid.add(3_000, owner=HOG)
    silent = grid.add(50, owner=2, synced=True)
    (alone,) = grid.add(1, owner=3)
    await scene.begin()
    batches = await scene.rest()
    assert position(batches, alone) <= 2
    assert sorted(handed_out(batches)) == [*crowd, alone]
    assert set(handed_out(batches)).isdisjoint(silent)


async def test_what_a_pass_does_not_finish_is_all_put_back(
    scene: Scene, grid: Grid, clock: VirtualClock, agenda: Agenda
) -> None:
    grid.add(10)
    agenda.look_again(7_000, at=NOW)
    await scene.begin()
    agenda.look_again(8_000, at=NOW + 1)
    clock.pass_time(1)
    await scene.rest()
    scene.intake.put_back()
    work = agenda.take(NOW + 1)
    assert work.after is None
    assert work.asked_for.keys() == {7_000, 8_000}
