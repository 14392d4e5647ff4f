"""The only package that knows MongoDB: what is read and written, how, and what its errors mean.

For other programs, these names stay; the modules behind them may change.
"""

from pool_daemon.errors import (
    PoolNotFoundError,
    ReservationNotFoundError,
    StoreConflictError,
    StoreError,
    StoreRefusedError,
    StoreUnavailableError,
    UnreadableDocumentError,
)
from pool_daemon.store.client import Database, connect
from pool_daemon.store.interface import (
    capacity_pool_create,
    capacity_reservation_create,
    capacity_reservation_get,
    get_expired_pools,
    get_next_expired_pool,
    get_pool,
    get_pools,
    get_pools_by_owner,
    update_pool,
)
from pool_daemon.store.pools import CAPACITY_POOLS as CAPACITY_POOL_COLLECTION
from pool_daemon.store.pools import CAPACITY_RESERVATIONS as CAPACITY_RESERVATION_COLLECTION
from pool_daemon.store.pools import PoolResult
from pool_daemon.store.setup import setup

__all__ = [
    "CAPACITY_POOL_COLLECTION",
    "CAPACITY_RESERVATION_COLLECTION",
    "Database",
    "PoolNotFoundError",
    "PoolResult",
    "ReservationNotFoundError",
    "StoreConflictError",
    "StoreError",
    "StoreRefusedError",
    "StoreUnavailableError",
    "UnreadableDocumentError",
    "capacity_pool_create",
    "capacity_reservation_create",
    "capacity_reservation_get",
    "connect",
    "get_expired_pools",
    "get_next_expired_pool",
    "get_pool",
    "get_pools",
    "get_pools_by_owner",
    "setup",
    "update_pool",
]
