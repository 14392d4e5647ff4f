"""Reads due pools with their deployed workloads, and decides which workloads go."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from bson import Int64
from bson.raw_bson import RawBSONDocument

from pool_daemon.capacity import fields
from pool_daemon.capacity.exhaustion import ExhaustedWorkload, Resource
from pool_daemon.capacity.pool import Pool
from pool_daemon.errors import NotFiniteError, UnreadableDocumentError
from pool_daemon.store.cases import Case, Decommissioned, Limits, Rest, Settlement, Unreadable
from pool_daemon.store.client import Collection, Database
from pool_daemon.store.codec import RAW, decoded, document_id, integer, pool_from_document
from pool_daemon.store.error_mapping import translated
from pool_daemon.store.grace_decisions import GraceReader, Graces, evaluated
from pool_daemon.store.pools import CAPACITY_POOLS, DuePool
from pool_daemon.store.sessions import Session
from pool_daemon.store.workloads import NODE_ID_CHARACTERS, DeployedWorkload, WorkloadStore, deployed_workload, plain

NO_ANCHORS: Final[Mapping[Resource, int]] = MappingProxyType({})

ARRAYS: Final = {"node_ids": ("string",), "active_workload_ids": ("int", "long", "double")}
"""Fields of a pool that may be megabytes long and do not influence a decision, with the types they may hold. The server
checks them, and sends none of them."""


def _is_readable(name: str, types: Sequence[str]) -> dict[str, Any]:
    """Return the expression that tests whether a field is an array of some types, null or missing."""
    of_types = {"$map": {"input": f"${name}", "in": {"$in": [{"$type": "$$this"}, list(types)]}}}
    return {
        "$cond": [
            {"$isArray": f"${name}"},
            {"$allElementsTrue": [of_types]},
            {"$in": [{"$type": f"${name}"}, ["null", "missing"]]},
        ]
    }


DECIDING_FIELDS: Final = {
    **dict.fromkeys(("cus", "sus", "ipv4us", "last_updated", "active_cu", "active_su", "active_ipv4", "empty_at"), 1),
    **dict.fromkeys(("customer_tid", "sponsor_tid"), 1),
    **{name: _is_readable(name, types) for name, types in ARRAYS.items()},
}
"""The fields of a pool that the decision needs; of its arrays the server's finding only."""


class CaseReader:
    """Reads the pools of a batch with their deployed workloads, and decides which workloads go.

    Without `grace` nothing is read of it, and nothing stays longer than its resources last.
    """

    def __init__(self, *, database: Database, grace: GraceReader | None = None) -> None:
        self._grace = grace
        self._pools = database.collection(CAPACITY_POOLS, RAW)
        self._workloads = WorkloadStore(database=database)

    async def read(
        self, pool_ids: Sequence[int], *, now: int, limits: Limits, after: Any, session: Session | None
    ) -> Settlement:
        """Return the decisions, not yet written, for those pools that are due, as far as they fit in the limits.

        Pools are taken in the order of their ids, those that lose large documents last. The first one that does not
        fit, and those behind it, are left over; of the very first, as many workloads as fit are taken.
        """
        reading = _Reading(
            pools=self._pools,
            workloads=self._workloads,
            grace=self._grace,
            now=now,
            limits=limits,
            after=after,
            session=session,
        )
        return await reading.decide(pool_ids)


