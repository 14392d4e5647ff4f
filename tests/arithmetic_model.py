"""The arithmetic of a pool, written a second time from its rules: what the daemon's own is judged by.

A pool is the plain dictionary that the database holds. Quotients and sums are exact fractions, rounded to a
64-bit mantissa, so that no floating point of this machine can agree with the daemon's by accident.
"""

import itertools
from fractions import Fraction
from math import isfinite
from typing import Any, NamedTuple

NEVER = 2**63 - 1
NEGLIGIBLE_RATE = 0.00001

Document = dict[str, Any]


class Rates(NamedTuple):
    """What a workload drains a second of each resource."""

    cu: float = 0.0
    su: float = 0.0
    ipv4u: float = 0.0


RESOURCES = {"cu": ("cus", "active_cu"), "su": ("sus", "active_su"), "ipv4u": ("ipv4us", "active_ipv4")}
"""The fields of a pool that hold what is left of a resource and how fast it drains."""


def rounded_to_64_bits(exact: Fraction) -> Fraction:
    """Round once to a 64-bit mantissa, half to even."""
    if exact == 0:
        return exact
    exponent = 64 - abs(exact.numerator).bit_length() + exact.denominator.bit_length()
    scale = Fraction(2) ** exponent
    if abs(exact) * scale >= 2**64:
        scale /= 2
    return round(exact * scale) / scale


def sync(pool: Document, now: int) -> None:
    """Deduct what was used until `now`; a clock that stepped back changes nothing."""
    elapsed = now - pool.get("last_updated", 0)
    if elapsed < 0:
        return
    for left, active in RESOURCES.values():
        pool[left] = max(0.0, pool.get(left, 0.0) - pool.get(active, 0.0) * float(elapsed))
    pool["last_updated"] = now


def recompute(pool: Document) -> None:
    """Set `empty_at` to the second in which the first resource runs out."""
    last_updated = Fraction(pool["last_updated"])
    seconds_left = [
        rounded_to_64_bits(Fraction(pool[left]) / Fraction(pool[active])) if pool[active] else 2**63 - last_updated
        for left, active in RESOURCES.values()
    ]
    pool["empty_at"] = min(int(rounded_to_64_bits(min(seconds_left) + last_updated)), NEVER)


def add_capacity(pool: Document, amounts: Rates, *, now: int) -> None:
    """Top the pool up."""
    sync(pool, now)
    for (left, _), amount in zip(RESOURCES.values(), amounts, strict=True):
        pool[left] += max(0.0, amount)
    recompute(pool)


def add_workload(pool: Document, workload_id: int, rates: Rates, *, now: int) -> None:
    """Count a workload that the pool does not count yet."""
    sync(pool, now)
    for (_, active), rate in zip(RESOURCES.values(), rates, strict=True):
        pool[active] += max(0.0, rate)
    pool["active_workload_ids"].append(workload_id)
    recompute(pool)


def remove_workload(pool: Document, workload_id: int, rates: Rates, *, now: int) -> None:
    """Count a workload no more, if the pool counts it."""
    workload_ids = pool["active_workload_ids"]
    if workload_id not in workload_ids:
        return
    sync(pool, now)
    for (_, active), rate in zip(RESOURCES.values(), rates, strict=True):
        if rate > 0:
            left = pool[active] - rate
            pool[active] = left if left >= NEGLIGIBLE_RATE else 0.0
    workload_ids[workload_ids.index(workload_id)] = workload_ids[-1]
    workload_ids.pop()
    recompute(pool)


def exhausted(pool: Document, rates: Rates, *, now: int) -> list[str]:
    """Name the resources that the rates use and that do not last one more second at `now`."""
    then = dict.fromkeys(itertools.chain(*RESOURCES.values()), 0.0) | pool
    sync(then, now)
    return [
        resource
        for (resource, (left, active)), rate in zip(RESOURCES.items(), rates, strict=True)
        if rate > 0 and (then[left] <= 0 or (then[active] >= NEGLIGIBLE_RATE and then[left] < then[active]))
    ]


def ran_out(pool: Document, before: dict[str, int]) -> dict[str, int]:
    """Return the second at which each resource of a written pool runs out, or did.

    One that was out already, at a second of `before`, and is not there again, has been out since then.
    """
    lasts_until = {}
    for number, (resource, (left, active)) in enumerate(RESOURCES.items()):
        written_at = int(pool.get("last_updated", 0))
        if exhausted(pool, Rates(*(float(each == number) for each in range(3))), now=written_at):
            lasts_until[resource] = min(before.get(resource, written_at), written_at)
        elif pool.get(active, 0.0) >= NEGLIGIBLE_RATE:
            lasts_until[resource] = written_at + int(Fraction(pool.get(left, 0.0)) / Fraction(pool[active]))
        else:
            lasts_until[resource] = NEVER
    return lasts_until


def is_readable(pool: Document) -> bool:
    """Tell whether every field that a decision needs makes sense; a missing one is 0, but for the end itself."""
    whole = ("last_updated", "empty_at")
    rates = [pool.get(active, 0.0) for _, active in RESOURCES.values()]
    numbers = [
        pool.get("last_updated", 0),
        pool.get("empty_at"),
        *(pool.get(left, 0.0) for left, _ in RESOURCES.values()),
    ]
    node_ids, workload_ids = (pool.get(name) or [] for name in ("node_ids", "active_workload_ids"))
    return (
        all(isinstance(number, int | float) and isfinite(number) for number in [*numbers, *rates])
        and all(rate > -NEGLIGIBLE_RATE for rate in rates)
        and all(pool.get(name, 0) == int(pool.get(name, 0)) for name in whole)
        and isinstance(workload_ids, list)
        and isinstance(node_ids, list)
        and all(isinstance(node_id, str) for node_id in node_ids)
    )
