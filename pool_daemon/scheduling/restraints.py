"""What keeps a pass from settling everything that is due."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from pool_daemon.scheduling.gate import Gate
from pool_daemon.scheduling.quarantine import Quarantine


class PoolBrake(Protocol):
    """Holds pools of which too many, or too old ones, are due at once."""

    async def inspect(self, after: int | None, now: int, asked_for: Collection[int]) -> None:
        """Decide at the start of a pass over the unix seconds (after, now], and over some pools by id, what to hold."""

    def lost(self, pools: int, *, now: int) -> None:
        """Hear that so many pools that were looked at by id have lost something."""

    async def sift(self, pool_ids: Sequence[int]) -> list[int]:
        """Return those of some pools that may be settled."""


class NoBrake:
    """No brake at all, for a dry run: it would have to write down what it holds."""

    async def inspect(self, after: int | None, now: int, asked_for: Collection[int]) -> None:
        """Hold nothing."""

    def lost(self, pools: int, *, now: int) -> None:
        """Forget it."""

    async def sift(self, pool_ids: Sequence[int]) -> list[int]:
        """Let everything pass."""
        return list(pool_ids)


@dataclass(frozen=True, slots=True)
class Restraints:
    """What may hold back everything (`gate`), many pools at once (`brake`), or a pool that fails (`quarantine`)."""

    gate: Gate
    brake: PoolBrake
    quarantine: Quarantine

    async def sift(self, pool_ids: Sequence[int]) -> list[int]:
        """Return those of some pools that nothing holds back."""
        return await self.brake.sift(self.quarantine.sift(pool_ids))
