"""How long a pool lasts: what is left of each resource, when it runs out, and what a longer life takes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from pool_daemon.capacity.arithmetic import LATEST, runs_out_at
from pool_daemon.capacity.exhaustion import RESOURCES, Resource
from pool_daemon.capacity.pool import NEVER, Amounts, Pool


@dataclass(frozen=True, slots=True)
class Outlook:
    """One resource of a pool at one instant: unit seconds left, units that drain it, and the second of its end.

    `runs_out_at` is `NEVER` while nothing drains the resource. It is None if the resource was exhausted when the pool
    was last written: since when is not recorded.
    """

    resource: Resource
    left: float
    rate: float
    runs_out_at: int | None

    @property
    def is_exhausted(self) -> bool:
        """Whether something drains the resource, and it does not last another second."""
        return self.rate > 0 and self.left < self.rate

    @property
    def is_unused(self) -> bool:
        """Whether nothing drains the resource; rounding dust counts as nothing."""
        return self.rate == 0


def outlook(pool: Pool, *, now: int) -> tuple[Outlook, ...]:
    """Return the outlook of each resource at the unix second `now`; the pool is as it was read, and stays so.

    Raises NotFiniteError if the remaining amounts could not be held in a double.
    """
    synced = replace(pool)
    synced.sync_current_capacity(now)
    return tuple(
        Outlook(resource, left, rate, _end(was, rate, pool.last_updated))
        for resource, was, left, rate in zip(RESOURCES, _left(pool), _left(synced), pool.draining, strict=True)
    )


def first_to_run_out(outlooks: Sequence[Outlook]) -> Outlook | None:
    """Return the resource that runs out first, or has run out; None if nothing drains the pool."""
    drained = [each for each in outlooks if not each.is_unused]
    return min(drained, key=_order) if drained else None


def lasting_until(outlooks: Sequence[Outlook], *, now: int, seconds: int) -> int | None:
    """Return the unix second until which a pool lasts once it lasts `seconds` longer; None if nothing drains it.

    A pool that has run out begins anew at `now`.
    """
    first = first_to_run_out(outlooks)
    if first is None:
        return None
    return min(max(now, first.runs_out_at or now) + seconds, LATEST)


def to_buy(outlooks: Sequence[Outlook], *, now: int, until: int) -> Mapping[Resource, int]:
    """Return what has to be added at the unix second `now` so that every resource in use lasts until `until`.

    In whole unit seconds, as reservations have them; resources that last as long without it are left out. The amounts
    suffice in the arithmetic in which `empty_at` is computed.
    """
    return {each.resource: amount for each in outlooks if (amount := _missing(each, now=now, until=until)) > 0}


def _left(pool: Pool) -> Amounts:
    return pool.cus, pool.sus, pool.ipv4us


def _end(left: float, rate: float, since: int) -> int | None:
    if rate == 0:
        return NEVER
    return None if left < rate else runs_out_at(left, rate, since)


def _order(each: Outlook) -> tuple[bool, int]:
    return each.runs_out_at is not None, each.runs_out_at or 0


def _missing(each: Outlook, *, now: int, until: int) -> int:
    if each.is_unused or runs_out_at(each.left, each.rate, now) >= until:
        return 0
    amount = max(1, math.ceil(Fraction(each.rate) * (until - now) - Fraction(each.left)))
    while runs_out_at(each.left + amount, each.rate, now) < until:
        # The sum of doubles was rounded down: go on to the next one.
        amount = max(amount + 1, math.ceil(math.nextafter(amount, math.inf)))
    return amount
