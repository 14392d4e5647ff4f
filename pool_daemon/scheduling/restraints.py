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
    """Holds pools of which too many, or too old ones, are due at once."""

    async def inspect(self, after: int | None, now: int, written: Collection[int]) -> None:
        """Decide what to hold at the start of a pass over the unix seconds (after, now] and pools just written."""

    async def sift(self, pool_ids: Sequence[int], origin: Origin, *, now: int) -> list[int]:
        """Return those of some pools that may be settled as of the unix second `now`; they are in hand then."""

    def settled(self, pool_ids: Collection[int], *, lost: Collection[int], now: int) -> None:
        """Hear that some pools are in hand no more, and which of them have lost something."""

    def passed(self) -> None:
        """Hear that a pass is over: nothing is in hand."""


class NoBrake:
    """No brake at all, for a dry run: it would have to write down what it holds."""

    async def inspect(self, after: int | None, now: int, written: Collection[int]) -> None:
        """Hold nothing."""

    async def sift(self, pool_ids: Sequence[int], origin: Origin, *, now: int) -> list[int]:
        """Let everything pass."""
        del origin, now
        return list(pool_ids)

    def settled(self, pool_ids: Collection[int], *, lost: Collection[int], now: int) -> None:
        """Forget it."""

    def passed(self) -> None:
        """Forget it."""


@dataclass(frozen=True, slots=True)
class Restraints:
    """What may hold back everything (`gate`), many pools at once (`brake`), or a pool that fails (`quarantine`)."""

    gate: Gate
    brake: PoolBrake
    quarantine: Quarantine

    async def sift(self, pools: Sequence[DuePool], origin: Origin, *, now: int) -> list[DuePool]:
        """Return those of some pools that nothing holds back at the unix second `now`."""
        tried = self.quarantine.sift(pools)
        allowed = set(await self.brake.sift([pool.pool_id for pool in tried], origin, now=now))
        return [pool for pool in tried if pool.pool_id in allowed]
