"""The reconciler beside an explorer that never stops writing: nothing of it is undone, and all it loses is repaired.

Each writer has pools of its own, so that whatever comes out wrong is the reconciler's doing. It loses removals and
orders on purpose, and knows at every moment what its pools must come to.
"""

import asyncio
import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
from actors import ME
from arithmetic_model import RESOURCES, Rates, add_workload, recompute, remove_workload
from explorer import CONTAINER, FREE, PUBLIC_IP, VOLUME, Explorer, Kind
from fail_point import fail_point
from pymongo import MongoClient
from telemetry_scene import LogOnly

from pool_daemon.clock import SystemClock
from pool_daemon.expiry.throttle import Throttle
from pool_daemon.guards.gate import Gates
from pool_daemon.reconcile.findings import Findings
from pool_daemon.reconcile.reconciler import Reconciler
from pool_daemon.reconcile.scans import OrderScan, PoolScan, Scan
from pool_daemon.settings.sections import Expiry, Reconcile
from pool_daemon.store.client import connect
from pool_daemon.store.reconciliation import ReconciliationStore

Client = MongoClient[dict[str, Any]]

WRITERS = 3
POOLS_A_WRITER = 8
CONFIRM_SECONDS = 1.0
ENOUGH = 6
"""So many pools, and so many orders, are repaired before the writers stop."""

PATIENCE_SECONDS = 60.0
PAUSE_SECONDS = 0.02
"""Between two writes of a writer: what is lost must be left for a while before the next is lost in the same pool."""

LOST = 0.2
"""The part of the orders and of the removals that gets lost."""

TOP_UP = Rates(1e7, 1e7, 1e7)
MOST_DRAINED = 1e6
"""More than all of a pool's workloads can drain in this test, and far less than one top-up brings."""

KINDS = (CONTAINER, VOLUME, PUBLIC_IP, FREE[0])


@dataclass
class Expected:
    """What a pool must come to once everything is repaired."""

    bought: int = 0
    running: dict[int, Kind] = field(default_factory=dict)
    leaving: dict[int, Kind] = field(default_factory=dict)
    """Workloads whose deletion the explorer has asked for and not yet heard of."""


class Writer:
    """One thread of the explorer, and what it has done."""

    def __init__(self, explorer: Explorer, *, seed: int) -> None:
        self._explorer = explorer
        self._chance = random.Random(seed)  # noqa: S311 - it picks, it keeps no secret
        self.pools: dict[int, Expected] = {}
        for _ in range(POOLS_A_WRITER):
            pool = explorer.buy(TOP_UP, [CONTAINER])
            self.pools[pool.pool_id] = Expected(bought=1, running={pool.workload_ids[0]: CONTAINER})

    def write_until(self, stop: threading.Event) -> None:
        while not stop.wait(PAUSE_SECONDS):
            pool_id = self._chance.choice(list(self.pools))
            self._chance.choice((self._top_up, self._deploy, self._ask_to_delete, self._hear_of_deletion))(pool_id)

    def _top_up(self, pool_id: int) -> None:
        self._explorer.top_up(pool_id, TOP_UP)
        self.pools[pool_id].bought += 1

    def _deploy(self, pool_id: int) -> None:
        kind = self._chance.choice(KINDS)
        workload = self._explorer.new_workload(pool_id, kind)
        self._explorer.workloads.insert_one(workload)
        self._explorer.rewrite(
            pool_id, lambda pool: add_workload(pool, workload["_id"], kind.rates, now=int(time.time()))
        )
        self.pools[pool_id].running[workload["_id"]] = kind

    def _ask_to_delete(self, pool_id: int) -> None:
        """Let a customer delete a workload; some of the orders get lost."""
        expected = self.pools[pool_id]
        if not expected.running:
            return
        workload_id = self._chance.choice(list(expected.running))
        expected.leaving[workload_id] = expected.running.pop(workload_id)
        self._explorer.workloads.update_one({"_id": workload_id}, {"$set": {"next_action": 4}})
        if self._chance.random() < LOST:
            return
        order = self._explorer.workloads.find_one({"_id": workload_id})
        self._explorer.orders.replace_one({"_id": workload_id}, order or {}, upsert=True)

    def _hear_of_deletion(self, pool_id: int) -> None:
        """Let a node report that a workload is gone, if it was ordered to; some of the removals get lost."""
        expected = self.pools[pool_id]
        ordered = list(self._explorer.orders.find({"_id": {"$in": list(expected.leaving)}}, {"_id": 1}))
        if not ordered:
            return
        workload_id = self._chance.choice(ordered)["_id"]
        kind = expected.leaving.pop(workload_id)
        if self._chance.random() >= LOST:
            self._explorer.rewrite(
                pool_id, lambda pool: remove_workload(pool, workload_id, kind.rates, now=int(time.time()))
            )
        self._explorer.orders.delete_one({"_id": workload_id})
        self._explorer.workloads.update_one({"_id": workload_id}, {"$set": {"next_action": 6}})

    def wrong(self) -> list[str]:
        """Say what is not as it must be."""
        return [line for pool_id, expected in self.pools.items() for line in self._wrong_with(pool_id, expected)]

    def _wrong_with(self, pool_id: int, expected: Expected) -> list[str]:
        pool = self._explorer.pools.find_one({"_id": pool_id}) or {}
        counting = expected.running | expected.leaving
        wrong = []
        if sorted(pool["active_workload_ids"]) != sorted(counting):
            wrong.append(f"{pool_id}: lists {sorted(pool['active_workload_ids'])}, not {sorted(counting)}")
        for resource, (left, active) in RESOURCES.items():
            rate = sum(getattr(kind.rates, resource) for kind in counting.values())
            bought = expected.bought * getattr(TOP_UP, resource)
            if pool[active] != pytest.approx(rate, abs=1e-6):
                wrong.append(f"{pool_id}: {active} is {pool[active]}, not {rate}")
            if not bought - MOST_DRAINED <= pool[left] <= bought:
                wrong.append(f"{pool_id}: {left} is {pool[left]} of {bought} bought")
        predicted = dict(pool)
        recompute(predicted)
        if pool["empty_at"] != predicted["empty_at"]:
            wrong.append(f"{pool_id}: empty_at is {pool['empty_at']}, not {predicted['empty_at']}")
        for workload_id in expected.leaving:
            order = self._explorer.bytes_of(self._explorer.orders, workload_id)
            if order is None or order != self._explorer.bytes_of(self._explorer.workloads, workload_id):
                wrong.append(f"{workload_id}: its order is {order!r}")
        return wrong


