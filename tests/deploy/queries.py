"""What the queries of rules and panels ask for, and what the daemon has to tell."""

import re
from collections.abc import Iterable

from pool_daemon.clock import SystemClock
from pool_daemon.telemetry.observer import Observer

ENDINGS = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}
NAME = re.compile(r"\b(?:pool_daemon|process|python)[:_][a-z0-9_:]+")


def unknown_metrics(queries: Iterable[str], *, recorded: Iterable[str] = ()) -> set[str]:
    """Return the metrics that the queries name and that neither the daemon has nor a rule records."""
    asked = {name for query in queries for name in NAME.findall(query)}
    return asked - served_metrics() - set(recorded)


def served_metrics() -> set[str]:
    """Return the names under which everything in the daemon's registry is served."""
    registry = Observer(identity="test", version="1", clock=SystemClock()).metrics.registry
    return {f"{family.name}{ending}" for family in registry.collect() for ending in ENDINGS.get(family.type, ("",))}
