"""The two scans of the reconciliation: over the workloads to be deleted, and over the pools.

Each repairs only what it has found twice, some time apart, and unchanged. The explorer changes a workload, its order
and its pool one after the other, and at a single look any of them may be ahead of the others.
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
from pool_daemon.store.rooms import Comparison, DeleteOrders

PAGE: Final = 1000
"""Pools a page: enough that the trips to the database do not show, 60 ms of work in slices of two."""

REMEMBERED: Final = 20_000
"""Findings kept until they are confirmed, a few megabytes. What exceeds that waits until others have been confirmed or
forgotten; were old ones dropped for new ones instead, none would ever be found a second time."""

RESTORE_SECONDS: Final = 60.0
"""How long one scan restores orders, which may have to wait for each other; the pools have their turn then."""

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Step:
    """A part of a scan that is done: so many documents were read, and the next part has to wait so long at least."""

    documents: int = 0
    wait_seconds: float = 0.0


class Scan(Protocol):
    """A way past all documents of a kind, some at a time."""

    def steps(self) -> AsyncGenerator[Step, None]:
        """Go on, and yield after each page, and before and after each write.

        Left early or failed, the scan is continued by another call. Raises StoreError.
        """


@dataclass(slots=True)
class _Finding:
    fingerprint: int
    since: float
    scan: int


class Confirmations(Generic[K]):
    """Remembers by a key what was found and when, until the same is found again `confirm_seconds` later."""

    def __init__(self, *, clock: Clock, settings: Reconcile) -> None:
        self._clock = clock
        self._settings = settings
        self._known: dict[K, _Finding] = {}
        self._scan = 0

    def confirmed(self, key: K, finding: Hashable = None) -> bool:
        """Remember a finding; return whether the same was there long enough ago, and in each scan since.

        What has changed in between counts as found for the first time.
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
        """Forget what was found, for it is dealt with now."""
        self._known.pop(key, None)

    def end_scan(self) -> None:
        """Forget what this scan has not found again."""
        self._known = {key: known for key, known in self._known.items() if known.scan == self._scan}
        self._scan += 1


class OrderScan:
    """Past the workloads to be deleted; an order that is missing at two looks is restored. Continued, it begins anew.

    Restored orders count towards the rate at which orders leave, which `throttle` keeps for the passes, too.
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
        """Look at all of them, then restore what is confirmed; what does not get its turn is restored next time."""
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
            self._throttle.record(1)  # before the write, which may take long: a pass is not to take the same moment
            self._confirmations.forget(workload_id)
            await self._restore(workload_id)
            yield Step()

    async def _restore(self, workload_id: int) -> None:
        try:
            restored = await self._store.restore(workload_id)
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
    """Past the pools, by their ids; what has drifted at two looks is repaired. Continued, it goes on where it was.

    `looked_past` returns the unix second by which every pool that ran empty must have been settled. Pools that ran
    empty later are left to the next pass, and so are all if that is None.
    """

    def __init__(
        self,
        *,
        store: Comparison,
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
        self._confirmations: Confirmations[int] = Confirmations(clock=clock, settings=settings)
        self._after: Any = BEGINNING

    async def steps(self) -> AsyncGenerator[Step, None]:
        """Compare all pools from where the scan is, and repair on the way."""
        while True:
            limit = min(PAGE, self._settings.pools_per_second or PAGE)
            page = await self._store.compare(after=self._after, limit=limit, overdue_at=self._looked_past())
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
        """Repair a pool; one that has changed meanwhile is left for the next scan."""
        try:
            if await self._store.repair(drifted, now=math.floor(self._clock.now())):
                self._findings.repaired(drifted)
        except StoreUnavailableError:
            raise
        except (StoreError, NotFiniteError) as error:
            self._findings.repair_failed(error, pool=drifted.pool_id)
