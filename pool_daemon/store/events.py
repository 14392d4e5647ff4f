"""The daemon's record of its decommissions: one document for each transition of a workload."""

from collections.abc import Iterable
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