@dataclass(slots=True, kw_only=True)
class _Reading:
    """One batch while it is read: the collections, the arguments of `CaseReader.read`, and the result so far.

    What a method leaves out or cuts off, it notes in the settlement.
    """

    pools: Collection
    workloads: WorkloadStore
    grace: GraceReader | None
    now: int
    limits: Limits
    after: Any
    session: Session | None
    settlement: Settlement = field(default_factory=Settlement)

    async def decide(self, pool_ids: Sequence[int]) -> Settlement:
        """Decide about those pools that are due, and return the complete settlement."""
        pools = await self._due_pools(pool_ids)
        found, pools = self._cut(await self._deployed(pools), pools)
        workloads = self._by_pool(found)
        graces = await self._graces(pools)
        decided = [case for pool in pools if (case := self._case(pool, workloads[pool.pool_id], graces)) is not None]
        for case in decided:
            if case.as_read.pool_id in self.limits.protected and (at_stake := _at_stake(case, graces)):
                await self._withhold(case, at_stake)
        withheld = {pool.pool_id for pool in self.settlement.withheld}
        kept = [case for case in decided if case.as_read.pool_id not in withheld]
        kept.sort(key=lambda case: case.is_large)  # behind all others, which do not wait for megabytes
        self.settlement.cases = self._fitting(kept)
        return self.settlement

    async def _due_pools(self, pool_ids: Sequence[int]) -> list[Pool]:
        """Return the pools that are due, in the order of their ids; note the unreadable ones."""
        query = {
            "_id": {"$in": [Int64(pool_id) for pool_id in pool_ids]},
            "empty_at": {"$lte": Int64(self.now)},
        }
        pools, unreadable = await readable_pools(self.pools, query, most=len(pool_ids), session=self.session)
        self.settlement.unreadable += unreadable
        return pools

    async def _deployed(self, pools: Sequence[Pool]) -> list[RawBSONDocument]:
        """Return the deployed workloads of some pools, at most one more than fits, ordered so that they can be cut off.

        An array matches each pool id in it, and sorts by the least of its elements. So if there may be more workloads
        than were read, those whose pool id is an array are left out, and noted as unreadable.
        """
        limit = self.limits.workloads + 1
        read = partial(
            self.workloads.deployed,
            [pool.pool_id for pool in pools],
            limit=limit,
            after=self.after,
            session=self.session,
        )
        found = await read() if pools else []
        if len(found) < limit or None not in map(_pool_id, found):
            return found
        self._by_pool([raw for raw in found if _pool_id(raw) is None])
        return await read(arrays=False)

    def _cut(self, found: list[RawBSONDocument], pools: list[Pool]) -> tuple[list[RawBSONDocument], list[Pool]]:
        """Return the workloads that fit, and their pools; note as left over the pools that were not read whole.

        Of the first pool what was read is kept, and the rest of it noted.
        """
        most = self.limits.workloads
        if len(found) <= most:
            return found, pools
        pool_ids = [pool_id for raw in found if (pool_id := _pool_id(raw)) is not None]
        cut = pool_ids[most]
        if pool_ids[0] == cut:
            self.settlement.rest = Rest(cut, plain(found[most - 1]["_id"]))
            cut += 1
        whole = [pool for pool in pools if pool.pool_id < cut]
        self.settlement.left_over = [pool.pool_id for pool in pools if pool.pool_id >= cut]
        return [raw for raw, pool_id in zip(found[:most], pool_ids, strict=False) if pool_id < cut], whole

    def _by_pool(self, found: Iterable[RawBSONDocument]) -> dict[int, list[DeployedWorkload]]:
        """Return workloads by the id of their pool; note the unreadable ones."""
        workloads: dict[int, list[DeployedWorkload]] = defaultdict(list)
        for raw in found:
            try:
                workload = deployed_workload(raw)
                pool_id = fields.whole(workload.document, "pool_id", UnreadableDocumentError)
                workloads[pool_id].append(workload)
            except UnreadableDocumentError as error:
                self._unreadable("workload", raw["_id"], error)
        return workloads

    async def _graces(self, pools: Sequence[Pool]) -> Graces | None:
        """Return what decides about the grace of some pools; of one that is read in parts with its newest workload."""
        if self.grace is None or not pools:
            return None
        graces = await self.grace.of([pool.pool_id for pool in pools], session=self.session)
        rest = self.settlement.rest
        if self.after is None and rest is None:
            return graces
        pool_id = pools[0].pool_id if rest is None else rest.pool_id
        newest = await self.workloads.newest_deployed(pool_id, session=self.session)
        return replace(graces, newest={pool_id: newest})

    def _case(self, pool: Pool, workloads: Sequence[DeployedWorkload], graces: Graces | None) -> Case | None:
        """Return the decision for a pool, None if its amounts cannot be computed.

        Note what is unreadable in it, and when to look at the pool again.
        """
        synced = replace(pool)
        try:
            synced.sync_current_capacity(self.now)
        except NotFiniteError as error:
            self._unreadable("pool", pool.pool_id, error)
            return None
        documents = [workload.document for workload in workloads]
        evaluation, grace = evaluated(pool, synced, documents, now=self.now, graces=graces)
        self.settlement.unreadable += [Unreadable("workload", *pair) for pair in evaluation.unknown_units]
        if evaluation.look_again_at is not None:
            self.settlement.look_again[pool.pool_id] = evaluation.look_again_at
        anchors = _anchors(pool, graces)
        found = {id(workload.document): workload for workload in workloads}
        gone = [found[id(each.document)] for each in evaluation.exhausted_workloads]
        return Case(
            as_read=pool,
            synced=synced,
            gone=tuple(_decommissioned(pool, each, anchors) for each in evaluation.exhausted_workloads),
            orders=tuple(workload.order for workload in gone),
            sizes=tuple(workload.size for workload in gone),
            grace=grace,
        )

    async def _withhold(self, case: Case, workloads: int) -> None:
        """Note a pool with the number of workloads that it would have lost, instead of settling it."""
        pool, settlement = case.as_read, self.settlement
        is_part = self.after is not None
        if settlement.rest is not None and settlement.rest.pool_id == pool.pool_id:
            settlement.rest, is_part = None, True
        if is_part:
            workloads = await self.workloads.count_deployed(pool.pool_id, session=self.session)
        settlement.look_again.pop(pool.pool_id, None)
        synced = pool.last_updated >= pool.empty_at
        settlement.withheld.append(DuePool(pool.pool_id, pool.customer_tid, workloads, synced, pool.empty_at))

    def _fitting(self, cases: list[Case]) -> list[Case]:
        """Return the cases whose documents fit into the limit on bytes; note the others as left over.

        Of the first that loses anything, as much is kept as fits.
        """
        taken, settlement = 0, self.settlement
        for index, case in enumerate(cases):
            size = sum(case.sizes)
            if taken + size <= self.limits.size:
                taken += size
                continue
            settlement.is_full = True
            kept = [*cases[:index], *([] if taken else [self._beginning(case)])]
            behind = [each.as_read.pool_id for each in cases[len(kept) :]]
            settlement.left_over = behind + settlement.left_over
            for pool_id in behind:
                settlement.look_again.pop(pool_id, None)
            return kept
        return cases

    def _beginning(self, case: Case) -> Case:
        """Return a case with as many of its decommissioned workloads as fit, at least one; note the rest."""
        number, taken = 1, case.sizes[0]
        while number < len(case.sizes) and taken + case.sizes[number] <= self.limits.size:
            taken += case.sizes[number]
            number += 1
        if number < len(case.sizes):
            self.settlement.rest = Rest(case.as_read.pool_id, case.gone[number - 1].workload_id)
        return replace(case, gone=case.gone[:number], orders=case.orders[:number], sizes=case.sizes[:number])

    def _unreadable(self, kind: str, which: Any, error: Exception) -> None:
        self.settlement.unreadable.append(Unreadable(kind, which, str(error)))


