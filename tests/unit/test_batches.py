"""In which batches, and in which order, what is due is handed out."""

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from typing import Any

import pytest
import pytest_asyncio
from grid_in_memory import Grid

from pool_daemon.capacity.exhaustion import Resource
from pool_daemon.capacity.pool import new_pool
from pool_daemon.expiry.batches import Batch, Batches
from pool_daemon.store.cases import Case, Decommissioned, Limits, Rest, Settlement
from pool_daemon.store.pools import DuePool

NOW = 1_800_000_000
HOG = 4711
BYTES = 2**20


@pytest.fixture
def grid() -> Grid:
    return Grid()


async def pages(*pages: Sequence[DuePool]) -> AsyncGenerator[list[DuePool], None]:
    """Yield the pages of pools that were added by id."""
    for page in pages:
        yield list(page)


class Scene:
    """The batches of one pass at a time."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self.limits = Limits(500, BYTES)
        self.batches: Batches

    def begin(
        self,
        *,
        by_id: Sequence[DuePool] = (),
        after: int | None = None,
        in_order: bool = False,
        awaited: Collection[int] = (),
    ) -> None:
        self.batches = Batches(
            store=self._grid.store,
            limits=lambda: self.limits,
            in_order=in_order,
            on_unreadable=lambda _: None,
            is_entered=lambda pool_id: pool_id in awaited,
        )
        if by_id:
            self.batches.add_by_id(pages(by_id), now=NOW)
        self.batches.add_due(after=after, now=NOW)

    async def next(self) -> Batch:
        batch = await self.batches.take()
        assert batch is not None
        return batch

    async def rest(self) -> list[Batch]:
        batches = []
        while (batch := await self.batches.take()) is not None:
            batches.append(batch)
        return batches


@pytest_asyncio.fixture
async def scene(grid: Grid) -> AsyncIterator[Scene]:
    scene = Scene(grid)
    yield scene
    await scene.batches.close()


def handed_out(batches: Sequence[Batch]) -> list[int]:
    return [pool_id for batch in batches for pool_id in batch.pool_ids]


def position(batches: Sequence[Batch], pool_id: int) -> int:
    return next(number for number, batch in enumerate(batches) if pool_id in batch.pool_ids)


async def test_batches_grow_from_a_small_first_one(scene: Scene, grid: Grid) -> None:
    due = [pool_id for owner in range(10) for pool_id in grid.add(200, empty_at=NOW, owner=owner)]
    scene.begin()
    batches = await scene.rest()
    assert [len(batch.pool_ids) for batch in batches[:5]] == [50, 100, 200, 400, 250]
    assert max(len(batch.pool_ids) for batch in batches) <= 500
    assert handed_out(batches) == due


async def test_after_a_conflict_batches_grow_from_a_small_one_again(scene: Scene, grid: Grid) -> None:
    for owner in range(10):
        grid.add(100, empty_at=NOW, owner=owner)
    scene.begin()
    assert [len((await scene.next()).pools) for _ in range(2)] == [50, 100]
    scene.batches.start_small()
    assert [len((await scene.next()).pools) for _ in range(3)] == [50, 100, 200]


async def test_only_what_has_just_come_is_handed_out_where_only_that_is_asked_for(scene: Scene, grid: Grid) -> None:
    grid.add(1000, empty_at=NOW - 1)
    scene.begin()
    assert await scene.batches.take(fresh_only=True) is not None
    assert await scene.batches.take(fresh_only=True) is None
    (fresh,) = grid.add(1, empty_at=NOW)
    scene.batches.add_due(after=NOW - 1, now=NOW)
    batch = await scene.batches.take(fresh_only=True)
    assert batch is not None
    assert batch.pool_ids == [fresh]
    assert await scene.batches.take(fresh_only=True) is None
    assert await scene.batches.take() is not None


async def test_pools_that_have_just_run_empty_go_before_more_than_a_page_of_those_by_id_is_read(
    scene: Scene, grid: Grid
) -> None:
    held = [grid.pools[pool_id] for pool_id in grid.add(5_000, empty_at=NOW - 500)]
    (fresh,) = grid.add(1, empty_at=NOW, owner=2)
    read: list[int] = []

    async def by_id() -> AsyncGenerator[list[DuePool], None]:
        for start in range(0, len(held), 1000):
            read.append(start)
            yield held[start : start + 1000]

    scene.batches = Batches(store=grid.store, limits=lambda: scene.limits, in_order=False, on_unreadable=lambda _: None)
    scene.batches.add_by_id(by_id(), now=NOW)
    scene.batches.add_due(after=NOW - 1, now=NOW)
    assert (await scene.next()).pool_ids == [fresh]
    assert read == []
    await scene.next()
    assert read == [0]
    assert len(handed_out(await scene.rest())) == len(held) - 100


async def test_a_lane_gives_up_its_turn_after_a_page_with_nothing_to_settle(scene: Scene, grid: Grid) -> None:
    """Pools whose nodes never answered stay due for ever, and a full scan reads all of them."""
    grid.add(5_000, empty_at=NOW - 500, synced=True)
    scene.begin()
    assert (await scene.next()).pools == []
    (fresh,) = grid.add(1, empty_at=NOW, owner=2)
    scene.batches.add_due(after=NOW - 1, now=NOW)
    assert (await scene.next()).pool_ids == [fresh]
    assert handed_out(await scene.rest()) == []


async def test_a_page_with_nothing_to_settle_does_not_let_batches_grow(scene: Scene, grid: Grid) -> None:
    grid.add(5_000, empty_at=NOW - 500, synced=True)
    for owner in range(10):
        grid.add(100, empty_at=NOW, owner=owner)
    scene.begin()
    assert [size for batch in await scene.rest() if (size := len(batch.pools))][:2] == [50, 100]


async def test_a_batch_holds_as_many_pools_as_have_workloads_for_it(scene: Scene, grid: Grid) -> None:
    grid.add(10, empty_at=NOW, workloads=20)
    scene.begin()
    assert [len(batch.pool_ids) for batch in await scene.rest()] == [2, 5, 3]


async def test_batches_shrink_with_their_limits_and_grow_again(scene: Scene, grid: Grid) -> None:
    grid.add(1000, empty_at=NOW)
    scene.begin()
    assert len((await scene.next()).pools) == 50
    scene.limits = Limits(10, BYTES)
    assert len((await scene.next()).pools) == 10
    scene.limits = Limits(500, BYTES)
    assert [len(batch.pools) for batch in await scene.rest()] == [20, 40, 80, 160, 320, 320]


async def test_a_large_pool_begins_with_a_small_portion_and_takes_turns_for_the_rest(scene: Scene, grid: Grid) -> None:
    (large,) = grid.add(1, empty_at=NOW, workloads=20_000)
    small = grid.add(3, empty_at=NOW, owner=2, workloads=500)
    scene.begin()
    first = await scene.next()
    assert (first.pool_ids, first.limits.workloads) == ([large], 50)
    scene.batches.add(*first.left_by(Settlement(rest=Rest(large, 77)), most=500))
    others = await scene.rest()
    assert others[position(others, large)].after == 77
    assert position(others, small[0]) < position(others, large)


async def test_all_others_overtake_an_owner_who_is_heavy_on_what_is_due(scene: Scene, grid: Grid) -> None:
    crowd = grid.add(5_000, empty_at=NOW, owner=HOG)
    (alone,) = grid.add(1, empty_at=NOW, owner=2)
    scene.begin()
    batches = await scene.rest()
    assert position(batches, alone) <= 2
    assert sorted(handed_out(batches)) == [*crowd, alone]


async def test_those_who_overtake_on_the_way_are_not_handed_out_a_second_time(scene: Scene, grid: Grid) -> None:
    for owner in range(300):
        grid.add(9, empty_at=NOW, owner=HOG)
        grid.add(1, empty_at=NOW, owner=owner)
    scene.begin()
    batches = await scene.rest()
    assert len(handed_out(batches)) == len(set(handed_out(batches))) == 3_000


async def test_a_few_large_pools_make_an_owner_heavy_too(scene: Scene, grid: Grid) -> None:
    grid.add(50, empty_at=NOW, owner=HOG, workloads=1000)
    (alone,) = grid.add(1, empty_at=NOW, owner=2)
    scene.begin()
    assert position(await scene.rest(), alone) <= 2


async def test_a_heavy_owner_behind_another_is_overtaken_as_well(scene: Scene, grid: Grid) -> None:
    for owner in (HOG, HOG + 1, HOG + 2):
        grid.add(2_000, empty_at=NOW, owner=owner)
    (alone,) = grid.add(1, empty_at=NOW, owner=2)
    scene.begin()
    batches = await scene.rest()
    assert position(batches, alone) <= 6
    assert len(handed_out(batches)) == len(set(handed_out(batches))) == 6_001


async def test_in_order_nobody_overtakes_and_a_large_pool_goes_on_first(scene: Scene, grid: Grid) -> None:
    crowd = grid.add(2_000, empty_at=NOW, owner=HOG)
    (late,) = grid.add(1, empty_at=NOW, owner=2)
    scene.begin(in_order=True)
    first = await scene.next()
    scene.batches.add(*first.left_by(Settlement(rest=Rest(crowd[0], 77)), most=500))
    batches = await scene.rest()
    assert batches[0].after == 77
    assert handed_out(batches)[-1] == late
    assert handed_out([first, *batches[1:]]) == [*crowd, late]


async def test_in_order_the_halves_of_a_batch_keep_theirs(scene: Scene, grid: Grid) -> None:
    crowd = grid.add(10, empty_at=NOW)
    scene.begin(in_order=True)
    first = await scene.next()
    scene.batches.add(*first.split())
    assert handed_out(await scene.rest()) == crowd


async def test_a_batch_says_whether_a_full_scan_found_its_pools(scene: Scene, grid: Grid) -> None:
    (overdue,) = grid.add(1, empty_at=NOW)
    scene.begin()
    assert [batch.full_scan for batch in await scene.rest()] == [True]
    scene.begin(after=NOW - 1, by_id=[grid.pools[overdue]])
    assert [batch.full_scan for batch in await scene.rest()] == [False, False]


async def test_a_pool_that_has_overtaken_and_runs_empty_again_is_handed_out_again(scene: Scene, grid: Grid) -> None:
    grid.add(3_000, empty_at=NOW, owner=HOG)
    (alone,) = grid.add(1, empty_at=NOW, owner=2)
    scene.begin()
    batches: list[Batch] = []
    while alone not in handed_out(batches):
        batches.append(await scene.next())
    grid.move(alone, empty_at=NOW + 1)
    scene.batches.add_due(after=NOW, now=NOW + 1)
    assert alone in handed_out(await scene.rest())


async def test_a_full_scan_leaves_out_what_was_settled_before_unless_it_has_something_deployed(
    scene: Scene, grid: Grid
) -> None:
    silent = grid.add(10, empty_at=NOW, synced=True)
    unsynced = grid.add(1, empty_at=NOW)
    grid.deploying_ids = {silent[3]}
    scene.begin()
    assert handed_out(await scene.rest()) == [silent[3], *unsynced]


async def test_a_full_scan_leaves_out_pools_in_grace_that_are_checked_when_it_ends(scene: Scene, grid: Grid) -> None:
    resting, forgotten, changed = grid.add(3, empty_at=NOW, synced=True)
    grid.deploying_ids = {resting, forgotten, changed}
    grid.resting_ids = {resting, forgotten}
    scene.begin(awaited={resting, changed})
    assert handed_out(await scene.rest()) == [forgotten, changed]


async def test_pools_that_overtake_in_a_full_scan_have_something_to_be_done_about(scene: Scene, grid: Grid) -> None:
    crowd = grid.add(3_000, empty_at=NOW, owner=HOG)
    silent = grid.add(50, empty_at=NOW, owner=2, synced=True)
    (alone,) = grid.add(1, empty_at=NOW, owner=3)
    scene.begin()
    batches = await scene.rest()
    assert position(batches, alone) <= 2
    assert sorted(handed_out(batches)) == [*crowd, alone]
    assert set(handed_out(batches)).isdisjoint(silent)


def settled(workloads: int, **left: Any) -> Settlement:
    """Return a settlement of so many workloads that has left something."""
    gone = tuple(Decommissioned(number, 1, 1, 1, "node", (Resource.COMPUTE,), NOW) for number in range(workloads))
    state = new_pool(1, 1, 0, None, now=0)
    return Settlement(cases=[Case(state, state, gone, (None,) * workloads, (1,) * workloads)], **left)


def test_of_large_documents_no_more_are_read_the_next_time_than_are_likely_to_fit() -> None:
    batch = Batch([DuePool(pool_id) for pool_id in range(20)], NOW, Limits(400, BYTES))
    (rest,) = batch.left_by(settled(3, rest=Rest(7, 77), is_full=True), most=500)
    assert (rest.pool_ids, rest.after, rest.limits) == ([7], 77, Limits(6, BYTES))
    (others,) = batch.left_by(settled(0, left_over=[8, 9], is_full=True), most=500)
    assert (others.pool_ids, others.after, others.limits.workloads) == ([8, 9], None, 1)


def test_where_workloads_are_small_more_of_them_go_each_time() -> None:
    batch = Batch([DuePool(7)], NOW, Limits(50, BYTES))
    limits = []
    for number in range(5):
        (batch,) = batch.left_by(settled(50, rest=Rest(7, number)), most=500)
        limits.append(batch.limits.workloads)
    assert limits == [100, 200, 400, 500, 500]


def test_a_batch_is_split_into_pools_and_a_pool_into_workloads() -> None:
    pools = [DuePool(pool_id) for pool_id in range(20)]
    batch = Batch(pools, NOW, Limits(4, BYTES))
    pieces = [piece.pool_ids for piece in batch.split()]
    assert [len(piece) for piece in pieces] == [3, 3, 3, 3, 3, 3, 2]
    assert [pool_id for piece in pieces for pool_id in piece] == batch.pool_ids
    alone = batch.of({3})
    assert [piece.limits for piece in alone.split()] == [Limits(2, BYTES // 2)]
    assert alone.split()[0].split()[0].split() == []
