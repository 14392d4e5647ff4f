"""What reconciliation tells: one line for each thing mended, one for each walk."""

from collections import Counter
from collections.abc import Callable
from typing import Final, Protocol

import structlog

from pool_daemon.store.cases import Unreadable
from pool_daemon.store.failures import one_line
from pool_daemon.store.reconciliation import Drifted, Page
from pool_daemon.store.vanished_orders import Restored

NAMED: Final = 10
"""Workloads that one log line names; a pool may have lost thousands."""

log = structlog.get_logger("pool_daemon.reconciler")


class ReconciliationMetrics(Protocol):
    """Where reconciliation is counted."""

    def drift_mended(self, kind: str, *, pool_id: int) -> None:
        """Count a pool that was mended; `kind` is "workload_ids" if ids were dropped, else "rates"."""

    def drift_held(self, *, pools: int, drifted: int) -> None:
        """Count a walk that mended nothing: so many of so many pools seemed wrong."""

    def orders_put_back(self, count: int) -> None:
        """Count delete orders that were put back."""


class Findings:
    """Turns what the walks meet into log lines, counts and calls.

    `on_overdue` is called with the id of each pool that should have been settled by now; `on_unreadable` with each
    document that is left alone, at every look: it is up to the hearer to tell each once.
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
        self.unreadable = on_unreadable

    def page(self, page: Page) -> None:
        """Hear what a page held, apart from its drift."""
        self._tally["pools"] += page.pools
        self._tally["overdue"] += len(page.overdue)
        for pool_id in page.overdue:
            self._on_overdue(pool_id)
        for unreadable in page.unreadable:
            self.unreadable(unreadable)

    def mended(self, drifted: Drifted) -> None:
        """Hear that a pool's books were put right."""
        pool_id, drift = drifted.pool.pool_id, drifted.drift
        self._tally["drift"] += 1
        self._metrics.drift_mended("workload_ids" if drift.dropped else "rates", pool_id=pool_id)
        log.info(
            "drift_mended",
            pool=pool_id,
            dropped=len(drift.dropped),
            workloads=list(drift.dropped[:NAMED]),
            excess={name: rate for name, rate in drift.excess._asdict().items() if rate},
        )

    def restored(self, order: Restored) -> None:
        """Hear that a delete order was put back."""
        self._tally["orders"] += 1
        self._metrics.orders_put_back(1)
        log.info("order_restored", workload=order.workload_id, pool=order.pool_id)

    def not_mended(self, reason: Exception, **what: int) -> None:
        """Hear that mending one thing failed by itself; the next walks come by again."""
        log.warning("not_mended", **what, reason=one_line(reason))

    def held(self, *, pools: int, drifted: int) -> None:
        """Hear that more seemed to have drifted than is credible."""
        self._metrics.drift_held(pools=pools, drifted=drifted)
        log.error(
            "drift_held",
            pools=pools,
            drifted=drifted,
            reason="too much for drift: is the database restored by half? reconcile.hold_percent = 100 mends it all",
        )

    def completed(self, *, seconds: float) -> None:
        """Hear that a walk came to its end, and begin the tally of the next."""
        log.info(
            "reconciliation_completed",
            pools=self._tally["pools"],
            seconds=round(seconds, 3),
            drift=self._tally["drift"],
            orders=self._tally["orders"],
            overdue=self._tally["overdue"],
        )
        self._tally.clear()
