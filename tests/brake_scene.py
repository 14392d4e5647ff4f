"""An explorer's database, and a daemon's passes with a brake on it, while time goes by as a test says."""

import contextlib
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from actors import ME
from arithmetic_model import Rates
from bson import Int64
from explorer import CONTAINER, Explorer, Kind, Purchase
from pymongo import MongoClient
from virtual_clock import VirtualClock

from pool_daemon.events import Event
from pool_daemon.expiry.batches import Batch
from pool_daemon.expiry.expirer import Expirer
from pool_daemon.expiry.pass_report import PassReport
from pool_daemon.expiry.work_queue import Cause, WorkQueue
from pool_daemon.guards.brake import RECOUNT_SECONDS, Brake
from pool_daemon.guards.gate import Closed, Gates
from pool_daemon.guards.guards import Guards
from pool_daemon.guards.held_pools import HeldPools
from pool_daemon.guards.quarantine import Quarantine
from pool_daemon.settings import sections
from pool_daemon.store.cases import Limits
from pool_daemon.store.client import connect
from pool_daemon.store.holds import HoldStore
from pool_daemon.store.pool_counts import PoolCounts
from pool_daemon.store.pools import DuePool
from pool_daemon.store.quarantine import QuarantineStore
from pool_daemon.store.setup import create_collections, setup
from pool_daemon.store.store import Store
from pool_daemon.telemetry.logs import tell
from pool_daemon.telemetry.observer import Observer
from pool_daemon.telemetry.reports import Reports


class Counts(PoolCounts):
    """Remembers how many pools' owners it was asked for."""

    asked_owners = 0

    async def due_owners(self, pool_ids: Sequence[int], *, now: int) -> dict[int, int]:
        self.asked_owners += len(pool_ids)
        return await super().due_owners(pool_ids, now=now)


Client = MongoClient[dict[str, Any]]

FEW = 8
"""Unexpected pools that go in any case."""

BATCH_WORKLOADS = 20

HOUR = 3600


class Told:
    """Knows what it was told last of the brake."""

    text: str | None = None

    def tell(self, event: Event, **fields: Any) -> None:
        tell(event, **fields)

    def put_on_hold(self, reason: str, *, detail: str, pools: int) -> None:
        assert pools > 0
        self.text = f"{reason}: {detail}"

    def taken_off_hold(self, reason: str) -> None:
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
        self.pool_counts = Counts(database=self.database)
        brake_settings = sections.Brake(**{"max_share": 0.2, "min_pools": FEW, "per_owner": 2, **settings})
        self.held_pools = HeldPools(
            holds=self.holds,
            clock=self.clock,
            settings=brake_settings,
            observer=self.told,
            look_again=self.queue.retry,
        )
        self.brake = Brake(
            held=self.held_pools,
            pool_counts=self.pool_counts,
            settings=brake_settings,
            clock=self.clock,
        )
        self.store = Store(database=self.database, clock=self.clock, actor=ME, dry_run=dry_run)
        observer = Observer(identity="me", version="0", clock=self.clock)
        quarantine = Quarantine(
            store=QuarantineStore(database=self.database),
            settings=sections.Retry(),
            clock=self.clock,
            look_again=self.queue.retry,
            observer=observer,
        )
        self.expirer = Expirer(
            store=self.store,
            queue=self.queue,
            guards=Guards(gate=Gates(), brake=self.brake, quarantine=quarantine),
            reports=Reports(observer=observer, settings=sections.Log()),
            clock=self.clock,
            settings=sections.Expiry(batch_workloads=BATCH_WORKLOADS),
        )
        self.brake.unexpected.watching_since(self.now)

    @property
    def now(self) -> int:
        return int(self.clock.now())

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

    def write(self, pools: Sequence[Purchase], *, ago: int = 0, tells_owner: bool = False) -> None:
        """Have the watcher notice that somebody wrote these pools so many seconds ago: updated them, or put them in."""
        for pool in pools:
            owner = int(pool.document["customer_tid"]) if tells_owner else None
            self.brake.unexpected.record(pool.pool_id, pool.empty_at, self.now - ago, owner)
            if pool.empty_at <= self.now:
                self.queue.add(pool.pool_id, at=self.now, cause=Cause.CHANGED)

    async def run_pass(self) -> PassReport:
        return await self.expirer.run_pass(self.now)

    async def settle_batch(self, pools: Sequence[DuePool], *, full_scan: bool) -> set[int]:
        """Settle pools as one batch of a pass; return the ids of those that were withheld, and may go after all."""
        allowed = await self.brake.filter_allowed(pools, now=self.now, full_scan=full_scan)
        batch = Batch(allowed, self.now, Limits(100, 2**20), full_scan)
        settlement = await self.store.decommissions.settle(batch.pool_ids, now=self.now, limits=batch.protecting_limits)
        return await self.brake.judge(
            settlement.settled_of(batch.pool_ids), settlement, now=self.now, full_scan=full_scan
        )

    async def run_passes(self) -> int:
        """Run passes until none is asked for; return how many workloads were decommissioned."""
        number = (await self.run_pass()).decommissioned
        for _ in range(10):
            if not self.queue.full_scan_is_ahead:
                return number
            if not self.queue.full_scan_requested:
                self.clock.pass_time(RECOUNT_SECONDS)
                self.queue.request_full_scan()
            number += (await self.run_pass()).decommissioned
        raise AssertionError("the brake asks for one full scan after the other")

    async def full_scan(self) -> int:
        self.queue.request_full_scan()
        return await self.run_passes()

    async def release(self, pools: Sequence[Purchase]) -> None:
        await self.holds.release(ids(pools), at=self.clock.now())
        await self.held_pools.review(self.gate)

    def held(self) -> set[int]:
        return set(self.documents.distinct("_id", {"state": "held"}))

    def running(self, pools: Sequence[Purchase]) -> int:
        workload_ids = [workload_id for pool in pools for workload_id in pool.workload_ids]
        return self.explorer.next_actions(workload_ids).count(3)


def ids(pools: Sequence[Purchase]) -> list[int]:
    return [pool.pool_id for pool in pools]


@contextlib.asynccontextmanager
async def scene_on(uri: str, mongo: Client, database_name: str) -> AsyncIterator[Scene]:
    """Set the scene; the daemon has found nothing due so far."""
    scene = Scene(uri=uri, explorer=Explorer(database=mongo[database_name]))
    await create_collections(scene.database)
    await setup(scene.database)
    await scene.run_passes()
    yield scene
    scene.database.close()
