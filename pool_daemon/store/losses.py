"""What the pools that are due would lose if they were settled now: who is asked before the brake decides."""

from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from pool_daemon.capacity.pool import NEVER
from pool_daemon.capacity.verdict import overdue_since
from pool_daemon.store.cases import CaseReader, Limits, Settlement
from pool_daemon.store.client import Database
from pool_daemon.store.horizon import Horizon
from pool_daemon.store.pools import PoolStore
from pool_daemon.store.workloads import WorkloadStore

BATCH_POOLS: Final = 250
"""Pools decided on at once, with all their deployed workloads."""

BATCH_WORKLOADS: Final = 2000
"""Workloads read at once: some four megabytes."""


NO_BYTES: Final = 2**62
"""No bound on what would be copied, for nothing is."""


@dataclass(frozen=True, slots=True)
class Loss:
    """A pool that would lose workloads; `empty_at` is what it says, `overdue_since` when the first had to go."""

    pool_id: int
    empty_at: int
    overdue_since: int


class LossReader:
    """Looks at pools that are due without touching them, in batches, however many there are.

    A pool whose workloads are decommissioned already, are free, or use only what still lasts, loses nothing: it may
    stay due for years. Every method raises StoreUnavailableError when MongoDB is away.
    """

    def __init__(self, *, database: Database, batch_workloads: int = BATCH_WORKLOADS) -> None:
        self._pools = PoolStore(database=database)
        self._horizon = Horizon(database=database)
        self._workloads = WorkloadStore(database=database)
        self._cases = CaseReader(database=database)
        self._batch_workloads = batch_workloads

    async def count_due(self, *, after: int | None, until: int) -> int:
        """Count the pools that run empty in (after, until], whether they have anything to lose or not."""
        return await self._horizon.count(after=after, until=until, most=NEVER)

    async def count_draining(self, *, after: int, most: int) -> int:
        """Count, up to `most`, the pools that something drains and that run empty after that unix second."""
        return await self._horizon.count(after=after, until=NEVER - 1, most=most)

    async def due(self, *, after: int | None, until: int) -> AsyncGenerator[list[int], None]:
        """Stream the ids of the pools that run empty in (after, until], longest due first."""
        async with aclosing(self._pools.due(after=after, until=until)) as pages:
            async for page in pages:
                yield [pool.pool_id for pool in page.pools]

    async def of(self, pool_ids: Sequence[int], *, now: int) -> list[Loss]:
        """Return those of the pools that would lose something if they were settled at the unix second `now`."""
        deploying = sorted(await self._workloads.deploying(pool_ids))
        losses = []
        for start in range(0, len(deploying), BATCH_POOLS):
            losses += await self._decided(deploying[start : start + BATCH_POOLS], now)
        return losses

    async def _decided(self, pool_ids: Sequence[int], now: int) -> list[Loss]:
        found: dict[int, list[Loss]] = defaultdict(list)
        async with aclosing(self._settlements(pool_ids, now)) as settlements:
            async for settlement in settlements:
                for case in settlement.cases:
                    if case.gone:
                        pool = case.as_read
                        loss = Loss(pool.pool_id, pool.empty_at, overdue_since(pool, case.gone))
                        found[pool.pool_id].append(loss)
        return [min(losses, key=lambda loss: loss.overdue_since) for losses in found.values()]

    async def _settlements(self, pool_ids: Sequence[int], now: int) -> AsyncGenerator[Settlement, None]:
        """Decide on pools in portions, those left over in later ones."""
        waiting: list[tuple[Sequence[int], Any]] = [(pool_ids, None)]
        while waiting:
            ids, after = waiting.pop()
            limits = Limits(self._batch_workloads, NO_BYTES)
            settlement = await self._cases.read(ids, now=now, due_by=now, limits=limits, after=after, session=None)
            yield settlement
            if settlement.left_over:
                waiting.append((settlement.left_over, None))
            if settlement.rest is not None:
                waiting.append(([settlement.rest.pool_id], settlement.rest.after))
