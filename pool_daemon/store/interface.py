"""The existing service's functions on pools and reservations, under their own names, for other programs.

Each takes the database first, which `connect` opens, and raises StoreUnavailableError when MongoDB is away, and
StoreRefusedError when it refuses. The daemon itself uses the modules behind them.
"""

from collections.abc import AsyncIterator

from pool_daemon.capacity.pool import Pool
from pool_daemon.capacity.reservation import Reservation
from pool_daemon.store.client import Database
from pool_daemon.store.pools import PoolResult, PoolStore, ReservationStore


async def capacity_pool_create(database: Database, pool: Pool) -> Pool:
    """Save a new pool and return it as saved; id 0 draws the next one. Raises StoreConflictError if the id is taken."""
    return await PoolStore(database=database).capacity_pool_create(pool)


async def update_pool(database: Database, pool: Pool, *, as_read: Pool) -> bool:
    """Save what differs from `as_read`, if the document is still as it was read.

    Returns False, and changes nothing, if another writer was faster: read the pool again and decide anew.
    """
    return await PoolStore(database=database).update_pool(pool, as_read=as_read)


async def get_pool(database: Database, pool_id: int) -> Pool:
    """Return the pool with that id. Raises PoolNotFoundError or UnreadableDocumentError."""
    return await PoolStore(database=database).get_pool(pool_id)


def get_pools(database: Database) -> AsyncIterator[PoolResult]:
    """Stream every pool by id; an unreadable one comes as an error, and the stream goes on."""
    return PoolStore(database=database).get_pools()


async def get_pools_by_owner(database: Database, owner_tid: int) -> list[Pool]:
    """Return the readable pools of one owner."""
    return await PoolStore(database=database).get_pools_by_owner(owner_tid)


async def get_expired_pools(database: Database, ts: int) -> list[Pool]:
    """Return the readable pools that are empty at the unix second `ts`, longest empty first."""
    return await PoolStore(database=database).get_expired_pools(ts)


async def get_next_expired_pool(database: Database, ts: int) -> Pool:
    """Return the first readable pool to run empty after the unix second `ts`. Raises PoolNotFoundError if none does."""
    return await PoolStore(database=database).get_next_expired_pool(ts)


async def capacity_reservation_create(database: Database, reservation: Reservation) -> Reservation:
    """Save a reservation under the next id, and return it as saved; it is not checked."""
    return await ReservationStore(database=database).capacity_reservation_create(reservation)


async def capacity_reservation_get(database: Database, reservation_id: int) -> Reservation:
    """Return the reservation with that id. Raises ReservationNotFoundError or UnreadableDocumentError."""
    return await ReservationStore(database=database).capacity_reservation_get(reservation_id)
