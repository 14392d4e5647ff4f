"""A row of the table of metrics: what is counted, measured or read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final

from pool_daemon.telemetry.snapshot import Snapshot

PREFIX: Final = "pool_daemon_"
OTHER: Final = "other"
"""Stands for every value of a label that its row does not list, so that no label can grow without bound."""

Reading = Callable[[Snapshot, float], float | Mapping[str, float] | None]
"""Reads a gauge from a snapshot at a tick of the monotonic clock: one number, or one for each value of its label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One row. The values of a label are closed: a value that is not listed counts as "other"."""

    kind: ClassVar[str]
    name: str
    about: str
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def full_name(self) -> str:
        """The name of the metric in Prometheus."""
        return PREFIX + self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter(Metric):
    """Counts events since the start."""

    kind = "counter"


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram(Metric):
    """Counts values by upper bounds."""

    kind = "histogram"
    buckets: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauge(Metric):
    """A current value; at most one label."""

    kind = "gauge"
    read: Reading
