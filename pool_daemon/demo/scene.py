"""The scene: scenario, database and events at one moment; the input of the screens, and in part of the verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from pool_daemon.demo.scenario import PlannedPool, Timetable


@dataclass(frozen=True, slots=True)
class Record:
    """The daemon's record that it stopped one workload; `empty_at` in unix seconds."""

    workload_id: int
    resources: tuple[str, ...]
    empty_at: int
    decommissioned_at: datetime

    @property
    def lateness(self) -> timedelta:
        """The delay between the pool's last second and the stop of the workload; negative if it was stopped early."""
        return timedelta(seconds=self.decommissioned_at.timestamp() - self.empty_at)


@dataclass(frozen=True, slots=True)
class DatabaseState:
    """Pools, workloads and work orders by their `_id`, and the daemon's records, the earliest first."""

    pools: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    workloads: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    orders: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    records: Sequence[Record] = ()

    def records_of(self, plan: PlannedPool) -> list[Record]:
        """Return the records of one pool's workloads."""
        return [record for record in self.records if record.workload_id in plan.all_workloads]


LINGER_SECONDS: Final = 2
"""Seconds after the last pool's end, in which the workloads that must stay are seen to keep running."""


class Voice(StrEnum):
    """The source of an event."""

    STAGE = "demo"
    CUSTOMER = "customer"
    DAEMON = "daemon"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class SceneEvent:
    """One event; `second` is its time in the scenario, None before the scenario began."""

    second: float | None
    voice: Voice
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """The scenario, the state of the database at `now` (unix seconds), and all events so far."""

    plans: Sequence[PlannedPool]
    timetable: Timetable
    now: float
    snapshot: DatabaseState = field(default_factory=DatabaseState)
    events: Sequence[SceneEvent] = ()

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
        """Return how long the pool still lasts by its document, None if the document is unusable."""
        pool = self.snapshot.pools.get(plan.pool_id)
        return None if pool is None or plan.damaged else pool["empty_at"] - self.now
