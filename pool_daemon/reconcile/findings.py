"""The reports of the reconciliation: each repair, each round, and damage that it leaves alone."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from pool_daemon import events
from pool_daemon.errors import StoreError
from pool_daemon.guards.gate import Closed
from pool_daemon.store.cases import Unreadable
from pool_daemon.store.error_mapping import one_line
from pool_daemon.store.missing_orders import RestoredOrder
from pool_daemon.store.reconciliation import DriftedPool, Page

NAMED: Final = 10
"""Workloads, or pools, that one log line names; there may be thousands."""


class ReconciliationObserver(events.Teller, Protocol):
    """The receiver of findings and repairs."""

    def drift_repaired(self, *, pool_id: int, dropped: Sequence[int], excess: Mapping[str, float]) -> None:
        """Record that a pool was repaired, by the workloads that it listed wrongly and the rates that were too high."""

    def order_restored(self, workload_id: int, *, pool_id: int) -> None:
        """Record that a missing delete order was restored."""

    def workload_documents_missing(self, *, pools: int, workloads: int, pool_ids: Sequence[int]) -> None:
        """Record that pools list workloads without a document, `pool_ids` among them."""

    def missing_workloads_counted(self, pools: int | None) -> None:
        """Record how many pools list workloads without a document; None if that is not known now."""


class Findings:
    """Turns what the scans find into events and calls.

    `on_overdue` is called with the id of each pool that should have been settled by now. `on_unreadable` is called in
    each scan with each document that is left alone; the receiver logs each once.
    """

    def __init__(
        self,
        *,
        on_overdue: Callable[[int], None],
        on_unreadable: Callable[[Unreadable], None],
        observer: ReconciliationObserver,
    ) -> None:
        self._on_overdue = on_overdue
        self._observer = observer
        self._tally: Counter[str] = Counter()
        self._missing = MissingDocuments(observer=observer)
        self.unreadable = on_unreadable

    def page(self, page: Page) -> None:
        """Record the findings on a page, apart from its drift."""
        self._tally["pools"] += page.pools
        self._tally["overdue"] += len(page.overdue)
        self._missing.found(page.missing)
        for pool_id in page.overdue:
            self._on_overdue(pool_id)
        for unreadable in page.unreadable:
            self.unreadable(unreadable)

    def repaired(self, drifted: DriftedPool) -> None:
        """Record that a pool was repaired."""
        drift = drifted.drift
        self._tally["drift"] += 1
        excess = {name: rate for name, rate in drift.excess._asdict().items() if rate}
        self._observer.drift_repaired(pool_id=drifted.pool_id, dropped=drift.dropped, excess=excess)

    def restored(self, order: RestoredOrder) -> None:
        """Record that a delete order was restored."""
        self._tally["orders"] += 1
        self._observer.order_restored(order.workload_id, pool_id=order.pool_id)

    def repair_failed(self, reason: Exception, **what: int) -> None:
        """Record that one repair failed by itself; the next scans retry it."""
        self._observer.tell(events.REPAIR_FAILED, **what, reason=one_line(reason))

    def failed(self, error: StoreError, *, retry_seconds: float) -> None:
        """Record that a scan failed; it is continued."""
        self._observer.tell(events.RECONCILIATION_FAILED, reason=str(error), retry_seconds=round(retry_seconds, 3))

    def all_pools_compared(self) -> None:
        """Record the end of a scan of the pools."""
        self._missing.end_scan()

    def paused(self, reason: Closed) -> None:
        """Record a pause: another daemon may take over, so this daemon's counts are no longer valid."""
        self._observer.tell(events.RECONCILIATION_PAUSED, reason=reason)
        self._observer.missing_workloads_counted(None)

    def completed(self, *, active_seconds: float) -> None:
        """Record the end of a round of scans; it is logged if anything was repaired."""
        tally, self._tally = self._tally, Counter()
        self._observer.tell(
            events.RECONCILIATION_COMPLETED if tally["drift"] or tally["orders"] else events.NOTHING_TO_REPAIR,
            pools=tally["pools"],
            active_seconds=round(active_seconds, 3),
            drift=tally["drift"],
            orders=tally["orders"],
            overdue=tally["overdue"],
        )


class MissingDocuments:
    """Counts the pools that list workloads without a document, and warns once: again only if they have doubled."""

    def __init__(self, *, observer: ReconciliationObserver) -> None:
        self._observer = observer
        self._pools = self._workloads = 0
        self._named: list[int] = []
        self._told = 0

    def found(self, missing: dict[int, int]) -> None:
        """Count the pools of a page, mapped to how many of their workloads have no document."""
        if not missing:
            return
        self._pools += len(missing)
        self._workloads += sum(missing.values())
        self._named += list(missing)[: NAMED - len(self._named)]
        if self._pools > 2 * self._told:
            self._told = self._pools
            self._observer.workload_documents_missing(
                pools=self._pools, workloads=self._workloads, pool_ids=self._named
            )

    def end_scan(self) -> None:
        """Record what the scan has counted, and reset the count."""
        self._observer.missing_workloads_counted(self._pools)
        if self._told and not self._pools:
            self._observer.tell(events.WORKLOAD_DOCUMENTS_COMPLETE)
        self._told = min(self._told, self._pools)
        self._pools = self._workloads = 0
        self._named = []
