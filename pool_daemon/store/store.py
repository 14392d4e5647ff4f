"""The store as one object, and its protocols for the packages above, provided by its classes and by the fakes in tests.

Errors, bounds and races are described at the methods of the classes themselves.
"""

from collections.abc import AsyncGenerator, Collection, Iterable, Sequence
from typing import Any, Protocol

from pool_daemon.clock import Clock
from pool_daemon.store.cases import Limits, Settlement
from pool_daemon.store.client import Database
from pool_daemon.store.decommissions import Decommissions
from pool_daemon.store.ends import Ends
from pool_daemon.store.grace_decisions import GraceReader
from pool_daemon.store.lease import LeaseRecord
from pool_daemon.store.locks import Locks
from pool_daemon.store.missing_orders import OwedOrders, RestoredOrder
from pool_daemon.store.pools import Deadline, DuePage, DuePool, PoolResult, PoolStore
from pool_daemon.store.quarantine import Quarantined
from pool_daemon.store.reconciliation import DriftedPool, Page
from pool_daemon.store.records import Actor
from pool_daemon.store.workloads import WorkloadStore


class Pools(Protocol):
    """Finds pools by when they run empty; see PoolStore."""

    def due(self, *, after: int | None, until: int, besides: Sequence[int] = ()) -> AsyncGenerator[DuePage, None]:
        """Stream, longest due first, the pools whose `empty_at` lies in (after, until], except those of some owners."""

    async def due_among(self, pool_ids: Iterable[int], *, until: int) -> list[DuePool]:
        """Return those of some pools whose `empty_at` is at most `until`, ordered by id."""

    async def unreadable_deadlines(self) -> list[PoolResult]:
        """Return pools, a few batches at most, whose `empty_at` is no number."""

    async def next_deadline(self, ts: int) -> Deadline | None:
        """Return the first pool to run empty after the unix second `ts`, None if there is none."""


class Workloads(Protocol):
    """Finds pools by their workloads; see WorkloadStore."""

    async def pools_of(self, workload_ids: Sequence[Any]) -> list[int]:
        """Return the pool ids of those workloads that are deployed."""

    async def deploying(self, pool_ids: Sequence[int]) -> set[int]:
        """Return those of some pools that have a deployed workload which is not free."""


class PoolsInGrace(Protocol):
    """Tells which pools need no check before their grace ends; see GraceStore."""

    async def resting(self, pool_ids: Collection[int]) -> set[int]:
        """Return those of some pools that are in grace, and have no workload that was created since."""


class Settler(Protocol):
    """Settles pools in one transaction; see Decommissions."""

    async def settle(
        self,
        pool_ids: Sequence[int],
        *,
        now: int,
        limits: Limits,
        after: Any = None,
    ) -> Settlement:
        """Sync those of the pools that are due and decommission what uses their exhausted resources."""


class PoolLocks(Protocol):
    """Finds out which pools another transaction has locked; see Locks."""

    async def locked_among(self, pool_ids: Sequence[int]) -> set[int]:
        """Return those of some pools that are locked."""


class ExpiryStore(Protocol):
    """The collections that a pass uses; see Store."""

    @property
    def pools(self) -> Pools:
        """The pools, to find those that are due."""

    @property
    def workloads(self) -> Workloads:
        """The workloads, to find their pools."""

    @property
    def decommissions(self) -> Settler:
        """The settler of due pools."""

    @property
    def graces(self) -> PoolsInGrace | None:
        """The pools in grace; None if there is none."""

    @property
    def locks(self) -> PoolLocks:
        """The locks of other transactions."""


class Leases(Protocol):
    """One process's access to the lease; see LeaseStore."""

    identity: str
    seconds: float

    async def look(self) -> LeaseRecord:
        """Return the lease as it is now."""

    async def take(self, seen: LeaseRecord, *, term: int) -> bool:
        """Become the holder, if the lease is still exactly what was seen; return whether that was so."""

    async def renew(self, *, term: int) -> bool:
        """Extend the lease to its whole length again; False if it is no longer held in that term."""

    async def end_sessions(self, seen: LeaseRecord) -> None:
        """End the sessions of the holder that was seen; its transactions in flight are aborted."""

    async def release(self, *, term: int) -> bool:
        """Release the lease, if it is still held in that term; return whether that was so."""


class QuarantinedPools(Protocol):
    """Keeps the pools in quarantine; see QuarantineStore."""

    identity: str

    async def save(self, quarantined: Quarantined) -> None:
        """Write a pool."""

    async def remove(self, pool_id: int) -> bool:
        """Remove a pool; return whether it was there."""

    def all(self) -> AsyncGenerator[Quarantined, None]:
        """Stream every pool in quarantine by id."""


class PoolComparisons(Protocol):
    """Compares pools with their workloads; see ReconciliationStore."""

    async def compare(self, *, after: Any, limit: int, overdue_at: int | None) -> Page:
        """Compare the next pools behind an id."""

    async def repair(self, drifted: DriftedPool, *, now: int) -> bool:
        """Repair a pool, if no other writer has changed it since; return whether that was so."""


class DeleteOrders(Protocol):
    """Finds and restores delete orders that vanished; see MissingOrders."""

    def scan(self) -> AsyncGenerator[OwedOrders, None]:
        """Stream the workloads that are owed an order."""

    async def restore(self, workload_id: int, *, now: float) -> RestoredOrder | None:
        """Restore an order; None if it is no longer owed."""


class Store:
    """The collections of the store on one database.

    `actor` is written into every record; in a `dry_run` no decommission is written. If owners are told,
    `ends` has what is decommissioned written to the outbox, too. Where there is `grace`, some workloads stay for now.
    """

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        actor: Actor,
        dry_run: bool = False,
        ends: Ends | None = None,
        grace: GraceReader | None = None,
    ) -> None:
        self.pools = PoolStore(database=database)
        self.workloads = WorkloadStore(database=database)
        self.decommissions = Decommissions(
            database=database, clock=clock, actor=actor, dry_run=dry_run, ends=ends, grace=grace
        )
        self.graces = None if grace is None else grace.store
        self.locks = Locks(database=database)
