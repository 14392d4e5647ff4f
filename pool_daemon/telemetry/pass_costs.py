"""The decommissions of a batch, counted once a batch: in a storm a batch holds hundreds of workloads."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from pool_daemon.capacity.workload import WorkloadType
from pool_daemon.store.cases import Decommissioned
from pool_daemon.store.events import RecordedPool
from pool_daemon.telemetry import metric_table as table
from pool_daemon.telemetry.metrics import Metrics
from pool_daemon.telemetry.snapshot import Event

TYPES: Final = {int(kind): kind.name.lower() for kind in WorkloadType}


class PassCosts:
    """The workloads that were decommissioned at the unix instant `at`.

    `due_at` maps a pool to the instant since which its workloads were due, where that is not its `empty_at`.
    """

    def __init__(self, gone: Sequence[Decommissioned], *, at: float, due_at: Mapping[int, float]) -> None:
        self._gone = gone
        self._at = at
        self._due_at = due_at
        self._pools: dict[int, list[Decommissioned]] = defaultdict(list)
        for workload in gone:
            self._pools[workload.pool_id].append(workload)

    @property
    def pools(self) -> int:
        """Number of pools that lost workloads."""
        return len(self._pools)

    def count(self, metrics: Metrics) -> None:
        """Update the decommissioning metrics."""
        kinds = Counter((gone.resources[0], TYPES.get(gone.workload_type, "unknown")) for gone in self._gone)
        for (resource, workload_type), number in kinds.items():
            metrics.add(table.WORKLOADS_DECOMMISSIONED, number, resource=resource, workload_type=workload_type)
        for first, number in Counter(_exhausted(workloads)[0] for workloads in self._pools.values()).items():
            metrics.add(table.POOLS_DECOMMISSIONED, number, resource=first)
        for workload in self._gone:
            metrics.observe(table.LATENESS, self._late_seconds(workload))

    def last_events(self, most: int) -> Iterator[Event]:
        """Yield the events of the last `most` pools of the batch."""
        for pool_id, workloads in list(self._pools.items())[-most:]:
            text = _told(_exhausted(workloads), len(workloads))
            yield Event(self._at, "decommissioned", text, pool_id, self._late_seconds(workloads[0]))

    def would_be_events(self, most: int) -> Iterator[Event]:
        """Yield the same events for a dry run, without lateness: nothing was decommissioned."""
        for event in self.last_events(most):
            text = f"would be decommissioned: {event.text}"
            yield replace(event, kind="dry_run", text=text, lateness_seconds=None)

    def _late_seconds(self, workload: Decommissioned) -> float:
        return max(0.0, self._at - self._due_at.get(workload.pool_id, workload.empty_at))


def recorded_event(pool: RecordedPool) -> Event:
    """Return the event of a pool that an earlier daemon decommissioned; its lateness is not on record."""
    resources = [resource for resource in table.RESOURCES if resource in pool.resources]
    return Event(pool.decommissioned_at, "decommissioned", _told(resources, pool.workloads), pool.pool_id)


def _told(resources: Sequence[str], workloads: int) -> str:
    return f"{_enumerated(resources) or 'a resource'} ran out, {workloads} workload{'s' * (workloads > 1)}"


def _exhausted(workloads: Sequence[Decommissioned]) -> list[str]:
    """Name the exhausted resources of some workloads, in a fixed order."""
    exhausted = {resource for workload in workloads for resource in workload.resources}
    return [resource for resource in table.RESOURCES if resource in exhausted]


def _enumerated(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
