"""The guards of a pass as one value: the gate, the brake and the quarantine."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from pool_daemon.guards.gate import Gate
from pool_daemon.guards.quarantine import Quarantine
from pool_daemon.store.cases import Settlement
from pool_daemon.store.pools import DuePool


class PoolBrake(Protocol):
    """Holds pools that end unexpectedly if they are too many."""

    async def inspect(self, after: int | None, now: int) -> None:
        """Decide what to hold of what ran empty in the unix seconds (after, now]; None for a full scan."""

    async def filter_allowed(self, pools: Sequence[DuePool], *, now: int, full_scan: bool) -> list[DuePool]:
        """Return the pools that may be settled at the unix second `now`, suspicious ones protected."""

    async def judge(self, pool_ids: Collection[int], settlement: Settlement, *, now: int, full_scan: bool) -> set[int]:
        """Hold what a batch withheld, or let it go: return the ids of the latter; note its settled pools."""

    def passed(self, *, complete: bool) -> float | None:
        """Note that a pass is over; `complete` says whether it has met everything that was due.

        Return in how many seconds pools that wait need a full scan; None if none waits.
        """


@dataclass(frozen=True, slots=True)
class Guards:
    """The guards: `gate` holds back everything, `brake` many pools at once, `quarantine` a pool that fails.

    A pass asks all three before each batch, and tells the brake and the quarantine afterwards how each pool fared.
    """

    gate: Gate
    brake: PoolBrake
    quarantine: Quarantine

    async def filter_allowed(self, pools: Sequence[DuePool], *, now: int, full_scan: bool) -> list[DuePool]:
        """Return those of some pools that nothing holds back at the unix second `now`."""
        return await self.brake.filter_allowed(self.quarantine.filter_allowed(pools), now=now, full_scan=full_scan)
