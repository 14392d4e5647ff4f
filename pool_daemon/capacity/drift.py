"""Drift: where what a pool says is in use differs from what its workloads use.

A pool keeps its own books: the ids of the workloads that count, and the sum of what they drain. They are kept by a
service that reads, changes and writes back without a lock, so now and then a removal is lost.

Only what can be proved wrong counts as drift. An id is dropped when its workload is deleted or its document gone;
whatever else a document says, even that it is invalid or migrated, the workload may still run and keeps counting. An
id is never added: a deployed workload that its pool does not list yet is one that is just being deployed. And where
the units of a single workload are unknown, nothing can be said about its whole pool.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pool_daemon.capacity.cloud_units import CloudUnits
from pool_daemon.capacity.pool import Pool
from pool_daemon.capacity.workload import NextAction

RATE_DIGITS: Final = 4
"""Decimals to which a rate is compared. Units are whole thousandths, so what is lost or counted twice shows in the
third decimal; what adding and subtracting in any order leaves behind lies far beyond the fourth."""

Known = Mapping[int, CloudUnits | None]
"""What each workload that counts drains, by its id; None where that cannot be computed. Who is missing is gone."""


@dataclass(frozen=True, slots=True)
class Drift:
    """What is wrong with a pool's books, and what is right instead.

    `dropped` holds, in ascending order, the listed ids that do not count; `excess` by how much the active rates exceed
    what the others drain. Two drifts are equal if the same is wrong, whatever else happened to the pool in between.
    """

    dropped: tuple[int, ...]
    excess: CloudUnits
    workload_ids: tuple[int, ...] = field(compare=False)
    rates: CloudUnits = field(compare=False)


def counts(document: Mapping[str, Any]) -> bool:
    """Tell whether a workload still counts: it does until it is deleted."""
    return document.get("next_action") != NextAction.DELETED


def find_drift(pool: Pool, known: Known) -> Drift | None:
    """Hold a pool's books against its workloads; None if they agree, or if the units of a listed one are unknown.

    An id that is listed twice counts once.
    """
    kept: dict[int, None] = {}
    dropped: list[int] = []
    cu = su = ipv4u = 0.0
    for workload_id in pool.active_workload_ids or ():
        if workload_id in kept or workload_id not in known:
            dropped.append(workload_id)
            continue
        units = known[workload_id]
        if units is None:
            return None
        kept[workload_id] = None
        cu += max(units.cu, 0.0)
        su += max(units.su, 0.0)
        ipv4u += max(units.ipv4u, 0.0)
    excess = CloudUnits(_excess(pool.active_cu, cu), _excess(pool.active_su, su), _excess(pool.active_ipv4, ipv4u))
    if not dropped and not any(excess):
        return None
    return Drift(tuple(sorted(dropped)), excess, tuple(kept), CloudUnits(cu, su, ipv4u))


def mended(pool: Pool, drift: Drift, *, now: int) -> Pool:
    """Return the pool with its books put right at the unix second `now`.

    What was used until then is deducted at the rates that were active, right or wrong: it is what the pool's owner
    was told. Raises NotFiniteError if the rates could not be held in a double.
    """
    after = replace(pool)
    after.recount(drift.workload_ids if drift.dropped else pool.active_workload_ids, drift.rates, now=now)
    return after


def _excess(rate: float, total: float) -> float:
    return 0.0 if rate == total else round(rate - total, RATE_DIGITS)
