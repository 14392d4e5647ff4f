"""The base of every observer: metrics, status, and the one way from an event to the log."""

from typing import Any

from pool_daemon.clock import Clock
from pool_daemon.events import BACKGROUND_FAILURES, Event
from pool_daemon.telemetry import logs
from pool_daemon.telemetry import metric_table as table
from pool_daemon.telemetry.metrics import Metrics
from pool_daemon.telemetry.snapshot import StatusEvent
from pool_daemon.telemetry.status import Status


class Recorder:
    """Logs events, counts them in `metrics`, and keeps the current state in `status`.

    Recording the same state twice costs nothing.
    """

    def __init__(self, *, identity: str, version: str, clock: Clock, dry_run: bool = False) -> None:
        self._clock = clock
        self._dry_run = dry_run
        self.status = Status(identity=identity, version=version, clock=clock, dry_run=dry_run)
        self.metrics = Metrics(status=self.status, clock=clock)

    def tell(self, event: Event, **fields: Any) -> None:
        """Log an event of the table with some fields; a failure in the background is counted."""
        if event in BACKGROUND_FAILURES:
            self.metrics.add(table.BACKGROUND_FAILURES, event=event.name)
        logs.tell(event, **fields)

    def _note(self, kind: str, text: str, *, pool_id: int | None = None) -> None:
        self.status.note(StatusEvent(self._clock.now(), kind, text, pool_id))
