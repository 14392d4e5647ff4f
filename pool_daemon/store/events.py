"""The daemon's own record of what it did: one document for each transition of a workload."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from bson import Int64

from pool_daemon.store.cases import Decommissioned
from pool_daemon.store.client import Database, Session
from pool_daemon.store.failures import translated

EVENTS: Final = "pool-daemon-events"


class EventStore:
    """The collection `pool-daemon-events`; `identity` is written into every record as the actor.

    A record is inserted by the transaction that makes the transition, and by nothing else. That, and not its id, is why
    there is exactly one: an attempt that is repeated leaves nothing behind of the one before, and a workload that is
    deployed again and decommissioned again, be it within the same second, gets another record.
    """

    def __init__(self, *, database: Database, identity: str) -> None:
        self._events = database.collection(EVENTS)
        self._identity = identity

    async def record(self, decommissioned: Iterable[Decommissioned], *, at: float, session: Session) -> None:
        """Record what is decommissioned at the unix instant `at` by the transaction of `session`."""
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
