"""What keeps a pass from settling everything that is due."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from pool_daemon.scheduling.gate import Gate
from pool_daemon.scheduling.quarantine import Quarantine
from pool_daemon.store.pools import DuePool


class Origin(StrEnum):
    """Why a pool is looked at: that says whether anybody could know of it before.

    It has just fallen due, or is asked for again (`due`); it was found by a look at everything overdue (`overdue`); or
    somebody else has written it (`written`).
    """

    DUE = "due"
    OVERDUE = "overdue"
    WRITTEN = "written"


class PoolBrake(Protocol):
    """Holds pools that end unexpectedly if they are too many."""

    async def inspect(self, after: int | None, now: int) -> None:
        """Decide what to hold of what ran empty in the unix seconds (after, now]; None for a full scan."""

    async def filter_allowed(self, pools: Sequence[DuePool], *, now: int, full_scan: bool) -> list[DuePool]:
        """Return the pools that may be settled as of the unix second `now`; they are in flight then."""

    def settled(self, pool_ids: Collection[int], *, lost: Collection[int], now: int) -> None:
        """Note that some pools are in flight no more, and which pools have lost something."""

    def passed(self) -> None:
        """Note that a pass is over: nothing is in flight."""


@dataclass(frozen=True, slots=True)
class Restraints:
    """What may hold back everything (`gate`), many pools at once (`brake`), or a pool that fails (`quarantine`)."""

    gate: Gate
    brake: PoolBrake
    quarantine: Quarantine

    async def sift(self, pools: Sequence[DuePool], origin: Origin, *, now: int) -> list[DuePool]:
        """Return those of some pools that nothing holds back at the unix second `now`."""
        tried = self.quarantine.sift(pools)
        return await self.brake.filter_allowed(tried, now=now, full_scan=origin is Origin.OVERDUE)
