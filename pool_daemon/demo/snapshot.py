"""The state of the database at one moment: the input of the screen and of the verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pool_daemon.demo.scenario import PlannedPool


@dataclass(frozen=True, slots=True)
class Record:
    """The daemon's record that it stopped one workload; `empty_at` in unix seconds."""

    workload_id: int
    resources: tuple[str, ...]
    empty_at: int
    decommissioned_at: datetime

    @property
    def lateness(self) -> timedelta:
        """How long after the pool's last second the workload was stopped; negative if before it."""
        return timedelta(seconds=self.decommissioned_at.timestamp() - self.empty_at)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Pools, workloads and work orders by their `_id`, and the daemon's records, the earliest first."""

    pools: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    workloads: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    orders: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    records: Sequence[Record] = ()

    def records_of(self, plan: PlannedPool) -> list[Record]:
        """Return the records of one pool's workloads."""
        return [record for record in self.records if record.workload_id in plan.all_workloads]
