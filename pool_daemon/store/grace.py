"""The pools that are, or lately were, in grace: since when each resource of them has been exhausted, as first seen."""

from collections.abc import AsyncGenerator, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from bson import Int64
from pymongo import DeleteOne, ReplaceOne

from pool_daemon.capacity import fields
from pool_daemon.capacity.arithmetic import EARLIEST
from pool_daemon.capacity.exhaustion import Resource
from pool_daemon.capacity.grace import WINDOW_SECONDS, PoolGrace
from pool_daemon.errors import PoolNotFoundError, UnreadableDocumentError
from pool_daemon.plain_text import cut
from pool_daemon.store.client import Database
from pool_daemon.store.error_mapping import REASON_CHARACTERS, translated
from pool_daemon.store.records import EVENTS, Actor, EventKind, Subject, Why, envelope
from pool_daemon.store.sessions import Session
from pool_daemon.store.workloads import WorkloadStore

GRACE: Final = "pool-daemon-grace"

FIRST: Final = Int64(EARLIEST)
"""Precedes every pool's id."""

BATCH: Final = 1000
"""Documents a round trip."""

ANCHORS: Final = ("since", "newest", "over")
"""The fields that hold a number for each resource."""


@dataclass(frozen=True, slots=True)
class GraceRecord:
    """The document of a pool; `operator_by` and `operator_reason` tell who set the end of its grace, and why.

    `decommissions` counts the transactions that took workloads whose grace was over. So each of them changes the
    document, and collides with an operator who sets another end meanwhile.
    """

    pool_id: int
    customer_tid: int
    grace: PoolGrace
    operator_by: str = ""
    operator_reason: str = ""
    decommissions: int = 0


class GraceStore:
    """The collection `pool-daemon-grace`.

    Every method raises StoreUnavailableError when MongoDB is away, and StoreRefusedError when it refuses.
    """

    def __init__(self, *, database: Database) -> None:
        self._database = database
        self._documents = database.collection(GRACE)
        self._events = database.collection(EVENTS)
        self._workloads = WorkloadStore(database=database)

    async def of(self, pool_ids: Collection[int], *, session: Session | None = None) -> dict[int, GraceRecord]:
        """Return the records of some pools, by id; one that another program has spoilt counts as if it were not there.

        In a session they are read as part of its transaction.
        """
        query = {"_id": {"$in": [Int64(pool_id) for pool_id in pool_ids]}}
        with translated("reading which pools are in grace"):
            documents = await self._documents.find(query, session=session).to_list(None)
        return {record.pool_id: record for record in _readable(documents)}

    async def list(self, *, running: bool = True) -> AsyncGenerator[list[GraceRecord], None]:
        """Stream the records by id, in pages: those of pools in grace, or those of all."""
        behind: Any = FIRST
        only = {"running": True} if running else {}
        while True:
            query: dict[str, Any] = {"_id": {"$gt": behind}} | only
            with translated("reading which pools are in grace"):
                documents = await self._documents.find(query, sort=[("_id", 1)], limit=BATCH).to_list(BATCH)
            if not documents:
                return
            yield _readable(documents)
            behind = documents[-1]["_id"]

    async def resting(self, pool_ids: Collection[int]) -> set[int]:
        """Return those of some pools that are in grace, and have no workload that was created since.

        Until a grace ends, a change that is noticed by other ways, or an operator, nothing of them can go.
        """
        running = {each.pool_id: each.grace for each in (await self.of(pool_ids)).values() if each.grace.running}
        newest = await self._workloads.newest_among(list(running)) if running else {}
        return {pool_id for pool_id, grace in running.items() if newest.get(pool_id, 0) <= min(grace.newest.values())}

    async def count(self) -> int:
        """Count the pools in grace."""
        with translated("counting the pools in grace"):
            return await self._documents.count_documents({"running": True})

    async def write(self, records: Iterable[GraceRecord], *, session: Session) -> None:
        """Write records as part of a transaction; one that says nothing is removed.

        Of two transactions that write the record of a pool one conflicts, and decides anew.
        """
        writes: list[Any] = [
            ReplaceOne({"_id": Int64(each.pool_id)}, _document(each), upsert=True)
            if each.grace.since or each.grace.spent
            else DeleteOne({"_id": Int64(each.pool_id)})
            for each in records
        ]
        if writes:
            with translated("writing which pools are in grace"):
                await self._documents.bulk_write(writes, ordered=False, session=session)

    async def purge(self, *, now: int) -> int:
        """Remove records that say nothing any more at the unix second `now`; return how many.

        The pools last again, and what they have spent lies further back than any budget counts.
        """
        counts = {"$elemMatch": {"to": {"$gt": Int64(now - WINDOW_SECONDS)}}}
        with translated("removing old records of grace"):
            result = await self._documents.delete_many({"running": False, "since": {}, "spent": {"$not": counts}})
        return result.deleted_count

    async def set_end(self, pool_id: int, until: int, *, at: int, actor: Actor, reason: str) -> GraceRecord:
        """Have the grace of a pool end at the unix second `until`, now or later than it would; record that.

        Return the record as it was. Raises PoolNotFoundError if the pool is not in grace.
        """
        operator = {"until": Int64(until), "by": actor.identity, "reason": reason, "at": Int64(at)}

        async def change(session: Session) -> GraceRecord:
            known = (await self.of([pool_id], session=session)).get(pool_id)
            if known is None or not known.grace.running:
                raise PoolNotFoundError(f"pool {pool_id} is not in grace")
            event = envelope(
                EventKind.GRACE_CHANGED,
                at=at,
                actor=actor,
                subject=Subject(pool_id, known.customer_tid),
                why=Why(reason, resources=known.grace.running),
            )
            await self._documents.update_one({"_id": Int64(pool_id)}, {"$set": {"operator": operator}}, session=session)
            await self._events.insert_one(event | {"until": Int64(until)}, session=session)
            return known

        return await self._database.transact(change, doing=f"changing the grace of pool {pool_id}")


