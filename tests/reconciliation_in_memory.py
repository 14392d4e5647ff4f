"""What the reconciliation reads and repairs, without a database: pages of pools and orders that a test makes up."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from virtual_time import ProcessClock

from pool_daemon.capacity.drift import Drift
from pool_daemon.capacity.pool import new_pool
from pool_daemon.capacity.workload import CloudUnits
from pool_daemon.store.missing_orders import OwedOrders, RestoredOrder
from pool_daemon.store.reconciliation import DriftedPool, ListedPool, Page
from pool_daemon.telemetry.observer import Observer

POOL = new_pool(1, 7, 0, None, now=0)


class ReconciliationInMemory:
    """Pools 1 to `pools`, of which those in `drift` have drifted by so much.

    `overdue` maps pools to the second in which they ran empty, `missing` to how many of their workloads have no
    document. `looks` are the ids behind which was looked; a look takes `look_seconds`. An error in `failures` is
    raised by the next look, one in `refusals` by repairing that pool; None there: it has changed.
    """

    def __init__(self, *, pools: int = 0) -> None:
        self.orders: OrdersInMemory = OrdersInMemory()
        self.pools = pools
        self.drift: dict[int, float] = {}
        self.overdue: dict[int, int] = {}
        self.missing: dict[int, int] = {}
        self.refusals: dict[int, Exception | None] = {}
        self.repaired: list[int] = []
        self.looks: list[int] = []
        self.look_seconds = 0.0
        self.failures: list[Exception] = []

    async def compare(self, *, after: Any, limit: int, overdue_at: int | None) -> Page:
        if self.failures:
            raise self.failures.pop()
        if self.look_seconds:
            await asyncio.sleep(self.look_seconds)
        first = int(max(after, 0))
        self.looks.append(first)
        pool_ids = range(first + 1, min(first + limit, self.pools) + 1)
        drifted = [_drifted(pool_id, self.drift[pool_id]) for pool_id in pool_ids if pool_id in self.drift]
        missing = {pool_id: self.missing[pool_id] for pool_id in pool_ids if pool_id in self.missing}
        overdue = [
            pool_id
            for pool_id in pool_ids
            if overdue_at is not None and self.overdue.get(pool_id, overdue_at + 1) <= overdue_at
        ]
        return Page(len(pool_ids), pool_ids[-1] if pool_ids else after, drifted, missing, overdue)

    async def repair(self, drifted: DriftedPool, *, now: int) -> bool:  # noqa: ARG002 - no time passes for these pools
        pool_id = drifted.pool_id
        if pool_id in self.refusals:
            if error := self.refusals[pool_id]:
                raise error
            return False
        del self.drift[pool_id]
        self.repaired.append(pool_id)
        return True


class OrdersInMemory:
    """The workloads in `missing` are owed an order; `restored_at` are the loop's times at which one was restored."""

    def __init__(self) -> None:
        self.missing: list[int] = []
        self.refusals: dict[int, Exception | None] = {}
        self.failures: list[Exception] = []
        self.restored: list[int] = []
        self.restored_at: list[float] = []

    async def scan(self) -> AsyncGenerator[OwedOrders, None]:
        if self.failures:
            raise self.failures.pop()
        if self.missing:
            yield OwedOrders(len(self.missing), list(self.missing))

    async def restore(self, workload_id: int, *, now: float) -> RestoredOrder | None:
        assert now > 0
        if workload_id in self.refusals:
            if error := self.refusals[workload_id]:
                raise error
            return None
        self.missing.remove(workload_id)
        self.restored.append(workload_id)
        self.restored_at.append(asyncio.get_running_loop().time())
        return RestoredOrder(workload_id, 1)


class RecordingObserver(Observer):
    """Keeps what it is told, too."""

    def __init__(self) -> None:
        super().__init__(identity="me", version="0", clock=ProcessClock())
        self.told: list[Any] = []

    @property
    def missing(self) -> int | None:
        return self.status.snapshot.pools_missing_workloads

    def drift_repaired(self, *, pool_id: int, dropped: Sequence[int], excess: Mapping[str, float]) -> None:
        super().drift_repaired(pool_id=pool_id, dropped=dropped, excess=excess)
        self.told.append(("workload_ids" if dropped else "rates", pool_id))

    def order_restored(self, workload_id: int, *, pool_id: int) -> None:
        super().order_restored(workload_id, pool_id=pool_id)
        self.told.append(("orders", 1))

    def overdue(self, pool_id: int) -> None:
        self.told.append(("overdue", pool_id))


def drifts(pool_ids: Iterable[int], excess: float = 1.0) -> dict[int, float]:
    return dict.fromkeys(pool_ids, excess)


def _drifted(pool_id: int, excess: float) -> DriftedPool:
    pool = replace(POOL, pool_id=pool_id, active_cu=excess)
    return DriftedPool(ListedPool(pool, 0), Drift((), CloudUnits(excess, 0.0, 0.0), CloudUnits(0.0, 0.0, 0.0)))
