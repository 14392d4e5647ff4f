"""Which workloads of a due pool must go, and when to check the remaining ones again.

A pool is due at its `empty_at`, but that is the end of its scarcest resource only: a workload must go when it uses an
exhausted resource, and may stay while everything it uses lasts.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Protocol

from pool_daemon.capacity.pool import NEVER, Pool
from pool_daemon.capacity.workload import cloud_units
from pool_daemon.errors import UnitsError


class Resource(StrEnum):
    """A resource that a pool holds and a workload drains; the value is its name in records and logs."""

    COMPUTE = "cu"
    STORAGE = "su"
    ADDRESSES = "ipv4u"


RESOURCES: Final = tuple(Resource)
"""All resources, in the order of `CloudUnits`. Iterating over the enumeration itself takes five times as long."""


@dataclass(frozen=True, slots=True)
class ExhaustedWorkload:
    """A workload that must go, or is in grace, and the exhausted resources that it uses.

    `grace_ends_at` is the unix second at which its grace is over; None if it has none.
    """

    document: Mapping[str, Any]
    resources: tuple[Resource, ...]
    grace_ends_at: int | None = None

    def goes_by(self, now: int) -> bool:
        """Return whether it must go by the unix second `now`."""
        return self.grace_ends_at is None or self.grace_ends_at <= now


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The decision on the workloads of one pool at one instant.

    `unknown_units` pairs the ids of workloads whose units are unknown with the reason; they are left running.
    `look_again_at` is the unix second at which the next resource that a remaining workload uses runs out; None if none
    can run out before the pool is changed. Workloads `in_grace` stay for now, and are checked again when that ends.
    """

    exhausted_workloads: tuple[ExhaustedWorkload, ...]
    unknown_units: tuple[tuple[Any, str], ...]
    look_again_at: int | None
    in_grace: tuple[ExhaustedWorkload, ...] = ()


class Reprieve(Protocol):
    """Decides how long a workload stays although it uses exhausted resources."""

    def ends_at(self, document: Mapping[str, Any], resources: Collection[Resource]) -> int | None:
        """Return the unix second at which its grace is over, None if it has none."""


def exhausted_resources(pool: Pool) -> frozenset[Resource]:
    """Return the resources of a synced pool that do not last another second at its active rates."""
    return frozenset(resource for resource, left, rate in levels(pool) if left <= 0 or left < rate)


def evaluate(
    pool: Pool, workloads: Iterable[Mapping[str, Any]], *, now: int, grace: Reprieve | None = None
) -> Evaluation:
    """Decide for each deployed workload of a pool that was synced at `now` (unix seconds) whether it must go.

    A free workload uses nothing and stays. One whose units cannot be computed stays and is listed. Without `grace` none
    stays longer than its resources last.
    """
    exhausted = exhausted_resources(pool)
    exhausted_workloads: list[ExhaustedWorkload] = []
    in_grace: list[ExhaustedWorkload] = []
    unknown_units: list[tuple[Any, str]] = []
    lasting: set[Resource] = set()
    for document in workloads:
        try:
            used, going = _used_resources(document, exhausted, grace)
        except UnitsError as error:
            unknown_units.append((document.get("_id"), str(error)))
            continue
        if going is None or not going.goes_by(now):
            lasting.update(used)
        if going is not None:
            (exhausted_workloads if going.goes_by(now) else in_grace).append(going)
    ends = [_look_again_at(pool, lasting - exhausted, now=now), *(each.grace_ends_at for each in in_grace)]
    next_end = min((end for end in ends if end is not None), default=None)
    return Evaluation(tuple(exhausted_workloads), tuple(unknown_units), next_end, tuple(in_grace))


def levels(pool: Pool) -> tuple[tuple[Resource, float, float], ...]:
    """Return each resource with what is left of it and the rate that every decision assumes."""
    cu, su, ipv4u = pool.draining
    return (
        (Resource.COMPUTE, pool.cus, cu),
        (Resource.STORAGE, pool.sus, su),
        (Resource.ADDRESSES, pool.ipv4us, ipv4u),
    )


def _used_resources(
    document: Mapping[str, Any], exhausted: frozenset[Resource], grace: Reprieve | None
) -> tuple[tuple[Resource, ...], ExhaustedWorkload | None]:
    """Return what a workload uses, and with its grace if some of that is exhausted."""
    units = cloud_units(document)
    used = tuple(resource for resource, rate in zip(RESOURCES, units, strict=True) if rate > 0)
    gone = tuple(resource for resource in used if resource in exhausted)
    if not gone:
        return used, None
    return used, ExhaustedWorkload(document, gone, None if grace is None else grace.ends_at(document, gone))


def _look_again_at(pool: Pool, lasting: set[Resource], *, now: int) -> int | None:
    """Return when the first of `lasting` runs out at the pool's active rates: a second early at worst, never late."""
    if not lasting:
        return None
    ends = [
        pool.last_updated + min(math.floor(min(left / rate, float(NEVER))), NEVER)
        for resource, left, rate in levels(pool)
        if resource in lasting and rate > 0
    ]
    return min(max(now + 1, min(ends)), NEVER) if ends else None
