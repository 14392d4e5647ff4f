"""The rules of capacity: the contents of a pool, its drain, and the second at which it runs empty.

Pure functions: documents and instants are passed in; no database, clock or setting is read.

For other programs, these names stay; the modules behind them may change.
"""

from pool_daemon.capacity.pool import NEVER, Pool, new_pool
from pool_daemon.capacity.reservation import Reservation, ReservationData
from pool_daemon.capacity.what_if import Change, Changes, has_capacity, is_allowed, what_if
from pool_daemon.capacity.workload import CloudUnits, NextAction, WorkloadType, cloud_units
from pool_daemon.errors import CapacityError, NotFiniteError, ReservationError, UnitsError, VerificationError

__all__ = [
    "NEVER",
    "CapacityError",
    "Change",
    "Changes",
    "CloudUnits",
    "NextAction",
    "NotFiniteError",
    "Pool",
    "Reservation",
    "ReservationData",
    "ReservationError",
    "UnitsError",
    "VerificationError",
    "WorkloadType",
    "cloud_units",
    "has_capacity",
    "is_allowed",
    "new_pool",
    "what_if",
]