async def readable_pools(
    collection: Collection, query: Mapping[str, Any], *, most: int, session: Session | None
) -> tuple[list[Pool], list[Unreadable]]:
    """Return the pools, `most` of them, that match a query, in the order of their ids, and those that cannot be read.

    Of their arrays, which may be megabytes long, the server only tells whether they are readable.
    """
    with translated("reading pools that are due"):
        raws = await collection.find(query, DECIDING_FIELDS, session=session, batch_size=most + 1).to_list(None)
    pools: list[Pool] = []
    unreadable: list[Unreadable] = []
    for raw in raws:
        try:
            document = decoded(raw)
            _require_arrays(document)
            pools.append(pool_from_document(document))
        except UnreadableDocumentError as error:
            unreadable.append(Unreadable("pool", document_id(raw), str(error)))
    return sorted(pools, key=lambda pool: pool.pool_id), unreadable


def _require_arrays(document: dict[str, Any]) -> None:
    """Remove the server's findings on the long arrays from a document, and check them."""
    for name, types in ARRAYS.items():
        if not document.pop(name):
            raise UnreadableDocumentError(f"{name} is not an array of {' or '.join(types)}")


def _pool_id(raw: RawBSONDocument) -> int | None:
    """Return the pool id by which a workload was found; None if it is one of several in an array."""
    return integer(raw.get("copy", raw).get("pool_id"))


def _at_stake(case: Case, graces: Graces | None) -> int:
    """Return how many workloads of a pool the brake has to judge.

    A workload is judged once: when it would go, or, if it has grace, when that begins.
    """
    if case.grace is None and graces is None:
        return len(case.gone)
    before = {} if graces is None else graces.known(case.as_read.pool_id).since
    after = before if case.grace is None else case.grace.record.grace.since
    anchored = {resource for resource, at in before.items() if after.get(resource) == at}
    new = [gone for gone in case.gone if gone.grace_ended_at is None or not anchored.issuperset(gone.resources)]
    return len(new) + (0 if case.grace is None else case.grace.workloads)


def _anchors(pool: Pool, graces: Graces | None) -> Mapping[Resource, int]:
    return NO_ANCHORS if graces is None else graces.known(pool.pool_id).since


def _decommissioned(pool: Pool, exhausted: ExhaustedWorkload, anchors: Mapping[Resource, int]) -> Decommissioned:
    document = exhausted.document
    ended_at = exhausted.grace_ends_at
    began_at = min((anchors[each] for each in exhausted.resources if each in anchors), default=ended_at)
    return Decommissioned(
        workload_id=document["_id"],
        pool_id=pool.pool_id,
        customer_tid=pool.customer_tid,
        workload_type=int(document["workload_type"]),
        node_id=str(document.get("node_id", ""))[:NODE_ID_CHARACTERS],
        resources=exhausted.resources,
        empty_at=pool.empty_at,
        grace_ended_at=ended_at,
        grace_seconds=0 if ended_at is None or began_at is None else max(0, ended_at - began_at),
    )
