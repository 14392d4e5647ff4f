"""The two scans of the reconciliation: over the workloads to be deleted, and over the pools.

A scan repairs only what it has found twice, some time apart, and unchanged. The explorer changes a workload, its order
and its pool one after the other, so in a single reading any of them may be ahead of the others.
"""

import math
from collections.abc import AsyncGenerator, Callable, Hashable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

from pool_daemon.clock import Clock
from pool_daemon.errors import NotFiniteError, StoreError, StoreUnavailableError, UnreadableDocumentError
from pool_daemon.expiry.throttle import Throttle
from pool_daemon.reconcile.findings import Findings
from pool_daemon.settings.sections import Reconcile
from pool_daemon.store.cases import Unreadable
from pool_daemon.store.reconciliation import BEGINNING, DriftedPool
from pool_daemon.store.store import DeleteOrders, PoolComparisons

PAGE: Final = 1000
"""Pools a page: enough that round trips to the database are negligible; 60 ms of work in slices of two."""

REMEMBERED: Final = 20_000
"""Findings kept until they are confirmed, a few megabytes. Further ones wait until others have been confirmed or
forgotten: if new ones replaced old ones instead, none would ever be found a second time."""

RESTORE_SECONDS: Final = 60.0
"""Time in which one scan restores orders, which the throttle may delay; then it is the pools' turn."""

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Step:
    """A part of a scan: the number of documents read, and the shortest wait before the next part."""

    documents: int = 0
    wait_seconds: float = 0.0


class Scan(Protocol):
    """A scan of all documents of a kind, in parts."""

    def steps(self) -> AsyncGenerator[Step, None]:
        """Continue the scan, and yield after each page, and before and after each write.

        If it is left early or fails, another call continues the scan. Raises StoreError.
        """


@dataclass(slots=True)
class _Finding:
    fingerprint: int
    since: float
    scan: int


class Confirmations(Generic[K]):
    """Remembers findings by key until the same one is found again `confirm_seconds` later."""

    def __init__(self, *, clock: Clock, settings: Reconcile) -> None:
        self._clock = clock
        self._settings = settings
        self._known: dict[K, _Finding] = {}
        self._scan = 0

    def confirmed(self, key: K, finding: Hashable = None) -> bool:
        """Record a finding; return whether it was first found long enough ago, and again in each scan since.

        A finding that has changed in between counts as new.
        """
        now = self._clock.monotonic()
        known = self._known.get(key)
        if known is None or known.fingerprint != hash(finding):
            if known is not None or len(self._known) < REMEMBERED:
                self._known[key] = _Finding(hash(finding), now, self._scan)
            return False
        known.scan = self._scan
        return now - known.since >= self._settings.confirm_seconds

    def forget(self, key: K) -> None:
        """Forget a finding: it is being repaired."""
        self._known.pop(key, None)

    def end_scan(self) -> None:
        """Forget the findings that this scan has not found again."""
        self._known = {key: known for key, known in self._known.items() if known.scan == self._scan}
        self._scan += 1


class OrderScan:
    """Scans the workloads to be deleted, and restores orders that were missing twice. Each call begins anew.

    Restored orders count towards the rate at which orders are written, which `throttle` bounds for the passes, too.
    """

    def __init__(
        self, *, store: DeleteOrders, findings: Findings, throttle: Throttle, clock: Clock, settings: Reconcile
    ) -> None:
        self._store = store
        self._findings = findings
        self._throttle = throttle
        self._clock = clock
        self._confirmations: Confirmations[int] = Confirmations(clock=clock, settings=settings)

    async def steps(self) -> AsyncGenerator[Step, None]:
        """Read all of them, then restore the confirmed missing orders; those not reached wait for the next scan."""
        confirmed: list[int] = []
        async with aclosing(self._store.scan()) as pages:
            async for owed in pages:
                confirmed += [each for each in owed.workload_ids if self._confirmations.confirmed(each)]
                yield Step(owed.looked_at)
        self._confirmations.end_scan()
        until = self._clock.monotonic() + RESTORE_SECONDS
        for workload_id in confirmed:
            while (wait_seconds := self._throttle.wait_seconds()) > 0:
                yield Step(wait_seconds=wait_seconds)
            if self._clock.monotonic() >= until:
                break
            self._throttle.record(1)  # before the write, which may take long: no pass may use the same allowance
            self._confirmations.forget(workload_id)
            await self._restore(workload_id)
            yield Step()

    async def _restore(self, workload_id: int) -> None:
        try:
            restored = await self._store.restore(workload_id, now=self._clock.now())
        except StoreUnavailableError:
            raise
        except UnreadableDocumentError as error:
            self._findings.unreadable(Unreadable("workload", workload_id, str(error)))
        except StoreError as error:
            self._findings.repair_failed(error, workload=workload_id)
        else:
            if restored is not None:
                self._findings.restored(restored)


class PoolScan:
    """Scans the pools by id, and repairs drift that was found twice. Each call continues at the last position.

    `settled_through` returns the unix second through which every pool that ran empty must have been settled. Pools that
    ran empty later are left to the next pass; if it returns None, all are.
    """

    def __init__(
        self,
        *,
        store: PoolComparisons,
        findings: Findings,
        clock: Clock,
        settings: Reconcile,
        settled_through: Callable[[], int | None],
    ) -> None:
        self._store = store
        self._findings = findings
        self._clock = clock
        self._settings = settings
        self._settled_through = settled_through
        self._confirmations: Confirmations[int] = Confirmations(clock=clock, settings=settings)
        self._after: Any = BEGINNING

    async def steps(self) -> AsyncGenerator[Step, None]:
        """Compare all pools from the current position, and repair confirmed drift on the way."""
        while True:
            limit = min(PAGE, self._settings.pools_per_second or PAGE)
            page = await self._store.compare(after=self._after, limit=limit, overdue_at=self._settled_through())
            if not page.pools:
                break
            for drifted in page.drifted:
                if self._confirmations.confirmed(drifted.pool_id, drifted.drift):
                    yield Step()
                    self._confirmations.forget(drifted.pool_id)
                    await self._repair(drifted)
            self._findings.page(page)
            self._after = page.last_id
            yield Step(page.pools)
        self._confirmations.end_scan()
        self._findings.all_pools_compared()
        self._after = BEGINNING

    async def _repair(self, drifted: DriftedPool) -> None:
        """Repair a pool; one that has changed meanwhile is left to the next scan."""
        try:
            if await self._store.repair(drifted, now=math.floor(self._clock.now())):
                self._findings.repaired(drifted)
        except StoreUnavailableError:
            raise
        except (StoreError, NotFiniteError) as error:
            self._findings.repair_failed(error, pool=drifted.pool_id)
