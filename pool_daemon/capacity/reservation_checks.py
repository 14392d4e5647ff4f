"""Every check that a reservation has to pass before it is saved, by name, each with its outcome and reason."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from pool_daemon.capacity.pool import Pool
from pool_daemon.capacity.reservation import Reservation, Signer
from pool_daemon.errors import CapacityError, VerificationError

NOT_ASKED: Final = "no database was asked"

FARM_UNKNOWN: Final = "the data contract names no farms"


class Outcome(StrEnum):
    """How a check ended."""

    OK = "ok"
    FAILED = "failed"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True, slots=True)
class Check:
    """One check; `reason` says what was found, what is wrong, or why it was not checked.

    `optional`: the reservation may be accepted although this was not checked.
    """

    name: str
    outcome: Outcome
    reason: str = ""
    optional: bool = False

    @property
    def holds(self) -> bool:
        """Whether the reservation passes this check."""
        return self.outcome is Outcome.OK or (self.outcome is Outcome.NOT_CHECKED and self.optional)


@dataclass(frozen=True, slots=True)
class User:
    """A user: the public key in hexadecimal, and whether it may sponsor reservations."""

    public_key: str
    is_trusted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a reservation is checked against; None is what is not there, or not known.

    Without `asked`, no database was asked, and the users have public keys only.
    """

    customer: User | None
    sponsor: User | None
    pool: Pool | None = None
    asked: bool = True


def checks(reservation: Reservation, known: Known) -> list[Check]:
    """Check a reservation in every respect; the outcomes are in the order of the explorer's own checks."""
    return [
        _tried("signed text", reservation.validate_text, "says the same as data_reservation"),
        _tried("nodes", reservation.validate_nodes, f"{len(reservation.data_reservation.node_ids or ()):,} named"),
        Check("one farm", Outcome.NOT_CHECKED, FARM_UNKNOWN, optional=True),
        _customer(reservation, known),
        _signature(reservation, Signer.CUSTOMER, known.customer, asked=known.asked),
        _sponsor(reservation, known),
        _signature(reservation, Signer.SPONSOR, known.sponsor, asked=known.asked),
        _pool(reservation, known),
    ]


def signature_checks(reservation: Reservation, known: Known) -> list[Check]:
    """Check only that the customer and, if one is named, the sponsor have signed the reservation."""
    return [
        _signature(reservation, Signer.CUSTOMER, known.customer, asked=known.asked),
        _signature(reservation, Signer.SPONSOR, known.sponsor, asked=known.asked),
    ]


def refuse_unless_all_hold(results: Iterable[Check]) -> None:
    """Raise VerificationError for the first check that does not hold."""
    for each in results:
        if not each.holds:
            unchecked = "" if each.outcome is Outcome.FAILED else "not checked: "
            raise VerificationError(f"{each.name}: {unchecked}{each.reason}")


def _tried(name: str, check: Callable[[], None], found: str) -> Check:
    try:
        check()
    except CapacityError as error:
        return Check(name, Outcome.FAILED, str(error))
    return Check(name, Outcome.OK, found)


def _customer(reservation: Reservation, known: Known) -> Check:
    if reservation.customer_tid == 0:
        return Check("customer", Outcome.FAILED, "customer_tid is required")
    return _user("customer", reservation.customer_tid, known.customer, asked=known.asked)


def _sponsor(reservation: Reservation, known: Known) -> Check:
    if reservation.sponsor_tid == 0:
        return Check("sponsor", Outcome.OK, "none is named")
    check = _user("sponsor", reservation.sponsor_tid, known.sponsor, asked=known.asked)
    if known.sponsor is None or check.outcome is not Outcome.OK:
        return check
    if not known.sponsor.is_trusted:
        return replace(check, outcome=Outcome.FAILED, reason=f"{check.reason} is no trusted_sales_channel")
    return replace(check, reason=f"{check.reason}, a trusted sales channel")


def _user(name: str, tid: int, user: User | None, *, asked: bool) -> Check:
    if not asked:
        return Check(name, Outcome.NOT_CHECKED, NOT_ASKED, optional=True)
    if user is None:
        return Check(name, Outcome.FAILED, f"user {tid} is unknown")
    return Check(name, Outcome.OK, f"user {tid}")


def _signature(reservation: Reservation, signer: Signer, user: User | None, *, asked: bool) -> Check:
    name = f"{signer}'s signature"
    if signer is Signer.SPONSOR and reservation.sponsor_tid == 0:
        return Check(name, Outcome.OK, "none is needed")
    if not getattr(reservation, f"{signer}_signature"):
        return Check(name, Outcome.FAILED, f"{signer}_signature is required")
    if user is None:
        reason = f"the {signer} is unknown" if asked else f"the {signer}'s public key is not named"
        return Check(name, Outcome.NOT_CHECKED, reason)
    verify = reservation.verify if signer is Signer.CUSTOMER else reservation.verify_sponsor
    return _tried(name, lambda: verify(user.public_key), "holds")


def _pool(reservation: Reservation, known: Known) -> Check:
    pool_id, pool = reservation.data_reservation.pool_id, known.pool
    if pool_id == 0:
        return Check("pool", Outcome.OK, "a new one")
    if not known.asked:
        return Check("pool", Outcome.NOT_CHECKED, NOT_ASKED, optional=True)
    if pool is None:
        return Check("pool", Outcome.FAILED, f"pool {pool_id} is unknown")
    return _tried("pool", lambda: reservation.validate_extension(pool), f"extends pool {pool_id}")
