"""What reconciliation reads and mends, without a database: pages of pools and of orders that a test makes up."""

from collections.abc import AsyncGenerator, Iterable
from dataclasses import replace
from typing import Any

from pool_daemon.capacity.cloud_units import CloudUnits
from pool_daemon.capacity.drift import Drift
from pool_daemon.capacity.pool import new_pool
from pool_daemon.store.reconciliation import Drifted, Page, Reconciliation
from pool_daemon.store.vanished_orders import Missing, Restored, VanishedOrders

POOL = new_pool(1, 7, 0, None, now=0)


class BooksInMemory(Reconciliation):
    """Pools 1 to `pools`, of which those in `drift` have drifted by so much.

    `overdue` maps pools to the second in which they ran empty. `looks` are the ids behind which was looked. An error
    in `failures` is raised by the next look, one in `refusals` by mending that pool; None there: it has changed.
    """

    def __init__(self, *, pools: int = 0) -> None:
        self.orders: OrdersInMemory = OrdersInMemory()
        self.pools = pools
        self.drift: dict[int, float] = {}
        self.overdue: dict[int, int] = {}
        self.refusals: dict[int, Exception | None] = {}
        self.mended: list[int] = []
        self.looks: list[int] = []
        self.failures: list[Exception] = []

    async def look(self, *, after: Any, limit: int, overdue_at: int | None) -> Page:
        if self.failures:
            raise self.failures.pop()
        first = int(max(after, 0))
        self.looks.append(first)
        pool_ids = range(first + 1, min(first + limit, self.pools) + 1)
        drifted = [_drifted(pool_id, self.drift[pool_id]) for pool_id in pool_ids if pool_id in self.drift]
        overdue = [
            pool_id
            for pool_id in pool_ids
            if overdue_at is not None and self.overdue.get(pool_id, overdue_at + 1) <= overdue_at
        ]
        return Page(len(pool_ids), pool_ids[-1] if pool_ids else after, drifted, overdue)

    async def mend(self, drifted: Drifted, *, now: int) -> bool:  # noqa: ARG002 - no time passes for these pools
        pool_id = drifted.pool.pool_id
        if pool_id in self.refusals:
            if error := self.refusals[pool_id]:
                raise error
            return False
        del self.drift[pool_id]
        self.mended.append(pool_id)
        return True


class OrdersInMemory(VanishedOrders):
    """The workloads in `missing` have no order."""

    def __init__(self) -> None:
        self.missing: list[int] = []
        self.refusals: dict[int, Exception | None] = {}
        self.failures: list[Exception] = []
        self.restored: list[int] = []

    async def look(self) -> AsyncGenerator[Missing, None]:
        if self.failures:
            raise self.failures.pop()
        if self.missing:
            yield Missing(len(self.missing), list(self.missing))

    async def put_back(self, workload_id: int) -> Restored | None:
        if workload_id in self.refusals:
            if error := self.refusals[workload_id]:
                raise error
            return None
        self.missing.remove(workload_id)
        self.restored.append(workload_id)
        return Restored(workload_id, 1)


class Ears:
    """Hears what is told, and keeps it."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def drift_mended(self, kind: str, *, pool_id: int) -> None:
        self.heard.append((kind, pool_id))

    def drift_held(self, *, pools: int, drifted: int) -> None:
        self.heard.append(("held", pools, drifted))

    def orders_put_back(self, count: int) -> None:
        self.heard.append(("orders", count))

    def overdue(self, pool_id: int) -> None:
        self.heard.append(("overdue", pool_id))


def drifts(pool_ids: Iterable[int], excess: float = 1.0) -> dict[int, float]:
    return dict.fromkeys(pool_ids, excess)


def _drifted(pool_id: int, excess: float) -> Drifted:
    pool = replace(POOL, pool_id=pool_id, active_cu=excess)
    return Drifted(pool, Drift((), CloudUnits(excess, 0.0, 0.0), (), CloudUnits(0.0, 0.0, 0.0)))
