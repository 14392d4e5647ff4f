"""The report of a pass: its result at the end, and events of single pools meanwhile."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from pool_daemon.errors import CommonCauseError
from pool_daemon.events import Teller
from pool_daemon.guards.gate import Closed
from pool_daemon.store.cases import Settlement
from pool_daemon.store.pools import PoolResult


class PassOutcome(StrEnum):
    """The outcome of a pass.

    A held pass was cut short by a closed gate, and holds no pool as the brake does; all passes of a standby are held. A
    stopped pass left the rest to the next start.
    """

    COMPLETED = "completed"
    HELD = "held"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(slots=True)
class PassReport:
    """The result of one pass; instants are unix seconds.

    `settled` counts pools, one that goes in portions once for each; `decommissioned` counts workloads. `next_at` is
    when the next pass is due, because `next_pool_id` runs empty if that is not None. `cut_short_by` is why a gate
    closed before everything due was settled; None if none did. `failure` is the common cause if all pools that were
    tried failed; they stay due. `locked` pools wait for another writer's transaction.
    """

    settled: int = 0
    decommissioned: int = 0
    failed_pools: int = 0
    locked: int = 0
    next_at: int | None = None
    next_pool_id: int | None = None
    cut_short_by: Closed | None = None
    failure: CommonCauseError | None = None

    @property
    def outcome(self) -> PassOutcome:
        """The outcome of the pass."""
        if self.failure is not None:
            return PassOutcome.FAILED
        match self.cut_short_by:
            case None:
                return PassOutcome.COMPLETED
            case Closed.STOPPING:
                return PassOutcome.STOPPED
            case Closed.STANDBY | Closed.CLOCK_UNKNOWN | Closed.CLOCKS_APART:
                return PassOutcome.HELD


class Reports(Teller, Protocol):
    """The receiver of the events of a pass; in the daemon the class of this name in `telemetry/reports.py`."""

    def begin(self) -> None:
        """Begin a pass: discard the due times of the pools of the pass before."""

    def due_since(self, pools: Mapping[int, int]) -> None:
        """Record since when (unix seconds) these pools have been due; lateness counts from there."""

    def settlement(self, settlement: Settlement, *, at: float, seconds: float) -> None:
        """Report what a batch committed at the unix instant `at` decommissioned, and which documents it left alone."""

    def unreadable_pools(self, results: Iterable[PoolResult]) -> None:
        """Report every pool that could not be read."""

    def batch_split(self) -> None:
        """Report that a batch is retried in pieces."""

    def pool_failed(self, pool_id: int, error: Exception, *, retry_seconds: float) -> None:
        """Report that settling one pool failed, and when it is retried."""
