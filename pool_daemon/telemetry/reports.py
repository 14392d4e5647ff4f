"""The log lines of a pass: one a workload or a pool, and one for each unreadable document when it is first met."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, Final

import structlog
from structlog.typing import FilteringBoundLogger

from pool_daemon.plain_text import shown_id
from pool_daemon.settings import sections
from pool_daemon.store.cases import Case, Settlement, Unreadable
from pool_daemon.store.error_mapping import one_line
from pool_daemon.store.pools import PoolResult
from pool_daemon.telemetry.observer import Observer

REMEMBERED: Final = 10_000
"""Unreadable documents remembered, so that each is logged once; beyond this number the oldest may be logged again."""

log = structlog.get_logger("pool_daemon.expirer")


class Reports:
    """Writes the results of a pass to the log, and passes them on to the observer.

    `settings` choose between a line a workload and a line a pool. In a `dry_run` lines say what would have been done.
    `term` is the lease's, None without a lease.
    """

    def __init__(
        self,
        *,
        observer: Observer,
        settings: sections.Log,
        dry_run: bool = False,
        term: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._observer = observer
        self._settings = settings
        self._term = term
        self._pool_gone = "pool_would_be_decommissioned" if dry_run else "pool_decommissioned"
        self._workload_gone = "workload_would_be_decommissioned" if dry_run else "workload_decommissioned"
        self._told: dict[Hashable, None] = {}
        self._due_at: dict[int, int] = {}

    def due_since(self, pools: Mapping[int, int]) -> None:
        """Record since when (unix seconds) these pools have been due; lateness counts from there."""
        self._due_at |= pools

    def begin(self) -> None:
        """Begin a pass: discard the due times of the pools of the pass before."""
        self._due_at = {}

    def settlement(self, settlement: Settlement, *, at: float, seconds: float) -> None:
        """Report what a batch committed at the unix instant `at` decommissioned, and which documents it left alone."""
        due_at = {case.as_read.pool_id: self._since(case) for case in settlement.cases if case.gone}
        logger = log.bind()  # one logger a batch: a storm makes thousands of lines a second
        for case in settlement.cases:
            self._case(case, at, due_at, logger)
        for unreadable in settlement.unreadable:
            self.unreadable(unreadable)
        gone = settlement.decommissioned
        self._observer.batch_committed(gone, pools=len(settlement.cases), seconds=seconds, at=at, due_at=due_at)

    def unreadable_pools(self, results: Iterable[PoolResult]) -> None:
        """Report every pool that could not be read."""
        for result in results:
            if result.error is not None:
                self.unreadable(Unreadable("pool", result.document_id, str(result.error)))

    def unreadable(self, unreadable: Unreadable) -> None:
        """Report a document that is left alone, unless it was reported before."""
        key = (unreadable.kind, shown_id(unreadable.document_id), unreadable.reason)
        if key in self._told:
            return
        if len(self._told) >= REMEMBERED:
            del self._told[next(iter(self._told))]
        self._told[key] = None
        fields: dict[str, Any] = {unreadable.kind: unreadable.document_id, "reason": unreadable.reason}
        log.warning("pool_unreadable" if unreadable.kind == "pool" else "workload_unreadable", **fields)
        self._observer.unreadable(unreadable.kind, document_id=unreadable.document_id, reason=unreadable.reason)

    def halved(self) -> None:
        """Report that a batch is retried in pieces."""
        self._observer.batch_halved()

    def failed_pools(self, pool_id: int, error: Exception, *, retry_seconds: float) -> None:
        """Report that settling one pool failed, and when it is retried."""
        reason = one_line(error)
        log.warning("pool_failed", pool=pool_id, reason=reason, retry_seconds=retry_seconds)
        self._observer.pool_failed(pool_id, reason=reason)

    def locked(self, pool_id: int) -> None:
        """Report that another writer has an uncommitted write to a pool or to one of its workloads."""
        log.info("pool_locked", pool=pool_id, reason="another transaction has written it and is still open")

    def _since(self, case: Case) -> int:
        """Return the unix second since which a pool's workloads have been due: its end, or later."""
        pool = case.as_read
        return max(pool.empty_at, self._due_at.get(pool.pool_id, pool.empty_at))

    def _case(self, case: Case, at: float, due_at: Mapping[int, int], logger: FilteringBoundLogger) -> None:
        going = case.gone
        if not going:
            return
        pool = case.as_read
        lateness_ms = round((at - due_at[pool.pool_id]) * 1000, 1)
        common: dict[str, Any] = {"empty_at": pool.empty_at, "lateness_ms": lateness_ms}
        if (term := self._term()) is not None:
            common["term"] = term
        if self._settings.detail == "pool":
            resources = sorted({resource for gone in going for resource in gone.resources})
            logger.info(
                self._pool_gone,
                pool=pool.pool_id,
                owner=pool.customer_tid,
                workloads=len(going),
                resources=resources,
                **common,
            )
            return
        for gone in going:
            logger.info(
                self._workload_gone,
                workload=gone.workload_id,
                pool=pool.pool_id,
                owner=pool.customer_tid,
                resources=list(gone.resources),
                **common,
            )
