"""Credits reservations to their pools, each exactly once, in place of the explorer.

The explorer credits one when it is paid, and records nowhere that it did. Here one transaction holds the credit, the
workloads that waited for it, and a record under the reservation's id: whoever comes second finds that, or fails on it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from bson import Int64

from pool_daemon.capacity.escrow import credit_to_come
from pool_daemon.capacity.pool import Pool
from pool_daemon.capacity.reservation import Reservation, ReservationData
from pool_daemon.capacity.reservation_checks import refuse_unless_all_hold, signature_checks
from pool_daemon.errors import CapacityError, PoolNotFoundError, StoreConflictError, VerificationError
from pool_daemon.store.client import Database
from pool_daemon.store.deployments import Deployments
from pool_daemon.store.pool_changes import (
    ATTEMPTS,
    Author,
    Write,
    carry_out,
    change_record,
    claim_pool,
    pool_write,
    read_pool,
)
from pool_daemon.store.pool_edits import Edit
from pool_daemon.store.records import EVENTS, SCHEMA, EventKind
from pool_daemon.store.reservations import APPLIED, Applied, Reservations
from pool_daemon.store.sessions import Session


@dataclass(frozen=True, slots=True)
class Terms:
    """How a reservation is credited: at which unix second, and with which of the safeguards lifted."""

    now: int
    although_escrow: bool = False
    with_workloads: bool = True


@dataclass(frozen=True, slots=True)
class Credit:
    """What was done for a reservation: the change of its pool by `amounts`, and how many workloads were deployed.

    Amounts are unit seconds (cu, su, ipv4u). If it was credited before, `applied` is the record of that, and there is
    no change.
    """

    edit: Edit | None = None
    amounts: tuple[int, int, int] = (0, 0, 0)
    workloads: int = 0
    applied: Applied | None = None


class ReservationCredits:
    """Credits reservations on behalf of `author`; in a `dry_run` all is read and decided, and nothing is written."""

    def __init__(self, *, database: Database, author: Author, dry_run: bool = False) -> None:
        self._database = database
        self._author = author
        self._dry_run = dry_run
        self._reservations = Reservations(database=database)
        self._deployments = Deployments(database=database)

    async def apply(self, reservation_id: int, terms: Terms) -> Credit:
        """Add a reservation's amounts and nodes to its pool, and deploy the workloads that waited for them.

        Raises ReservationNotFoundError, PoolNotFoundError, UnreadableDocumentError; ReservationError if it is invalid;
        VerificationError if its customer or its sponsor has not signed it; CapacityError if the explorer credits it, or
        more workloads wait than one transaction can deploy;
        StoreConflictError if other writers of the pool win each time; StoreUnavailableError, in which case it may have
        been credited: apply it again.
        """
        applied = await self._reservations.applied(reservation_id)
        if applied is not None:
            return Credit(applied=applied)
        reservation = await self._reservations.get(reservation_id)
        reservation.validate()
        await self._refuse_unless_signed(reservation)
        credit = partial(self._credit, reservation, terms)
        if self._dry_run:
            return await credit(None)
        try:
            return await self._database.transact(
                credit, doing=f"crediting reservation {reservation_id}", attempts=ATTEMPTS
            )
        except StoreConflictError:
            applied = await self._reservations.applied(reservation_id)  # another run was faster
            if applied is None:
                raise
            return Credit(applied=applied)

    async def _credit(self, reservation: Reservation, terms: Terms, session: Session | None) -> Credit:
        data = reservation.data_reservation
        pool_id = data.pool_id or reservation.reservation_id
        read = read_pool(self._database, pool_id) if session is None else claim_pool(self._database, pool_id, session)
        before = await read
        if before is None:
            raise PoolNotFoundError(f"pool {pool_id} of reservation {reservation.reservation_id} could not be found")
        await self._refuse_if_the_explorer_credits(reservation, terms, session)
        waiting = await self._deployments.waiting(pool_id, session) if terms.with_workloads else []
        after, present = _credited(before, data, terms.now), set(before.node_ids or ())
        told = {
            "amounts": [float(data.cus), float(data.sus), float(data.ipv4us)],
            "nodes": [each for each in after.node_ids or () if each not in present],
            "reservation_id": Int64(reservation.reservation_id),
            "workloads": len(waiting),
        }
        writes = (
            Write(APPLIED, None, self._applied_record(reservation, pool_id, terms)),
            pool_write(before, after),
            Write(EVENTS, None, self._event(before, after, told, terms)),
        )
        if session is not None:
            doing = f"crediting reservation {reservation.reservation_id}"
            await carry_out(self._database, writes, session, doing=doing)
            if waiting:
                await self._deployments.deploy(waiting, session)
        edit = Edit(after, before, (*writes, *self._deployments.as_writes(waiting)))
        return Credit(edit, (data.cus, data.sus, data.ipv4us), len(waiting))

    async def _refuse_unless_signed(self, reservation: Reservation) -> None:
        """Check the signatures against the keys of today; pool, nodes and trust were checked when it was saved."""
        try:
            refuse_unless_all_hold(signature_checks(reservation, await self._reservations.known_for(reservation)))
        except VerificationError as error:
            number = reservation.reservation_id
            raise VerificationError(
                f"reservation {number}: {error}; nothing is credited: `reservations verify {number}` shows each check, "
                "and `pools top-up` adds capacity without a reservation"
            ) from None

    async def _refuse_if_the_explorer_credits(
        self, reservation: Reservation, terms: Terms, session: Session | None
    ) -> None:
        escrow = await self._reservations.escrow(reservation.reservation_id, session)
        reason = credit_to_come(escrow, terms.now)
        if reason is not None and not terms.although_escrow:
            raise CapacityError(
                f"reservation {reservation.reservation_id}: {reason}; if you know that it does not, "
                "--although-escrow credits it all the same"
            )

    def _applied_record(self, reservation: Reservation, pool_id: int, terms: Terms) -> dict[str, Any]:
        return {
            "_id": Int64(reservation.reservation_id),
            "schema": SCHEMA,
            "pool_id": Int64(pool_id),
            "customer_tid": Int64(reservation.customer_tid),
            "at": datetime.fromtimestamp(terms.now, UTC),
            "by": self._author.identity,
            "version": self._author.version,
            "reason": self._author.reason,
            "although_escrow": terms.although_escrow,
        }

    def _event(self, before: Pool, after: Pool, told: Mapping[str, Any], terms: Terms) -> dict[str, Any]:
        return change_record(self._author, EventKind.APPLIED, before, after, told, now=terms.now)


def _credited(before: Pool, data: ReservationData, now: int) -> Pool:
    """Return a pool with a reservation's amounts and nodes.

    The explorer replaces the nodes by the reservation's. Those that others have added since then stay here.
    """
    after = replace(before)
    after.add_capacity(float(data.cus), float(data.sus), float(data.ipv4us), now=now)
    named = set(data.node_ids or ())
    after.node_ids = [*(data.node_ids or ()), *(each for each in before.node_ids or () if each not in named)]
    return after
