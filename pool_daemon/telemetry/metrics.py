"""The metrics for Prometheus: one registry, built from the rows of the metric table."""

import itertools
from collections.abc import Iterable, Mapping
from typing import Final

import prometheus_client
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from pool_daemon.clock import Clock
from pool_daemon.telemetry.metric_table import OTHER, TABLE, Counter, Gauge, Histogram, Metric
from pool_daemon.telemetry.status import Status

PLAIN: Final = "text/plain; version=0.0.4; charset=utf-8"
"""The text format that every Prometheus reads."""

OPENMETRICS: Final = "application/openmetrics-text"


class Metrics:
    """The counters and histograms of the table, and the gauges that are read from the status.

    Any thread may add, observe and render.
    """

    def __init__(self, *, status: Status, clock: Clock) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call] # it has no annotation
        self.registry = CollectorRegistry()
        self._counters = {row.name: _counter(row, self.registry) for row in TABLE if isinstance(row, Counter)}
        self._histograms = {row.name: _histogram(row, self.registry) for row in TABLE if isinstance(row, Histogram)}
        self.registry.register(_Gauges(status=status, clock=clock))
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)

    def add(self, row: Counter, amount: float = 1, **labels: str) -> None:
        """Increase a counter; every label of the row must be given."""
        counter = self._counters[row.name]
        (counter.labels(**_closed(row, labels)) if labels else counter).inc(amount)

    def observe(self, row: Histogram, value: float, **labels: str) -> None:
        """Add a value to a histogram; every label of the row must be given."""
        histogram = self._histograms[row.name]
        (histogram.labels(**_closed(row, labels)) if labels else histogram).observe(value)

    def render(self, accept: str = "") -> tuple[str, bytes]:
        """Return all metrics as (content type, text), in the format that an Accept header asks for."""
        if OPENMETRICS in accept:
            return openmetrics.CONTENT_TYPE_LATEST, openmetrics.generate_latest(self.registry)  # type: ignore[no-untyped-call] # as above
        return PLAIN, generate_latest(self.registry)


class _Gauges(Collector):
    """Reads every gauge of the table from the current snapshot."""

    def __init__(self, *, status: Status, clock: Clock) -> None:
        self._status = status
        self._clock = clock

    def collect(self) -> Iterable[GaugeMetricFamily]:
        snapshot, tick = self._status.snapshot, self._clock.monotonic()
        for row in TABLE:
            if isinstance(row, Gauge):
                yield _family(row, row.read(snapshot, tick))


def _family(row: Gauge, reading: float | Mapping[str, float] | None) -> GaugeMetricFamily:
    family = GaugeMetricFamily(row.full_name, row.about, labels=list(row.labels))
    if isinstance(reading, Mapping):
        ((name, values),) = row.labels.items()
        samples = dict.fromkeys(values, 0.0)
        for value, number in reading.items():
            samples[_closed(row, {name: value})[name]] = number
        for value, number in samples.items():
            family.add_metric([value], number)
    elif reading is not None:
        family.add_metric([], reading)
    return family


def _counter(row: Counter, registry: CollectorRegistry) -> prometheus_client.Counter:
    """Create a counter that starts at 0 for each known label value: the first increment must be visible as a rise."""
    counter = prometheus_client.Counter(row.full_name, row.about, list(row.labels), registry=registry)
    if row.labels:
        for values in itertools.product(*row.labels.values()):
            counter.labels(*values)
    return counter


def _histogram(row: Histogram, registry: CollectorRegistry) -> prometheus_client.Histogram:
    return prometheus_client.Histogram(
        row.full_name, row.about, list(row.labels), registry=registry, buckets=row.buckets
    )


def _closed(row: Metric, labels: Mapping[str, str]) -> dict[str, str]:
    """Return the labels, with "other" for values that the row does not list; a row that lists none accepts all."""
    return {
        name: value if value in row.labels[name] or not row.labels[name] else OTHER for name, value in labels.items()
    }
