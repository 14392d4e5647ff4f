"""The workloads of a pool that wait for its payment: found, and deployed with their orders, in one transaction.

A customer decides how many there are and how long each is. So they are counted with their bytes before one is read, and
copied in portions of bounded size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bson import Int64

from pool_daemon.capacity.workload import NextAction
from pool_daemon.errors import CapacityError, StoreConflictError
from pool_daemon.store.client import Database
from pool_daemon.store.codec import RAW
from pool_daemon.store.error_mapping import translated
from pool_daemon.store.pool_changes import Write
from pool_daemon.store.sessions import Session
from pool_daemon.store.workloads import NO_ARRAY, WORKLOADS, WORKQUEUE, WorkloadStore

MOST_WORKLOADS: Final = 2000
"""Workloads that one transaction deploys: a second's work, and far from what the server refuses."""

MOST_BYTES: Final = 32 * 2**20
"""Bytes of documents that one transaction copies."""

PORTION_BYTES: Final = 4 * 2**20
"""Bytes of documents in memory at once, or one document if it is longer."""

AWAITING: Final = {"$eq": int(NextAction.PAY), "$not": {"$type": ["array", "decimal"]}}


@dataclass(frozen=True, slots=True)
class Waiting:
    """A workload that waits, and the size of its document in bytes."""

    workload_id: Any
    size: int


class Deployments:
    """Deploys workloads that wait for payment, as the explorer does when it has been paid."""

    def __init__(self, *, database: Database) -> None:
        self._workloads = database.collection(WORKLOADS)
        self._raw = database.collection(WORKLOADS, RAW)
        self._store = WorkloadStore(database=database)

    async def waiting(self, pool_id: int, session: Session | None = None) -> list[Waiting]:
        """Return the pool's workloads that wait.

        Raises CapacityError if they are more than one transaction can deploy.
        """
        stages: list[dict[str, Any]] = [
            {"$match": {"pool_id": {"$eq": Int64(pool_id)} | NO_ARRAY, "next_action": AWAITING}},
            {"$match": {"_id": {"$type": "number"}}},
            {"$sort": {"_id": 1}},
            {"$limit": MOST_WORKLOADS + 1},
            {"$project": {"size": {"$bsonSize": "$$ROOT"}}},
        ]
        with translated(f"reading the workloads of pool {pool_id}"):
            found = await self._workloads.aggregate(stages, session=session).to_list(None)
        waiting = [Waiting(each["_id"], each["size"]) for each in found]
        if len(waiting) > MOST_WORKLOADS or sum(each.size for each in waiting) > MOST_BYTES:
            raise CapacityError(
                f"pool {pool_id}: more workloads wait for payment than one transaction can deploy ({MOST_WORKLOADS:,} "
                f"of them, {MOST_BYTES // 2**20} MB of documents); --without-workloads credits the pool alone"
            )
        return waiting

    async def deploy(self, waiting: Sequence[Waiting], session: Session) -> None:
        """Deploy workloads and write their orders, copies of the documents byte for byte but for the next action.

        Raises StoreConflictError if one no longer waits.
        """
        for portion in _portions(waiting):
            stages: list[dict[str, Any]] = [
                {"$match": {"_id": {"$in": portion}}},
                {"$set": {"next_action": int(NextAction.DEPLOY)}},
            ]
            with translated("copying workloads"):
                copies = await self._raw.aggregate(stages, session=session).to_list(None)
            await self._store.order([(copy["_id"], copy) for copy in copies], session=session)
        ids = [each.workload_id for each in waiting]
        changed = await self._store.set_next_action(ids, was=NextAction.PAY, to=NextAction.DEPLOY, session=session)
        if changed != len(ids):
            raise StoreConflictError(f"deploying workloads: {changed} of {len(ids)} were still waiting")

    @staticmethod
    def as_writes(waiting: Sequence[Waiting]) -> list[Write]:
        """Return what `deploy` writes; the orders as what they are copies of."""
        if not waiting:
            return []
        ids = [each.workload_id for each in waiting]
        deployed = {"next_action": int(NextAction.DEPLOY)}
        orders = [Write(WORKQUEUE, {"_id": each}, {"upsert": {"a copy of workload": each} | deployed}) for each in ids]
        waits = {"_id": {"$in": ids}, "next_action": int(NextAction.PAY)}
        return [Write(WORKLOADS, waits, {"$set": deployed}), *orders]


def _portions(waiting: Sequence[Waiting]) -> Iterator[list[Any]]:
    portion: list[Any] = []
    size = 0
    for each in waiting:
        if portion and size + each.size > PORTION_BYTES:
            yield portion
            portion, size = [], 0
        portion.append(each.workload_id)
        size += each.size
    if portion:
        yield portion
