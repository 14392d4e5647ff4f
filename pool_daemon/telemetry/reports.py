"""The log lines of a pass: one a workload or a pool, and one for each unreadable document when it is first met."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, Final

from pool_daemon import events
from pool_daemon.plain_text import shown_id
from pool_daemon.settings import sections
from pool_daemon.store.cases import Case, Settlement, Unreadable
from pool_daemon.store.error_mapping import one_line
from pool_daemon.store.pools import PoolResult
from pool_daemon.telemetry.logs import teller
from pool_daemon.telemetry.observer import Observer

REMEMBERED: Final = 10_000
"""Unreadable documents remembered, so that each is logged once; beyond this number the oldest may be logged again."""


class Reports:
    """Writes the results of a pass to the log, and passes them on to the observer.

    `settings` choose between a line a workload and a line a pool. In a `dry_run` lines say what would have been done.
    `term` is the lease's, None without a lease. `pass_number` counts the passes since the start.
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
        self._pool_gone = events.POOL_WOULD_BE_DECOMMISSIONED if dry_run else events.POOL_DECOMMISSIONED
        self._workload_gone = events.WORKLOAD_WOULD_BE_DECOMMISSIONED if dry_run else events.WORKLOAD_DECOMMISSIONED
        self.tell = observer.tell
        self._told: dict[Hashable, None] = {}
        self._due_at: dict[int, int] = {}
        self.pass_number = 0

    def due_since(self, pools: Mapping[int, int]) -> None:
        """Record since when (unix seconds) these pools have been due; lateness counts from there."""
        self._due_at |= pools

    def begin(self) -> None:
        """Begin a pass: discard the due times of the pools of the pass before."""
        self._due_at = {}
        self.pass_number += 1

    def settlement(self, settlement: Settlement, *, at: float, seconds: float) -> None:
        """Report what a batch committed at the unix instant `at` decommissioned, and which documents it left alone."""
        due_at = {case.as_read.pool_id: self._since(case) for case in settlement.cases if case.gone}
        tell = teller(self._pool_gone if self._settings.detail == "pool" else self._workload_gone)
        for case in settlement.cases:
            self._case(case, at, due_at, tell)
            for ended in () if case.grace is None else case.grace.ended:
                self._observer.grace_ended(ended.reason)
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
        self.tell(events.POOL_UNREADABLE if unreadable.kind == "pool" else events.WORKLOAD_UNREADABLE, **fields)
        self._observer.unreadable(unreadable.kind, document_id=unreadable.document_id, reason=unreadable.reason)

    def batch_split(self) -> None:
        """Report that a batch is retried in pieces."""
        self._observer.batch_split()

    def pool_failed(self, pool_id: int, error: Exception, *, retry_seconds: float) -> None:
        """Report that settling one pool failed, and when it is retried."""
        self._observer.pool_failed(pool_id, reason=one_line(error), retry_seconds=retry_seconds)

    def _since(self, case: Case) -> int:
        """Return the unix second since which a pool's workloads have been due: its end, or later."""
        pool = case.as_read
        return max(pool.empty_at, self._due_at.get(pool.pool_id, pool.empty_at))

    def _case(self, case: Case, at: float, due_at: Mapping[int, int], tell: Callable[..., None]) -> None:
        going = case.gone
        if not going:
            return
        pool = case.as_read
        late = [round((at - gone.due_at(due_at[pool.pool_id])) * 1000, 1) for gone in going]
        number = self._term()
        term = {} if number is None else {"term": number}
        if self._settings.detail == "pool":
            resources = sorted({resource for gone in going for resource in gone.resources})
            tell(
                pool=pool.pool_id,
                owner=pool.customer_tid,
                workloads=len(going),
                resources=resources,
                empty_at=pool.empty_at,
                lateness_ms=max(late),
                **term,
            )
            return
        for gone, lateness_ms in zip(going, late, strict=True):
            tell(
                workload=gone.workload_id,
                pool=pool.pool_id,
                owner=pool.customer_tid,
                resources=list(gone.resources),
                empty_at=pool.empty_at,
                lateness_ms=lateness_ms,
                **term,
            )
