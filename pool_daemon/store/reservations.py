"""Capacity reservations in the database, under the function names of the existing service's interface."""

from dataclasses import replace

from bson import Int64

from pool_daemon.capacity.reservation import Reservation
from pool_daemon.errors import ReservationNotFoundError
from pool_daemon.store.client import Database
from pool_daemon.store.codec import RAW, decoded, reservation_from_document, reservation_to_document
from pool_daemon.store.error_mapping import translated
from pool_daemon.store.pools import CAPACITY_RESERVATIONS, next_id


class ReservationStore:
    """The collection `capacity-reservations`.

    Every method raises StoreUnavailableError when MongoDB is away, and StoreRefusedError when it refuses.
    """

    def __init__(self, *, database: Database) -> None:
        self._database = database
        self._reservations = database.collection(CAPACITY_RESERVATIONS)
        self._raw = database.collection(CAPACITY_RESERVATIONS, RAW)

    async def capacity_reservation_create(self, reservation: Reservation) -> Reservation:
        """Save a reservation under the next id of the sequence, and return it as saved."""
        saved = replace(reservation, reservation_id=await next_id(self._database))
        with translated(f"creating reservation {saved.reservation_id}"):
            await self._reservations.insert_one(reservation_to_document(saved))
        return saved

    async def capacity_reservation_get(self, reservation_id: int) -> Reservation:
        """Return the reservation with that id.

        Raises ReservationNotFoundError or UnreadableDocumentError.
        """
        with translated(f"reading reservation {reservation_id}"):
            raw = await self._raw.find_one({"_id": Int64(reservation_id)})
        if raw is None:
            raise ReservationNotFoundError(f"reservation {reservation_id}: the specified reservation was not found")
        return reservation_from_document(decoded(raw))
