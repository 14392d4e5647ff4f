"""What the review of pools in grace does, and when it leaves them alone."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

import pytest
from telemetry_scene import new_observer
from virtual_time import ProcessClock, in_virtual_time

from pool_daemon.capacity.exhaustion import Resource
from pool_daemon.capacity.grace import Ended, GraceEnd, PoolGrace
from pool_daemon.errors import StoreConflictError, StoreUnavailableError
from pool_daemon.expiry.grace_reviewer import PURGE_SECONDS, GraceReviewer
from pool_daemon.guards.gate import Closed
from pool_daemon.store.grace import GraceRecord

Page = list[GraceRecord]


@dataclass
class Records:
    """The records of the pools in grace."""

    page: Page = field(default_factory=Page)
    purged: list[int] = field(default_factory=list)
    reads: int = 0

    async def list(self) -> AsyncGenerator[Page, None]:
        self.reads += 1
        yield self.page

    async def purge(self, *, now: int) -> int:
        self.purged.append(now)
        return 0


@dataclass
class Pools:
    """Pools in grace, some of them due; `error` is raised instead of an answer."""

    records: Records = field(default_factory=Records)
    due: set[int] = field(default_factory=set)
    ended: list[int] = field(default_factory=list)
    error: Exception | None = None

    def add(self, pool_id: int, *, due: bool = True, until: int | None = None) -> None:
        grace = PoolGrace(since={Resource.STORAGE: 5}, operator_until=until, operator_at=5 if until else 0)
        self.records.page.append(GraceRecord(pool_id, 7, grace))
        if due:
            self.due.add(pool_id)

    async def due_among(self, pool_ids: Sequence[int], *, now: int) -> set[int]:
        del now
        if isinstance(self.error, StoreUnavailableError):
            raise self.error
        return self.due.intersection(pool_ids)

    async def end(self, pool_ids: Sequence[int], *, now: int) -> list[Ended]:
        del now
        if self.error is not None:
            raise self.error
        self.ended += pool_ids
        return [Ended(Resource.STORAGE, 5, GraceEnd.TOPPED_UP) for _ in pool_ids]


class Scene:
    def __init__(self) -> None:
        self.pools = Pools()
        self.clock = ProcessClock()
        self.looked_at: list[int] = []
        self.closed: Closed | None = None
        self.reviewer = GraceReviewer(
            pools=self.pools,
            gate=self,
            clock=self.clock,
            look_again=self.looked_at.extend,
            observer=new_observer(self.clock),
        )

    def closed_by(self) -> Closed | None:
        return self.closed


@in_virtual_time
async def test_a_pool_that_is_topped_up_leaves_grace_and_one_that_is_due_is_left_alone() -> None:
    scene = Scene()
    scene.pools.add(1)
    scene.pools.add(2, due=False)
    await scene.reviewer.review()
    assert (scene.pools.ended, scene.looked_at) == ([2], [])


@in_virtual_time
async def test_an_operators_end_that_has_come_is_looked_at_and_a_later_one_waits() -> None:
    scene = Scene()
    now = int(scene.clock.now())
    scene.pools.add(1, until=now - 1)
    scene.pools.add(2, until=now + 100)
    await scene.reviewer.review()
    assert scene.looked_at == [1]


@pytest.mark.parametrize("closed", [Closed.STANDBY, Closed.CLOCKS_APART])
@in_virtual_time
async def test_with_the_gate_closed_nothing_is_read_and_no_clock_is_believed(closed: Closed) -> None:
    scene = Scene()
    scene.pools.add(1, due=False)
    scene.closed = closed
    await scene.reviewer.review()
    assert (scene.pools.records.reads, scene.pools.ended) == (0, [])


@in_virtual_time
async def test_a_change_of_policies_has_all_that_are_due_looked_at_once() -> None:
    scene = Scene()
    scene.pools.add(1)
    scene.pools.add(2)
    scene.reviewer.look_at_all()
    await scene.reviewer.review()
    await scene.reviewer.review()
    assert scene.looked_at == [1, 2]


@in_virtual_time
async def test_a_change_of_policies_during_an_outage_is_not_forgotten() -> None:
    scene = Scene()
    scene.pools.add(1)
    scene.reviewer.look_at_all()
    scene.pools.error = StoreUnavailableError("away")
    with pytest.raises(StoreUnavailableError):
        await scene.reviewer.review()
    scene.pools.error = None
    await scene.reviewer.review()
    assert scene.looked_at == [1]


@in_virtual_time
async def test_a_settlement_that_is_faster_costs_the_others_of_the_page_nothing() -> None:
    scene = Scene()
    scene.pools.add(1, due=False)
    scene.pools.add(2, until=int(scene.clock.now()) - 1)
    scene.pools.error = StoreConflictError("a settlement")
    await scene.reviewer.review()
    assert scene.looked_at == [2]


@in_virtual_time
async def test_old_records_are_removed_at_first_and_then_once_an_hour() -> None:
    scene = Scene()
    for _ in range(3):
        await scene.reviewer.review()
    assert scene.pools.records.purged == [int(scene.clock.now())]
    await asyncio.sleep(PURGE_SECONDS)
    await scene.reviewer.review()
    assert len(scene.pools.records.purged) == 2
