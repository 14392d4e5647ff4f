"""What there is to be seen at one moment of the demo: the one thing that screens are given."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from pool_daemon.demo.scenario import PlannedPool, Timetable
from pool_daemon.demo.snapshot import Snapshot

LINGER_SECONDS: Final = 2
"""Watched after the last pool's end, because what must run on is only then known to have run on."""


class Voice(StrEnum):
    """Who tells an event."""

    STAGE = "demo"
    CUSTOMER = "customer"
    DAEMON = "daemon"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened; `second` is its time in the scenario, None before the scenario began."""

    second: float | None
    voice: Voice
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """The scenario, what the database says at `now` (unix seconds), and everything that happened so far."""

    plans: Sequence[PlannedPool]
    timetable: Timetable
    now: float
    snapshot: Snapshot = field(default_factory=Snapshot)
    events: Sequence[Event] = ()

    @property
    def second(self) -> float | None:
        """The time in the scenario, None before it began."""
        started_at = self.timetable.started_at
        return None if started_at is None else self.now - started_at

    @property
    def last_second(self) -> int:
        """The second at which the demo ends: a little after the last pool."""
        return max((plan.ends or 0 for plan in self.plans), default=0) + LINGER_SECONDS

    def seconds_left(self, plan: PlannedPool) -> float | None:
        """Return how long the pool still lasts as its document says, None if it says nothing usable."""
        pool = self.snapshot.pools.get(plan.pool_id)
        return None if pool is None or plan.damaged else pool["empty_at"] - self.now
