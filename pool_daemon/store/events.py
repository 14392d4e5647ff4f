"""The collection `pool-daemon-events`: what is inserted into it, and its last records for the status.

What one record consists of is in `records`, the history in `event_history`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from bson import Int64

from pool_daemon.capacity.drift import Drift
from pool_daemon.capacity.pool import Pool
from pool_daemon.errors import StoreConflictError
from pool_daemon.store.cases import Case
from pool_daemon.store.client import Database
from pool_daemon.store.error_mapping import is_duplicate, translated
from pool_daemon.store.grace_decisions import GraceChange
from pool_daemon.store.records import EVENTS, Actor, EventKind, Subject, Why, envelope, numbers
from pool_daemon.store.sessions import Session

EXHAUSTED: Final = "resource exhausted"


class EventStore:
    """Inserts records of what `actor` does.

    The record of a decommission is inserted only by the transaction that makes the transition. That, and not its id, is
    why there is exactly one: an aborted attempt leaves nothing behind, and a workload that is deployed and
    decommissioned again, even within the same second, gets another record.
    """

    def __init__(self, *, database: Database, actor: Actor) -> None:
        self._events = database.collection(EVENTS)
        self.actor = actor

    async def decommissioned(self, cases: Iterable[Case], *, at: float, session: Session) -> None:
        """Record the workloads that the transaction of `session` decommissions at the unix instant `at`."""
        await self.add([record for case in cases for record in self._records(case, at)], session=session)

    async def graces(self, changes: Iterable[GraceChange], *, at: float, session: Session) -> None:
        """Record the graces that begin and end with the transaction of `session` at the unix instant `at`."""
        if records := [record for change in changes for record in self._grace_records(change, at)]:
            await self.add(records, session=session)

    async def repaired(self, pool: Pool, after: Pool, drift: Drift, *, at: float, session: Session) -> None:
        """Record that the transaction of `session` repairs a pool, as it was read and as it is `after` that."""
        record = envelope(
            EventKind.DRIFT_REPAIRED,
            at=at,
            actor=self.actor,
            subject=Subject(pool.pool_id, pool.customer_tid),
            why=Why(drift.in_words, empty_at=pool.empty_at, before=numbers(pool)),
        )
        await self.add([record | {"after": numbers(after)}], session=session)

    async def add(self, records: Sequence[Mapping[str, Any]], *, session: Session | None = None) -> None:
        """Insert records; without a transaction, those that an earlier attempt has inserted are there already.

        Raises StoreUnavailableError, in which case some may have been inserted, or StoreRefusedError.
        """
        try:
            with translated("recording events"):
                await self._events.insert_many(records, ordered=False, session=session)
        except StoreConflictError as error:
            if session is not None or not is_duplicate(error):
                raise

    def _grace_records(self, change: GraceChange, at: float) -> Iterable[dict[str, Any]]:
        pool = change.pool
        of_pool: dict[str, Any] = {"at": at, "actor": self.actor, "subject": Subject(pool.pool_id, pool.customer_tid)}
        before = numbers(pool)
        for ended in change.ended:
            why = Why(ended.reason, [ended.resource], pool.empty_at, before)
            yield envelope(EventKind.GRACE_ENDED, why=why, **of_pool) | {"since": Int64(ended.since)}
        if change.began:
            why = Why(EXHAUSTED, change.began, pool.empty_at, before)
            told = {"workloads": change.workloads, "until": Int64(change.until)}
            yield envelope(EventKind.GRACE_BEGAN, why=why, **of_pool) | told

    def _records(self, case: Case, at: float) -> Iterable[dict[str, Any]]:
        before = numbers(case.as_read) if case.gone else None
        for gone in case.gone:
            record = envelope(
                EventKind.DECOMMISSIONED,
                at=at,
                actor=self.actor,
                subject=Subject(gone.pool_id, gone.customer_tid, gone.workload_id, gone.workload_type, gone.node_id),
                why=Why(EXHAUSTED, gone.resources, gone.empty_at, before),
            )
            yield record | {"decommissioned_at": record["at"]}


SHOWN: Final = {"_id": 0, "pool_id": 1, "resources": 1, "decommissioned_at": 1}


@dataclass(frozen=True, slots=True)
class RecordedPool:
    """A pool that lost workloads at one instant (unix seconds), according to the last records."""

    pool_id: int
    decommissioned_at: float
    resources: tuple[str, ...]
    workloads: int


class RecentEvents:
    """Reads the end of `pool-daemon-events`, at a bounded cost however long that collection is."""

    def __init__(self, *, database: Database) -> None:
        self._events = database.collection(EVENTS)

    async def last(self, *, records: int) -> list[RecordedPool]:
        """Return the pools of the last records, oldest first; an unreadable record is left out.

        Raises StoreUnavailableError or StoreRefusedError.
        """
        cursor = self._events.find({}, SHOWN, sort=[("$natural", -1)], limit=records)
        with translated("reading the last events"):
            documents = await cursor.to_list(records)
        pools: dict[tuple[int, float], RecordedPool] = {}
        for pool in reversed([each for document in documents if (each := _recorded(document)) is not None]):
            key = (pool.pool_id, pool.decommissioned_at)
            known = pools.get(key)
            pools[key] = pool if known is None else _together(known, pool)
        return list(pools.values())


def _recorded(document: Mapping[str, Any]) -> RecordedPool | None:
    pool_id, at, resources = (document.get(name) for name in ("pool_id", "decommissioned_at", "resources"))
    if not isinstance(pool_id, int) or not isinstance(at, datetime) or not isinstance(resources, list):
        return None
    return RecordedPool(pool_id, at.timestamp(), tuple(map(str, resources)), 1)


def _together(one: RecordedPool, other: RecordedPool) -> RecordedPool:
    resources = (*one.resources, *(each for each in other.resources if each not in one.resources))
    return RecordedPool(one.pool_id, one.decommissioned_at, resources, one.workloads + other.workloads)
