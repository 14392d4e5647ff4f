"""The brake and whole passes on a real server: which pools that are looked at by id are a flood."""

import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import pytest_asyncio
from arithmetic_model import Rates
from bson import Int64
from explorer import CONTAINER, Explorer, Purchase
from pymongo import MongoClient

from pool_daemon.clock import SystemClock
from pool_daemon.expiry.expiry_pass import Expirer
from pool_daemon.scheduling.agenda import Agenda
from pool_daemon.scheduling.brake import Brake
from pool_daemon.scheduling.gate import Gates
from pool_daemon.scheduling.quarantine import Quarantine
from pool_daemon.scheduling.reports import Reports
from pool_daemon.scheduling.restraints import Restraints
from pool_daemon.settings import sections
from pool_daemon.store.client import connect
from pool_daemon.store.holds import HoldStore
from pool_daemon.store.losses import LossReader
from pool_daemon.store.quarantine import QuarantineStore
from pool_daemon.store.setup import create_collections, setup
from pool_daemon.store.store import Store
from pool_daemon.telemetry.observer import Observer

FEW = 4
"""Pools that may be written empty within a minute, whatever their share."""


class Scene:
    """An explorer, and a daemon's passes with a brake."""

    def __init__(self, *, uri: str, explorer: Explorer) -> None:
        self.explorer = explorer
        self.database = connect(uri=uri, name=explorer.database.name, timeout_seconds=2)
        self.agenda = Agenda()
        self.holds = HoldStore(database=self.database, identity="me")
        clock = SystemClock()
        observer = Observer(identity="me", version="0", clock=clock)
        self.brake = Brake(
            holds=self.holds,
            losses=LossReader(database=self.database),
            settings=sections.Brake(share=0.2, pools=FEW),
            clock=clock,
            look_again=self.agenda.try_again,
            observer=observer,
        )
        quarantine = Quarantine(
            store=QuarantineStore(database=self.database),
            settings=sections.Retry(),
            clock=clock,
            identity="me",
            look_again=self.agenda.try_again,
            observer=observer,
        )
        self.expirer = Expirer(
            store=Store(database=self.database, clock=clock, identity="me"),
            agenda=self.agenda,
            restraints=Restraints(gate=Gates(), brake=self.brake, quarantine=quarantine),
            reports=Reports(observer=observer, settings=sections.Log()),
            clock=clock,
            settings=sections.Expiry(batch_workloads=20),
        )

    def write_empty(self, number: int, *, containers: int = 1) -> list[Purchase]:
        """Write pools that ran empty an hour ago, and have the watcher hear of it."""
        pools = self.buy_expired(number, containers=containers)
        for pool in pools:
            self.agenda.look_again(pool.pool_id, at=int(time.time()))
        return pools

    def buy_expired(self, number: int, *, containers: int = 1) -> list[Purchase]:
        """Have pools that ran empty an hour ago, behind what the passes have looked at."""
        empty_at = Int64(time.time() - 3600)
        return [self.explorer.buy_expired(*[CONTAINER] * containers, empty_at=empty_at) for _ in range(number)]

    def miss(self, pools: Sequence[Purchase]) -> None:
        """Have the reconciler meet pools that no pass has settled."""
        for pool in pools:
            self.agenda.look_at_missed(pool.pool_id, at=int(time.time()))

    async def run_pass(self) -> int:
        """Run a pass; return how many workloads it decommissioned."""
        return (await self.expirer.run_pass(int(time.time()))).decommissioned

    def held(self) -> set[int]:
        return set(self.explorer.database["pool-daemon-brake"].distinct("_id", {"state": "held"}))


@pytest_asyncio.fixture
async def scene(mongo_uri: str, mongo: MongoClient[dict[str, Any]], database_name: str) -> AsyncIterator[Scene]:
    scene = Scene(uri=mongo_uri, explorer=Explorer(database=mongo[database_name]))
    await create_collections(scene.database)
    await setup(scene.database)
    await scene.run_pass()
    yield scene
    scene.database.close()


async def test_pools_that_an_operator_released_are_no_flood(scene: Scene) -> None:
    pools = scene.write_empty(FEW + 2)
    assert await scene.run_pass() == 0
    await scene.holds.release([pool.pool_id for pool in pools], at=time.time())
    await scene.brake.look(Gates())
    assert await scene.run_pass() == FEW + 2
    scene.write_empty(1)
    assert await scene.run_pass() == 1


async def test_pools_of_which_another_resource_runs_out_are_no_flood(scene: Scene) -> None:
    pools = scene.buy_expired(FEW + 2)
    scene.agenda.look_again_at_all(dict.fromkeys([pool.pool_id for pool in pools], int(time.time())))
    assert await scene.run_pass() == FEW + 2
    scene.write_empty(1)
    assert await scene.run_pass() == 1


async def test_a_pool_too_large_for_one_transaction_counts_as_one(scene: Scene) -> None:
    scene.write_empty(1, containers=20 * (FEW + 2))
    assert await scene.run_pass() == 20 * (FEW + 2)
    scene.write_empty(1)
    assert await scene.run_pass() == 1


async def test_pools_that_others_write_empty_are_one(scene: Scene) -> None:
    for _ in range(20):
        scene.explorer.buy(Rates(1e6, 1e12, 1e12), [CONTAINER])
    assert await scene.run_pass() == 0
    scene.write_empty(FEW)
    assert await scene.run_pass() == FEW
    pools = scene.write_empty(2)
    assert await scene.run_pass() == 0
    assert scene.held() == {pool.pool_id for pool in pools}


async def test_pools_written_empty_that_the_reconciler_meets_before_the_stream_tells_of_them_are_one(
    scene: Scene,
) -> None:
    pools = scene.buy_expired(FEW + 1)
    scene.miss(pools)
    assert await scene.run_pass() == 0
    assert scene.held() == {pool.pool_id for pool in pools}


async def test_pools_written_empty_under_a_look_at_everything_are_one(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The brake has counted what is overdue when somebody goes on to restore a backup."""
    counted = scene.buy_expired(FEW)
    restored: list[Purchase] = []

    async def inspect_and_restore(*arguments: Any) -> None:
        await inspect(*arguments)
        restored.extend(scene.buy_expired(3 * FEW))

    inspect = scene.brake.inspect
    monkeypatch.setattr(scene.brake, "inspect", inspect_and_restore)
    scene.agenda.rescan()
    assert await scene.run_pass() == len(counted)
    assert scene.held() < {pool.pool_id for pool in [*counted, *restored]}
    assert len(scene.held()) == len(restored)
