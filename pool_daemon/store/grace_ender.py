"""The end of grace by a top-up: the record of a pool that is not due any more is brought up to date."""

from collections.abc import Sequence

from bson import Int64

from pool_daemon.capacity.grace import Ended
from pool_daemon.store.case_reader import readable_pools
from pool_daemon.store.client import Database
from pool_daemon.store.codec import RAW
from pool_daemon.store.events import EventStore
from pool_daemon.store.grace_decisions import GraceReader
from pool_daemon.store.pools import CAPACITY_POOLS, PoolStore
from pool_daemon.store.records import Actor
from pool_daemon.store.sessions import Session


class GraceEnder:
    """Ends the grace of pools that are not due any more; a settlement would find out only when they run out again.

    `records` are those of grace; `actor` is written into every record of what is done. Every method raises
    StoreUnavailableError when MongoDB is away, and StoreRefusedError when it refuses.
    """

    def __init__(self, *, database: Database, grace: GraceReader, actor: Actor) -> None:
        self._database = database
        self.records = grace.store
        self._grace = grace
        self._events = EventStore(database=database, actor=actor)
        self._pools = database.collection(CAPACITY_POOLS, RAW)
        self._pool_store = PoolStore(database=database)

    async def due_among(self, pool_ids: Sequence[int], *, now: int) -> set[int]:
        """Return those of some pools that are due at the unix second `now`."""
        return {pool.pool_id for pool in await self._pool_store.due_among(pool_ids, until=now)}

    async def end(self, pool_ids: Sequence[int], *, now: int) -> list[Ended]:
        """End the grace of those pools that are not due at the unix second `now`, as far as their resources last again.

        Records are read again, and written with what is told of them, in one transaction: of this and a settlement one
        conflicts, and decides anew. Raises StoreConflictError if another wins each time.
        """

        async def decide_and_write(session: Session) -> list[Ended]:
            query = {"_id": {"$in": [Int64(pool_id) for pool_id in pool_ids]}, "empty_at": {"$gt": Int64(now)}}
            pools, _ = await readable_pools(self._pools, query, most=len(pool_ids), session=session)
            graces = await self._grace.of([pool.pool_id for pool in pools], session=session)
            decided = [graces.topped_up(pool, now=now) for pool in pools]
            changes = [change for change in decided if change is not None]
            if changes:
                await self.records.write([change.record for change in changes], session=session)
                await self._events.graces(changes, at=now, session=session)
            return [ended for change in changes for ended in change.ended]

        return await self._database.transact(decide_and_write, doing="ending graces")
