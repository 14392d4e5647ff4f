"""The decision for each due pool in a batch: what was read, what follows from it, and the result of the batch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bson.raw_bson import RawBSONDocument

from pool_daemon.capacity.exhaustion import Resource
from pool_daemon.capacity.pool import Pool
from pool_daemon.store.grace_decisions import GraceChange
from pool_daemon.store.pools import DuePool


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A document that is left alone, and why; `kind` is "pool" or "workload"."""

    kind: str
    document_id: Any
    reason: str


@dataclass(frozen=True, slots=True)
class Decommissioned:
    """One workload that was set to be deleted; `empty_at` (unix seconds) is that of its pool.

    `grace_ended_at` is the unix second at which its grace was over, if it had any, and `grace_seconds` its length.
    """

    workload_id: Any
    pool_id: int
    customer_tid: int
    workload_type: int
    node_id: str
    resources: tuple[Resource, ...]
    empty_at: int
    grace_ended_at: int | None = None
    grace_seconds: int = 0

    def due_at(self, pool_due_at: float) -> float:
        """Return since when it had to go, if its pool has been due since an instant: not before its grace was over."""
        return max(pool_due_at, self.grace_ended_at or pool_due_at)


@dataclass(frozen=True, slots=True)
class Case:
    """One due pool: as read, as synced, and which of its workloads are decommissioned.

    `orders` holds the work orders of `gone`, in the same order; None for one that is too large to be read along.
    `sizes` holds the sizes of the documents in bytes. `grace` is what changes in the record of its grace, if anything.
    """

    as_read: Pool
    synced: Pool
    gone: tuple[Decommissioned, ...]
    orders: tuple[RawBSONDocument | None, ...]
    sizes: tuple[int, ...]
    grace: GraceChange | None = None

    @property
    def is_large(self) -> bool:
        """Whether it loses a document that is too large to be read along."""
        return any(order is None for order in self.orders)

    @property
    def must_be_written(self) -> bool:
        """Whether the pool changes: it loses a workload, has not been synced since it ran empty, or its grace changes.

        Else a top-up that is committed meanwhile would go unnoticed.
        """
        return bool(self.gone) or self.as_read.last_updated < self.as_read.empty_at or self.grace is not None


@dataclass(frozen=True, slots=True)
class Rest:
    """The workloads of a pool behind the id `after`, which are not evaluated yet."""

    pool_id: int
    after: Any


@dataclass(slots=True)
class Settlement:
    """The result of a batch.

    `look_again` maps a pool to the unix second at which another of its resources runs out. `left_over` holds the ids of
    the pools that did not fit into the batch, and are unchanged; `rest` names the pool of which only a part fitted.
    `is_full` says that the limit on bytes was reached. `withheld` holds the protected pools that would have lost
    workloads, so many each (at most, if only a part of the pool fitted), and are unchanged.
    """

    cases: Sequence[Case] = ()
    unreadable: list[Unreadable] = field(default_factory=list)
    look_again: dict[int, int] = field(default_factory=dict)
    left_over: list[int] = field(default_factory=list)
    rest: Rest | None = None
    is_full: bool = False
    withheld: list[DuePool] = field(default_factory=list)

    @property
    def decommissioned(self) -> list[Decommissioned]:
        """Every workload that was set to be deleted."""
        return [gone for case in self.cases for gone in case.gone]

    @property
    def lost_something(self) -> list[int]:
        """The ids of the pools that lost a workload."""
        return [case.as_read.pool_id for case in self.cases if case.gone]

    @property
    def grace_changes(self) -> list[GraceChange]:
        """What changes in the records of grace."""
        return [case.grace for case in self.cases if case.grace is not None]

    def leave_large(self) -> bool:
        """Leave over the pools that lose large documents, so that no other waits; False if only those lose any."""
        large = [case.as_read.pool_id for case in self.cases if case.is_large]
        small = [case for case in self.cases if not case.is_large]
        if large and not any(case.gone for case in small):
            return False
        self.cases = small
        self.left_over = large + self.left_over
        for pool_id in large:
            self.look_again.pop(pool_id, None)
        return True

    def settled_of(self, pool_ids: Iterable[int]) -> list[int]:
        """Return those of the batch's pools of which nothing was left over or withheld."""
        left = {*self.left_over, *(pool.pool_id for pool in self.withheld)}
        if self.rest is not None:
            left.add(self.rest.pool_id)
        return [pool_id for pool_id in pool_ids if pool_id not in left]


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one batch: workloads evaluated, and bytes of documents copied; one workload always fits.

    Pools that are `protected` lose no workload in it: one that would is withheld.
    """

    workloads: int
    size: int
    protected: frozenset[int] = frozenset()
