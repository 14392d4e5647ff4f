"""The daemon's own record of what it did: one document for each workload, which cannot exist twice."""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from bson import Int64
from pymongo import UpdateOne

from pool_daemon.store.cases import Decommissioned
from pool_daemon.store.client import Database, Session
from pool_daemon.store.failures import translated

EVENTS: Final = "pool-daemon-events"


class EventStore:
    """The collection `pool-daemon-events`; `identity` is written into every record as who did it."""

    def __init__(self, *, database: Database, identity: str) -> None:
        self._events = database.collection(EVENTS)
        self._identity = identity

    async def record_first(
        self, decommissioned: Iterable[Decommissioned], *, at: float, session: Session | None = None
    ) -> None:
        """Record what was decommissioned at the unix instant `at`, as nobody has before.

        Raises StoreConflictError, a duplicate, if a record is there already.
        """
        records = [{"_id": event_id(gone)} | self._record(gone, at) for gone in decommissioned]
        with translated("recording events"):
            await self._events.insert_many(records, ordered=False, session=session)

    async def record(
        self, decommissioned: Sequence[Decommissioned], *, at: float, session: Session | None = None
    ) -> None:
        """Record what was decommissioned at the unix instant `at`, whether or not that has happened before."""
        await self.write(await self.prepared(decommissioned, at=at, session=session), session=session)

    async def prepared(
        self, decommissioned: Sequence[Decommissioned], *, at: float, session: Session | None = None
    ) -> list[dict[str, Any]]:
        """Return the records of what is decommissioned at the unix instant `at`, to be written once that is done.

        A workload that was deployed again in a pool that nobody has written since is decommissioned a second time at
        the same end: that record has the second in its id, too.
        """
        ids = [event_id(gone) for gone in decommissioned]
        with translated("looking for older events"):
            known = set(await self._events.distinct("_id", {"_id": {"$in": ids}}, session=session))
        return [
            {"_id": f"{name}/{math.floor(at)}" if name in known else name} | self._record(gone, at)
            for name, gone in zip(ids, decommissioned, strict=True)
        ]

    async def write(self, records: Iterable[Mapping[str, Any]], *, session: Session | None = None) -> None:
        """Write prepared records; one that is there already stays as it is."""
        upserts = [UpdateOne({"_id": record["_id"]}, {"$setOnInsert": record}, upsert=True) for record in records]
        with translated("recording events"):
            await self._events.bulk_write(upserts, ordered=False, session=session)

    def _record(self, gone: Decommissioned, at: float) -> dict[str, Any]:
        return {
            "kind": "decommissioned",
            "workload_id": gone.workload_id,
            "pool_id": Int64(gone.pool_id),
            "customer_tid": Int64(gone.customer_tid),
            "workload_type": gone.workload_type,
            "node_id": gone.node_id,
            "resources": list(gone.resources),
            "reason": "resource exhausted",
            "empty_at": Int64(gone.empty_at),
            "decommissioned_at": datetime.fromtimestamp(at, UTC),
            "by": self._identity,
        }


def event_id(gone: Decommissioned) -> str:
    """Return the id of the record of a workload's decommissioning, made of it, its pool and the pool's end."""
    return f"{gone.workload_id!r}/{gone.pool_id}/{gone.empty_at}"
