"""What keeps a pass from settling everything that is due."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from pool_daemon.scheduling.gate import Gate
from pool_daemon.scheduling.quarantine import Quarantine


class PoolBrake(Protocol):
    """Holds pools of which too many, or too old ones, are due at once."""

    async def inspect(self, after: int | None, now: int, written: Collection[int]) -> None:
        """Decide what to hold at the start of a pass over the unix seconds (after, now] and pools just written."""

    def lost(self, pool_ids: Collection[int], *, now: int) -> None:
        """Hear that some pools that somebody had written have lost something."""

    async def sift(self, pool_ids: Sequence[int]) -> list[int]:
        """Return those of some pools that may be settled."""


class NoBrake:
    """No brake at all, for a dry run: it would have to write down what it holds."""

    async def inspect(self, after: int | None, now: int, written: Collection[int]) -> None:
        """Hold nothing."""

    def lost(self, pool_ids: Collection[int], *, now: int) -> None:
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
