"""The log lines of the reconciliation: one for each repair, one for each round, one for damage it leaves alone."""

from collections import Counter
from collections.abc import Callable
from typing import Final, Protocol

import structlog

from pool_daemon.store.cases import Unreadable
from pool_daemon.store.error_mapping import one_line
from pool_daemon.store.missing_orders import RestoredOrder
from pool_daemon.store.reconciliation import DriftedPool, Page

NAMED: Final = 10
"""Workloads, or pools, that one log line names; there may be thousands."""

log = structlog.get_logger("pool_daemon.reconciler")


class ReconciliationMetrics(Protocol):
    """The receiver of the reconciliation's counts."""

    def drift_repaired(self, kind: str, *, pool_id: int) -> None:
        """Count a repaired pool; `kind` is "workload_ids" if ids were dropped, else "rates"."""

    def orders_restored(self, count: int) -> None:
        """Count delete orders that were restored."""

    def missing_workloads_counted(self, pools: int | None) -> None:
        """Record how many pools list workloads without a document; None if that is not known now."""


class Findings:
    """Turns what the scans find into log lines, counts and calls.

    `on_overdue` is called with the id of each pool that should have been settled by now. `on_unreadable` is called in
    each scan with each document that is left alone; the receiver logs each once.
    """

    def __init__(
        self,
        *,
        on_overdue: Callable[[int], None],
        on_unreadable: Callable[[Unreadable], None],
        metrics: ReconciliationMetrics,
    ) -> None:
        self._on_overdue = on_overdue
        self._metrics = metrics
        self._tally: Counter[str] = Counter()
        self._missing = MissingDocuments(metrics=metrics)
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
        self._metrics.drift_repaired("workload_ids" if drift.dropped else "rates", pool_id=drifted.pool_id)
        log.info(
            "drift_repaired",
            pool=drifted.pool_id,
            dropped=len(drift.dropped),
            workloads=list(drift.dropped[:NAMED]),
            excess={name: rate for name, rate in drift.excess._asdict().items() if rate},
        )

    def restored(self, order: RestoredOrder) -> None:
        """Record that a delete order was restored."""
        self._tally["orders"] += 1
        self._metrics.orders_restored(1)
        log.info("delete_order_restored", workload=order.workload_id, pool=order.pool_id)

    def repair_failed(self, reason: Exception, **what: int) -> None:
        """Record that one repair failed by itself; the next scans retry it."""
        log.warning("repair_failed", **what, reason=one_line(reason))

    def all_pools_compared(self) -> None:
        """Record the end of a scan of the pools."""
        self._missing.end_scan()

    def paused(self) -> None:
        """Record a pause: another daemon may take over, so this daemon's counts are no longer valid."""
        self._metrics.missing_workloads_counted(None)

    def completed(self, *, active_seconds: float) -> None:
        """Record the end of a round of scans; it is logged if anything was repaired."""
        tally, self._tally = self._tally, Counter()
        (log.info if tally["drift"] or tally["orders"] else log.debug)(
            "reconciliation_completed",
            pools=tally["pools"],
            active_seconds=round(active_seconds, 3),
            drift=tally["drift"],
            orders=tally["orders"],
            overdue=tally["overdue"],
        )


class MissingDocuments:
    """Counts the pools that list workloads without a document, and warns once: again only if they have doubled."""

    def __init__(self, *, metrics: ReconciliationMetrics) -> None:
        self._metrics = metrics
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
            self._metrics.missing_workloads_counted(self._pools)
            log.warning(
                "workload_documents_missing",
                pools=self._pools,
                workloads=self._workloads,
                pool_ids=list(self._named),
                remedy="restore the collection workload; until then these pools are not compared, and not changed",
            )

    def end_scan(self) -> None:
        """Record what the scan has counted, and reset the count."""
        self._metrics.missing_workloads_counted(self._pools)
        if self._told and not self._pools:
            log.info("workload_documents_complete")
        self._told = min(self._told, self._pools)
        self._pools = self._workloads = 0
        self._named = []
