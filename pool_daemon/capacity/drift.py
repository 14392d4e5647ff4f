"""Drift: the difference between what a pool records as in use and what its workloads use.

A pool keeps the ids of the workloads that count, and the sum of what they drain. The explorer, which maintains them,
reads, changes and writes back without a lock, so sometimes a removal is lost.

Only an existing document is evidence. An id is dropped when the workload's document says that it is deleted. A workload
with any other action, even invalid or migrated, may still run and keeps counting. A listed workload without a document
means damage, or a restore in progress: then nothing is known about the whole pool. Nor is anything known about a pool
with a workload whose units cannot be computed. An id is never added: a deployed workload that its pool does not list
yet is one that is just being deployed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from pool_daemon.capacity.pool import Pool
from pool_daemon.capacity.workload import CloudUnits, NextAction

RATE_DIGITS: Final = 4
"""Decimals to which a rate is compared. Units are whole thousandths, so an id that is lost or counted twice shows in
the third decimal; rounding errors of adding and subtracting in any order lie far beyond the fourth."""

MOST_DROPPED: Final = 10_000
"""Ids that one repair drops, so that no command grows without bound. The rest is dropped by the next repairs, and the
last one corrects the rates."""

RATES: Final = ("active_cu", "active_su", "active_ipv4")


class WorkloadState(NamedTuple):
    """The state in a workload's document: whether it is deleted, and what it drains, None if unknown."""

    deleted: bool
    units: CloudUnits | None


Known = Mapping[int, WorkloadState]
"""The workloads that have a document, by id."""


@dataclass(frozen=True, slots=True)
class Drift:
    """The difference between a pool's document and its workloads, and the right values.

    `dropped` holds, in ascending order, the listed ids that are deleted; `excess` is by how much the active rates
    exceed what the others drain; `rates` is what they drain. Two drifts are equal if the difference is, even if the
    pool changed in between.
    """

    dropped: tuple[int, ...]
    excess: CloudUnits
    rates: CloudUnits = field(compare=False)

    @property
    def in_words(self) -> str:
        """The difference in a few words, without its numbers."""
        deleted = f"{len(self.dropped)} listed workloads are deleted" if self.dropped else ""
        rates = " ".join(name for name, excess in self.excess._asdict().items() if excess)
        return ", ".join(filter(None, [deleted, rates and f"wrong rates: {rates}"]))


def is_deleted(document: Mapping[str, Any]) -> bool:
    """Return whether a document says that its workload is deleted; until then the workload counts."""
    return bool(document.get("next_action") == NextAction.DELETED)


class PoolComparison:
    """Compares a pool with its workloads. Their ids are added in slices, for a pool may list hundreds of thousands.

    `missing` counts the listed workloads that have no document.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._seen: set[int] = set()
        self._dropped: list[int] = []
        self._rates = (0.0, 0.0, 0.0)
        self._unknown = False
        self.missing = 0

    def add(self, workload_ids: Iterable[int], known: Known) -> None:
        """Compare the next ids of the pool's list, in its order; one that is listed twice counts once."""
        cu, su, ipv4u = self._rates
        for workload_id in workload_ids:
            if workload_id in self._seen:
                continue
            self._seen.add(workload_id)
            workload = known.get(workload_id)
            if workload is None:
                self.missing += 1
            elif workload.deleted:
                self._dropped.append(workload_id)
            elif workload.units is None:
                self._unknown = True
            else:
                cu += max(workload.units.cu, 0.0)
                su += max(workload.units.su, 0.0)
                ipv4u += max(workload.units.ipv4u, 0.0)
        self._rates = (cu, su, ipv4u)

    def drift(self) -> Drift | None:
        """Return the drift once all ids are compared; None if there is none, or if too little is known.

        Also None if the pool's document lacks a field that a repair would have to fill: no write adds a field.
        """
        if self.missing or self._unknown or "last_updated" in self._pool.missing:
            return None
        active = tuple(getattr(self._pool, name) for name in RATES)
        rates = active if len(self._dropped) > MOST_DROPPED else self._rates
        excess = CloudUnits(*(_excess(rate, total) for rate, total in zip(active, rates, strict=True)))
        if any(wrong for name, wrong in zip(RATES, excess, strict=True) if name in self._pool.missing):
            return None
        if not self._dropped and not any(excess):
            return None
        return Drift(tuple(sorted(self._dropped[:MOST_DROPPED])), excess, CloudUnits(*rates))


def repaired(pool: Pool, drift: Drift, *, now: int) -> Pool:
    """Return the pool with the right rates at the unix second `now`; its ids are unchanged.

    The use until then is deducted at the rates that were active, right or wrong: those were shown to the pool's owner.
    Raises NotFiniteError if the rates could not be held in a double.
    """
    after = replace(pool)
    after.recount(pool.active_workload_ids, drift.rates, now=now)
    return after


def _excess(rate: float, total: float) -> float:
    return 0.0 if rate == total else round(rate - total, RATE_DIGITS)
