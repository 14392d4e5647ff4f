"""The current state of the daemon: written by the event loop's thread, readable from any other."""

from dataclasses import replace
from typing import Any, Final

from pool_daemon.clock import Clock
from pool_daemon.expiry.pass_report import PassOutcome
from pool_daemon.telemetry.snapshot import FinishedPass, Snapshot, StatusEvent

EVENTS: Final = 50
"""Events kept: one page for a person to read."""

PASSES: Final = 40
"""Passes kept, of those that did something or failed: the last hour, or the last storm."""

WANTED_SECONDS: Final = 10.0
"""Time after a request for which the costlier parts of the status are kept fresh; a page asks every second."""


class Status:
    """One snapshot, replaced as a whole by the loop's thread and read by any other.

    Only the loop's thread changes it. A reader gets the snapshot from before or after a change, never a mixture. It
    takes no lock, so a stuck loop cannot block it.
    """

    def __init__(self, *, identity: str, version: str, clock: Clock, dry_run: bool = False) -> None:
        self._clock = clock
        tick = clock.monotonic()
        self._snapshot = Snapshot(
            identity=identity,
            version=version,
            dry_run=dry_run,
            started_at=clock.now(),
            started_monotonic=tick,
            beat_monotonic=tick,
        )
        self._database_monotonic: float | None = None
        self._looked_monotonic: float | None = None

    @property
    def snapshot(self) -> Snapshot:
        """The current snapshot; safe to keep and to pass on."""
        return replace(self._snapshot, database_monotonic=self._database_monotonic)

    def change(self, **changes: Any) -> None:
        """Replace some fields of the snapshot."""
        self._snapshot = replace(self._snapshot, **changes)

    def note(self, *events: StatusEvent) -> None:
        """Append events and drop the oldest; an event equal to a kept one replaces it and counts the occurrences."""
        kept = {_what(event): event for event in self._snapshot.events}
        for event in events:
            former = kept.pop(_what(event), None)
            kept[_what(event)] = replace(event, times=former.times + 1) if former else event
        self.change(events=tuple(kept.values())[-EVENTS:])

    def finish_pass(self, finished: FinishedPass) -> None:
        """Record a finished pass as the last one and, if it did something or failed, in the list of passes."""
        passes = self._snapshot.passes
        if finished.settled or finished.failed_pools or finished.outcome is PassOutcome.FAILED:
            passes = (*passes, finished)[-PASSES:]
        self.change(last_pass=finished, passes=passes)

    def database_answered(self) -> None:
        """Record that the database has just answered; any thread may call this."""
        self._database_monotonic = self._clock.monotonic()

    def looked_at(self) -> None:
        """Record that a client has just asked for the whole picture; any thread may call this."""
        self._looked_monotonic = self._clock.monotonic()

    def wanted(self) -> bool:
        """Return whether a client is watching."""
        return self._looked_monotonic is not None and self._clock.monotonic() - self._looked_monotonic <= WANTED_SECONDS


def _what(event: StatusEvent) -> tuple[str, str, int | None]:
    return event.kind, event.text, event.pool_id
