"""The payment of a reservation as the explorer keeps it, and what follows from it for those who credit by hand."""

from dataclasses import dataclass
from enum import StrEnum


class ReservationState(StrEnum):
    """Who has credited a reservation to its pool, or may still do so."""

    APPLIED = "applied"
    """An operator has: `reservations apply`."""
    PAID = "paid"
    """The explorer has, or is about to; nothing records that it did."""
    WAITING = "waiting"
    """The explorer will, as soon as it is paid."""
    EXPIRED = "expired"
    """Nobody: it was not paid in time."""
    CANCELED = "canceled"
    """Nobody: the payment was canceled, or is being refunded."""
    OPEN = "open"
    """Nobody: the explorer waits for no payment."""


@dataclass(frozen=True, slots=True)
class Escrow:
    """A document of `capacity-escrow`; `expiration` in unix seconds, None if it cannot be read."""

    paid: bool
    released: bool
    canceled: bool
    cancellation_pending: bool
    expiration: float | None

    def state(self, now: float) -> ReservationState:
        """Return the reservation's state at the unix second `now`; what is unclear counts as not expired."""
        if self.paid or self.released:
            return ReservationState.PAID
        if self.canceled or self.cancellation_pending:
            return ReservationState.CANCELED
        if self.expiration is not None and self.expiration <= now:
            return ReservationState.EXPIRED
        return ReservationState.WAITING


def state_of(escrow: Escrow | None, *, applied: bool, now: float) -> ReservationState:
    """Return a reservation's state at the unix second `now`."""
    if applied:
        return ReservationState.APPLIED
    return ReservationState.OPEN if escrow is None else escrow.state(now)


def credit_to_come(escrow: Escrow | None, now: float) -> str | None:
    """Return why the explorer credits the reservation itself; None if it does not."""
    match state_of(escrow, applied=False, now=now):
        case ReservationState.PAID:
            return "it is paid, so the explorer has credited it or is about to"
        case ReservationState.WAITING:
            return "the explorer credits it as soon as it is paid"
        case _:
            return None
