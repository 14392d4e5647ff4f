"""The daemon's record of its decommissions: one document for each transition of a workload.

The records of operators' changes, in the same collection, are written by `pool_edits`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from bson import Int64

from pool_daemon.store.cases import Decommissioned
from pool_daemon.store.client import Database, Session
from pool_daemon.store.error_mapping import translated

EVENTS: Final = "pool-daemon-events"


class EventStore:
    """The collection `pool-daemon-events`; `identity` is written into every record as the actor.

    A record is inserted only by the transaction that makes the transition. That, and not its id, is why there is
    exactly one: an aborted attempt leaves nothing behind, and a workload that is deployed and decommissioned again,
    even within the same second, gets another record.
    """

    def __init__(self, *, database: Database, identity: str) -> None:
        self._events = database.collection(EVENTS)
        self._identity = identity

    async def record(self, decommissioned: Iterable[Decommissioned], *, at: float, session: Session) -> None:
        """Record the workloads that the transaction of `session` decommissions at the unix instant `at`."""
        with translated("recording events"):
            await self._events.insert_many(
                [self._record(gone, at) for gone in decommissioned], ordered=False, session=session
            )

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
