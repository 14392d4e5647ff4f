"""The case of each expired pool in a batch: what was read, what follows from it, and what it comes to."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from bson import Int64
from bson.raw_bson import RawBSONDocument

from pool_daemon.capacity import fields
from pool_daemon.capacity.cloud_units import UNIT_FIELDS
from pool_daemon.capacity.pool import Pool
from pool_daemon.capacity.verdict import Going, Resource, Verdict, judge
from pool_daemon.errors import NotFiniteError, UnreadableDocumentError
from pool_daemon.store.client import Database, Session
from pool_daemon.store.documents import RAW, decoded, document_id, pool_from_document
from pool_daemon.store.failures import translated
from pool_daemon.store.pools import CAPACITY_POOLS
from pool_daemon.store.workloads import WorkloadStore

JUDGED: Final = frozenset({"_id", "pool_id", "node_id", *UNIT_FIELDS})
"""What is kept of a workload's document beside its copy: of the hundreds of a batch, all of it would be megabytes."""


class OversizedBatchError(Exception):
    """The pools of a batch hold more workloads than one transaction takes; nothing was done. Ask for fewer pools."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A document that is left alone, and why; `kind` is "pool" or "workload"."""

    kind: str
    document_id: Any
    reason: str


@dataclass(frozen=True, slots=True)
class Decommissioned:
    """One workload that was set to be deleted; `empty_at` (unix seconds) is that of its pool."""

    workload_id: Any
    pool_id: int
    customer_tid: int
    workload_type: int
    node_id: str
    resources: tuple[Resource, ...]
    empty_at: int


@dataclass(frozen=True, slots=True)
class Case:
    """One pool that is due: as it was read, as it is once synced, and what that means for its workloads.

    `gone` names the workloads that go, `copies` holds their work orders in the same order.
    """

    as_read: Pool
    synced: Pool
    verdict: Verdict
    gone: tuple[Decommissioned, ...]
    copies: tuple[RawBSONDocument, ...]

    @property
    def must_be_written(self) -> bool:
        """Whether the pool changes: it loses a workload, or has not been synced since it ran empty."""
        return bool(self.copies) or self.as_read.last_updated < self.as_read.empty_at


@dataclass(slots=True)
class Settlement:
    """What a batch came to.

    `look_again` maps a pool to the unix second at which another of its resources runs out, or at which it is to be
    tried again. `continue_after` is the id of the last workload looked at if a single pool holds more than fitted.
    """

    cases: Sequence[Case] = ()
    unreadable: list[Unreadable] = field(default_factory=list)
    look_again: dict[int, int] = field(default_factory=dict)
    continue_after: Any = None

    @property
    def decommissioned(self) -> list[Decommissioned]:
        """Every workload that was set to be deleted."""
        return [gone for case in self.cases for gone in case.gone]

    @property
    def lost_something(self) -> list[int]:
        """The ids of the pools of which a workload was set to be deleted."""
        return [case.as_read.pool_id for case in self.cases if case.copies]


class CaseReader:
    """Reads the pools of a batch with their deployed workloads, and decides."""

    def __init__(self, *, database: Database) -> None:
        self._pools = database.collection(CAPACITY_POOLS, RAW)
        self._workloads = WorkloadStore(database=database)

    async def read(
        self, pool_ids: Sequence[int], *, now: int, due_by: int, most: int, after: Any, session: Session | None
    ) -> Settlement:
        """Return the cases of those pools that are due, decided but not yet written, of `most` workloads.

        Raises OversizedBatchError if several pools hold more workloads than that.
        """
        settlement = Settlement()
        pools = await self._due_pools(pool_ids, due_by, session, settlement)
        workloads: dict[int, list[_Deployed]] = defaultdict(list)
        if pools:
            copies = await self._workloads.deletion_copies(
                [pool.pool_id for pool in pools], limit=most + 1, after=after, session=session
            )
            copies = _fitting(copies, pools, settlement, most=most)
            workloads = _by_pool(copies, settlement)
        settlement.cases = [case for pool in pools if (case := _case(pool, workloads[pool.pool_id], now, settlement))]
        return settlement

    async def _due_pools(
        self, pool_ids: Sequence[int], due_by: int, session: Session | None, settlement: Settlement
    ) -> list[Pool]:
        query = {
            "_id": {"$in": [Int64(pool_id) for pool_id in pool_ids]},
            "empty_at": {"$lte": Int64(due_by)},
        }
        with translated("reading pools that are due"):
            raws = await self._pools.find(query, session=session, batch_size=len(pool_ids) + 1).to_list(None)
        pools = []
        for raw in raws:
            try:
                pools.append(pool_from_document(decoded(raw)))
            except UnreadableDocumentError as error:
                settlement.unreadable.append(Unreadable("pool", document_id(raw), str(error)))
        return pools


@dataclass(frozen=True, slots=True)
class _Deployed:
    document: dict[str, Any]
    copy: RawBSONDocument


def _fitting(
    copies: list[RawBSONDocument], pools: Sequence[Pool], settlement: Settlement, *, most: int
) -> list[RawBSONDocument]:
    if len(copies) <= most:
        return copies
    if len(pools) > 1:
        raise OversizedBatchError
    settlement.continue_after = document_id(copies[most - 1])
    return copies[:most]


def _by_pool(copies: Iterable[RawBSONDocument], settlement: Settlement) -> dict[int, list[_Deployed]]:
    found: dict[int, list[_Deployed]] = defaultdict(list)
    for copy in copies:
        try:
            document = {name: value for name, value in decoded(copy).items() if name in JUDGED}
            found[fields.whole(document, "pool_id", UnreadableDocumentError)].append(_Deployed(document, copy))
        except UnreadableDocumentError as error:
            settlement.unreadable.append(Unreadable("workload", document_id(copy), str(error)))
    return found


def _case(pool: Pool, workloads: Sequence[_Deployed], now: int, settlement: Settlement) -> Case | None:
    synced = replace(pool)
    try:
        synced.sync_current_capacity(now)
    except NotFiniteError as error:
        settlement.unreadable.append(Unreadable("pool", pool.pool_id, str(error)))
        return None
    verdict = judge(synced, [workload.document for workload in workloads], now=now)
    settlement.unreadable += [Unreadable("workload", *pair) for pair in verdict.incomputable]
    if verdict.look_again_at is not None:
        settlement.look_again[pool.pool_id] = verdict.look_again_at
    copy_of = {id(workload.document): workload.copy for workload in workloads}
    gone = tuple(_decommissioned(pool, going) for going in verdict.going)
    copies = tuple(copy_of[id(going.document)] for going in verdict.going)
    return Case(pool, synced, verdict, gone, copies)


def _decommissioned(pool: Pool, going: Going) -> Decommissioned:
    document = going.document
    return Decommissioned(
        workload_id=document["_id"],
        pool_id=pool.pool_id,
        customer_tid=pool.customer_tid,
        workload_type=int(document["workload_type"]),
        node_id=str(document.get("node_id", "")),
        resources=going.resources,
        empty_at=pool.empty_at,
    )