class Repairs(LogOnly):
    """Counts what is repaired."""

    def __init__(self) -> None:
        self.repaired: Counter[str] = Counter()

    def drift_repaired(self, *, pool_id: int, dropped: Sequence[int], excess: Mapping[str, float]) -> None:  # noqa: ARG002 - all pools are alike
        self.repaired["pools"] += 1

    def order_restored(self, workload_id: int, *, pool_id: int) -> None:  # noqa: ARG002 - as above
        self.repaired["orders"] += 1

    def workload_documents_missing(self, *, pools: int, workloads: int, pool_ids: Sequence[int]) -> None:
        raise AssertionError(f"{pools} pools lack {workloads} workloads: {pool_ids}")

    def missing_workloads_counted(self, pools: int | None) -> None:
        assert not pools


@pytest_asyncio.fixture
async def store(mongo_uri: str, database_name: str) -> AsyncIterator[ReconciliationStore]:
    database = connect(uri=mongo_uri, name=database_name)
    yield ReconciliationStore(database=database, actor=ME)
    database.close()


def held_back(mongo: Client, explorer: Explorer) -> AbstractContextManager[None]:
    """Delay what the daemon writes to pools, so that the explorer often comes between its reading and its writing."""
    namespace = explorer.pools.full_name
    return fail_point(mongo, "update", mode="alwaysOn", blockConnection=True, blockTimeMS=50, namespace=namespace)


async def test_nothing_of_the_explorers_is_undone_and_everything_it_loses_is_repaired(
    explorer: Explorer, store: ReconciliationStore, mongo: Client
) -> None:
    repairs = Repairs()
    shared: dict[str, Any] = {
        "findings": Findings(on_overdue=print, on_unreadable=print, observer=repairs),
        "settings": Reconcile(pools_per_second=0, confirm_seconds=CONFIRM_SECONDS),
    }
    clock = SystemClock()
    throttle = Throttle(clock=clock, settings=Expiry())
    scans: list[Scan] = [
        OrderScan(store=store.orders, throttle=throttle, clock=clock, **shared),
        PoolScan(store=store, settled_through=lambda: None, clock=clock, **shared),
    ]
    reconciler = Reconciler(scans=scans, gate=Gates(), stop=asyncio.Event(), **shared)
    writers = [Writer(explorer, seed=seed) for seed in range(WRITERS)]
    stop = threading.Event()
    with ThreadPoolExecutor(WRITERS) as threads, held_back(mongo, explorer):
        loop = asyncio.get_running_loop()
        writing = [loop.run_in_executor(threads, writer.write_until, stop) for writer in writers]
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while any(repairs.repaired[kind] < ENOUGH for kind in ("pools", "orders")):
                    await reconciler.run_round()
        finally:
            stop.set()
        await asyncio.gather(*writing)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_SECONDS):
            while any(writer.wrong() for writer in writers):
                await reconciler.run_round()

    assert [line for writer in writers for line in writer.wrong()] == []
    ordered = [order["_id"] for order in explorer.orders.find({}, {"_id": 1})]
    assert set(explorer.next_actions(ordered)) == {4}
