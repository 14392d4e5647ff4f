"""The two walks of the reconciler: over the orders to delete, and over the pools.

Each mends only what it has found twice, some time apart, and unchanged. The explorer changes a workload, its order
and its pool one after the other, and at a single look any of them may be ahead of the others.
"""

import math
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Final, Protocol

from pool_daemon.clock import Clock
from pool_daemon.errors import NotFiniteError, StoreError, StoreUnavailableError, UnreadableDocumentError
from pool_daemon.scheduling.findings import Findings
from pool_daemon.scheduling.suspicions import Suspicions
from pool_daemon.settings.sections import Reconcile
from pool_daemon.store.cases import Unreadable
from pool_daemon.store.reconciliation import BEGINNING, Drifted, Reconciliation
from pool_daemon.store.vanished_orders import VanishedOrders

PAGE: Final = 1000
"""Pools a page: enough that the trips to the database do not show, 60 ms of work in slices of one."""

ALWAYS_CREDIBLE: Final = 100
"""So many pools may have drifted whatever share of all they are."""


class Walk(Protocol):
    """A way past everything of a kind, some at a time."""

    def pages(self) -> AsyncGenerator[int, None]:
        """Go on, and yield after each page how many documents it held, and 0 after each write.

        Left early or failed, the walk is continued by another call. Raises StoreError.
        """


class OrderWalk:
    """Past the workloads to be deleted; what has no order at two looks gets it back. Continued, it begins anew."""

    def __init__(self, *, store: VanishedOrders, findings: Findings, clock: Clock, settings: Reconcile) -> None:
        self._store = store
        self._findings = findings
        self._suspicions: Suspicions[int] = Suspicions(clock=clock, settings=settings)

    async def pages(self) -> AsyncGenerator[int, None]:
        """Look at all of them, and put orders back on the way."""
        async with aclosing(self._store.look()) as looks:
            async for missing in looks:
                for workload_id in missing.workload_ids:
                    if self._suspicions.confirmed(workload_id):
                        await self._put_back(workload_id)
                        yield 0
                yield missing.looked_at
        self._suspicions.end_walk()

    async def _put_back(self, workload_id: int) -> None:
        try:
            restored = await self._store.put_back(workload_id)
        except StoreUnavailableError:
            raise
        except UnreadableDocumentError as error:
            self._findings.unreadable(Unreadable("workload", workload_id, str(error)))
        except StoreError as error:
            self._findings.not_mended(error, workload=workload_id)
        else:
            if restored is not None:
                self._findings.restored(restored)


class PoolWalk:
    """Past the pools, by their ids; what has drifted at two looks is mended. Continued, it goes on where it was.

    If more pools drift than is credible, none is mended: their workloads are missing rather than gone. `looked_past`
    tells up to which unix second whatever ran empty must have been settled: what ran empty later, or everything if
    that is None, is left to the pass that is about to.
    """

    def __init__(
        self,
        *,
        store: Reconciliation,
        findings: Findings,
        clock: Clock,
        settings: Reconcile,
        looked_past: Callable[[], int | None],
    ) -> None:
        self._store = store
        self._findings = findings
        self._clock = clock
        self._settings = settings
        self._looked_past = looked_past
        self._suspicions: Suspicions[int] = Suspicions(clock=clock, settings=settings)
        self._after: Any = BEGINNING
        self._pools = self._drifted = 0

    async def pages(self) -> AsyncGenerator[int, None]:
        """Look at all pools from where the walk is, and mend on the way."""
        while True:
            limit = min(PAGE, self._settings.pools_per_second or PAGE)
            page = await self._store.look(after=self._after, limit=limit, overdue_at=self._looked_past())
            if not page.pools:
                break
            self._pools += page.pools
            self._drifted += len(page.drifted)
            for drifted in page.drifted:
                if self._suspicions.confirmed(drifted.pool.pool_id, drifted.drift) and self._is_credible():
                    await self._mend(drifted)
                    yield 0
            self._findings.page(page)
            self._after = page.last_id
            yield page.pools
        self._end()

    async def _mend(self, drifted: Drifted) -> None:
        """Mend a pool; one that has changed meanwhile is left for the next walk."""
        try:
            if await self._store.mend(drifted, now=self._now()):
                self._findings.mended(drifted)
        except StoreUnavailableError:
            raise
        except (StoreError, NotFiniteError) as error:
            self._findings.not_mended(error, pool=drifted.pool.pool_id)

    def _is_credible(self) -> bool:
        return self._drifted <= max(ALWAYS_CREDIBLE, self._settings.hold_percent / 100 * self._pools)

    def _end(self) -> None:
        if self._is_credible():
            self._suspicions.end_walk()
        else:
            self._suspicions.clear()
            self._findings.held(pools=self._pools, drifted=self._drifted)
        self._after = BEGINNING
        self._pools = self._drifted = 0

    def _now(self) -> int:
        return math.floor(self._clock.now())
