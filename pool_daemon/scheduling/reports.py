"""What the pass tells: one line a workload, and each unreadable document once, not at every look."""

from collections.abc import Hashable, Iterable
from typing import Any, Final

import structlog

from pool_daemon.store.cases import Settlement, Unreadable
from pool_daemon.store.failures import one_line
from pool_daemon.store.pools import PoolResult

REMEMBERED: Final = 10_000
"""Unreadable documents kept in mind, so that each is told once; beyond that the oldest may be told again."""

log = structlog.get_logger("pool_daemon.expirer")


class Reports:
    """Turns what a pass met into log lines; of a `dry_run` it says what would have been done."""

    def __init__(self, *, dry_run: bool = False) -> None:
        self._gone = "workload_would_be_decommissioned" if dry_run else "workload_decommissioned"
        self._told: dict[Hashable, None] = {}

    def settlement(self, settlement: Settlement, *, at: float) -> None:
        """Tell every workload that was decommissioned at the unix instant `at`, and every document left alone."""
        for gone in settlement.decommissioned:
            log.info(
                self._gone,
                workload=gone.workload_id,
                pool=gone.pool_id,
                owner=gone.customer_tid,
                resources=list(gone.resources),
                empty_at=gone.empty_at,
                lateness_ms=round((at - gone.empty_at) * 1000, 1),
            )
        for unreadable in settlement.unreadable:
            self._unreadable(unreadable)

    def unreadable_pools(self, results: Iterable[PoolResult]) -> None:
        """Tell every pool that could not be read."""
        for result in results:
            if result.error is not None:
                self._unreadable(Unreadable("pool", result.document_id, str(result.error)))

    def set_aside(self, pool_id: int, error: Exception, *, tries: int, retry_seconds: float) -> None:
        """Tell that settling one pool failed, and when it is tried again."""
        log.warning("pool_set_aside", pool=pool_id, reason=one_line(error), tries=tries, retry_seconds=retry_seconds)

    def _unreadable(self, unreadable: Unreadable) -> None:
        key = (unreadable.kind, repr(unreadable.document_id), unreadable.reason)
        if key in self._told:
            return
        if len(self._told) >= REMEMBERED:
            del self._told[next(iter(self._told))]
        self._told[key] = None
        fields: dict[str, Any] = {unreadable.kind: unreadable.document_id, "reason": unreadable.reason}
        log.warning("pool_unreadable" if unreadable.kind == "pool" else "workload_unreadable", **fields)