def _document(record: GraceRecord) -> dict[str, Any]:
    grace = record.grace
    document: dict[str, Any] = {"_id": Int64(record.pool_id), "customer_tid": Int64(record.customer_tid)}
    document |= {name: {str(each): Int64(at) for each, at in getattr(grace, name).items()} for name in ANCHORS}
    document["spent"] = [{"from": Int64(begin), "to": Int64(end)} for begin, end in grace.spent]
    document["running"] = bool(grace.running)
    document["decommissions"] = Int64(record.decommissions)
    if grace.operator_until is not None:
        document["operator"] = {
            "until": Int64(grace.operator_until),
            "by": record.operator_by,
            "reason": record.operator_reason,
            "at": Int64(grace.operator_at),
        }
    return document


def _readable(documents: Iterable[Mapping[str, Any]]) -> list[GraceRecord]:
    records = []
    for document in documents:
        try:
            records.append(_record(document))
        except (UnreadableDocumentError, TypeError, ValueError, AttributeError, KeyError):
            continue
    return records


def _record(document: Mapping[str, Any]) -> GraceRecord:
    anchors = {
        name: {Resource(each): fields.whole(document[name], each, UnreadableDocumentError) for each in document[name]}
        for name in ANCHORS
    }
    spent = [(_whole(each, "from"), _whole(each, "to")) for each in document["spent"]]
    operator = document.get("operator")
    return GraceRecord(
        pool_id=_whole(document, "_id"),
        customer_tid=_whole(document, "customer_tid"),
        grace=PoolGrace(
            **anchors,
            spent=tuple(spent),
            operator_until=None if operator is None else _whole(operator, "until"),
            operator_at=0 if operator is None else _whole(operator, "at"),
        ),
        operator_by="" if operator is None else cut(str(operator["by"]), REASON_CHARACTERS),
        operator_reason="" if operator is None else cut(str(operator["reason"]), REASON_CHARACTERS),
        decommissions=fields.whole_or_none(document, "decommissions") or 0,
    )


def _whole(document: Mapping[str, Any], name: str) -> int:
    return fields.whole(document, name, UnreadableDocumentError)
