"""Saves reservations as the explorer does: checked in every respect, with their new pools, and the same one once."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from bson import Int64

from pool_daemon.capacity.pool import new_pool
from pool_daemon.capacity.reservation import Reservation
from pool_daemon.capacity.reservation_checks import checks, refuse_unless_all_hold
from pool_daemon.errors import ReservationError, ReservationNotFoundError, StoreConflictError
from pool_daemon.store.client import Database
from pool_daemon.store.codec import reservation_to_document
from pool_daemon.store.error_mapping import is_duplicate, translated
from pool_daemon.store.pool_changes import ATTEMPTS, Author, Write, carry_out, change_record, pool_write
from pool_daemon.store.pools import CAPACITY_RESERVATIONS, next_id
from pool_daemon.store.records import EVENTS, SCHEMA, EventKind
from pool_daemon.store.reservations import SUBMITTED, Reservations
from pool_daemon.store.sessions import Session


@dataclass(frozen=True, slots=True)
class Submission:
    """A reservation as saved, and the writes that saved it. `repeated`: it was submitted before."""

    reservation: Reservation
    writes: tuple[Write, ...]
    repeated: bool = False


class ReservationWrites:
    """Saves reservations on behalf of `author`; in a `dry_run` all is checked, and nothing is written."""

    def __init__(self, *, database: Database, author: Author, dry_run: bool = False) -> None:
        self._database = database
        self._author = author
        self._dry_run = dry_run
        self._reservations = Reservations(database=database)
        self._submitted = database.collection(SUBMITTED)

    async def submit(self, reservation: Reservation, now: int, *, again: str = "") -> Submission:
        """Save a reservation under the next id, and the empty pool that it creates, at the unix second `now`.

        The same one is saved once, however often it is submitted: once more for each other text `again`. In a dry run
        its id is 0. Raises VerificationError, naming the first check that fails; ReservationError if it has an id
        already; StoreConflictError if other writers win each time, or the id is taken; StoreUnavailableError, in which
        case it may have been saved: submit it again.
        """
        if reservation.reservation_id != 0:
            raise ReservationError(f"id is {reservation.reservation_id}: it is saved already; only 0 is a new one")
        key = submission_key(reservation, again)
        made = await self._made_before(key)
        if made is not None:
            return await self._repeated(made)
        refuse_unless_all_hold(checks(reservation, await self._reservations.known_for(reservation)))
        if self._dry_run:
            return Submission(reservation, self._writes(reservation, key, now))
        saved = replace(reservation, reservation_id=await next_id(self._database))
        writes = self._writes(saved, key, now)

        doing = f"saving reservation {saved.reservation_id}"

        async def write(session: Session) -> None:
            await carry_out(self._database, writes, session, doing=doing)

        try:
            await self._database.transact(write, doing=doing, attempts=ATTEMPTS)
        except StoreConflictError as error:
            made = await self._made_before(key)  # another run was faster, and its record is there
            if made is not None:
                return await self._repeated(made)
            if is_duplicate(error):
                behind = "exists already: the sequence in `counters` is behind; submit it again"
                raise StoreConflictError(f"reservation {saved.reservation_id} or its pool {behind}") from error
            raise
        return Submission(saved, writes)

    def _writes(self, reservation: Reservation, key: str, now: int) -> tuple[Write, ...]:
        record = {
            "_id": key,
            "schema": SCHEMA,
            "reservation_id": Int64(reservation.reservation_id),
            "at": datetime.fromtimestamp(now, UTC),
            "by": self._author.identity,
            "version": self._author.version,
            "reason": self._author.reason,
        }
        saving = (
            Write(SUBMITTED, None, record),
            Write(CAPACITY_RESERVATIONS, None, reservation_to_document(reservation)),
        )
        data = reservation.data_reservation
        if data.pool_id != 0:
            return saving
        pool = new_pool(
            reservation.reservation_id, reservation.customer_tid, reservation.sponsor_tid, data.node_ids, now=now
        )
        told = {"amounts": [0.0, 0.0, 0.0], "reservation_id": Int64(reservation.reservation_id)}
        created = change_record(self._author, EventKind.CREATED, None, pool, told, now=now)
        return (*saving, pool_write(None, pool), Write(EVENTS, None, created))

    async def _made_before(self, key: str) -> Mapping[str, Any] | None:
        with translated("reading what was submitted"):
            record: Mapping[str, Any] | None = await self._submitted.find_one({"_id": key})
        return record

    async def _repeated(self, record: Mapping[str, Any]) -> Submission:
        reservation_id = record["reservation_id"]
        try:
            return Submission(await self._reservations.get(reservation_id), (), repeated=True)
        except ReservationNotFoundError as error:
            raise ReservationNotFoundError(
                f"reservation {reservation_id}: it was submitted as this one, which has no document: is a backup being "
                "restored? Once that is over, --idempotency-key submits it once more"
            ) from error


def submission_key(reservation: Reservation, again: str = "") -> str:
    """Return the key under which a reservation is saved once: a digest of its text and signatures, and of `again`."""
    signed = (
        reservation.json,
        reservation.customer_tid,
        reservation.customer_signature.lower(),
        reservation.sponsor_tid,
        reservation.sponsor_signature.lower(),
        again,
    )
    return hashlib.sha256(json.dumps(signed).encode()).hexdigest()
