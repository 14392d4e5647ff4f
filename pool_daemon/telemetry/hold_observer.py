"""Records what the guards report: which due pools are kept from being settled, and why."""

from collections.abc import Sequence

from pool_daemon.clock import Clock
from pool_daemon.telemetry import metric_table as table
from pool_daemon.telemetry.metrics import Metrics
from pool_daemon.telemetry.snapshot import Event, Hold, Quarantined, Undone
from pool_daemon.telemetry.status import Status


class HoldObserver:
    """Records pools on hold, in quarantine, or failing: counted in `metrics`, and as the current state in `status`.

    Recording the same state twice costs nothing.
    """

    def __init__(self, *, identity: str, version: str, clock: Clock, dry_run: bool) -> None:
        self._clock = clock
        self._dry_run = dry_run
        self.status = Status(identity=identity, version=version, clock=clock, dry_run=dry_run)
        self.metrics = Metrics(status=self.status, clock=clock)

    def quarantine_seen(self, total: int, sample: Sequence[Quarantined]) -> None:
        """Record how many pools are in quarantine, with a sample ordered by next retry."""
        self.status.change(quarantined=total, quarantine=tuple(sample))
        self.undone_seen("quarantine", total)

    def undone_seen(self, reason: str, pools: int, since_at: float | None = None) -> None:
        """Record how many pools are due and not settled for a reason; 0 if none.

        `since_at` is the unix instant since which there have been any; None if unknown, then the first call counts.
        """
        tick = self._clock.monotonic()
        undone = {each.reason: each for each in self.status.snapshot.undone}
        known = undone.pop(reason, None)
        if pools:
            since_monotonic = tick if known is None else known.since_monotonic
            if since_at is not None:
                since_monotonic = tick - max(0.0, self._clock.now() - since_at)
            undone[reason] = Undone(reason, pools, since_monotonic)
        if pools or known:
            self.status.change(undone=tuple(undone.values()))

    def held(self, reason: str, *, detail: str, pools: int | None = None) -> None:
        """Record why due pools are on hold (`reason`, one word), what ends that (`detail`), and how many there are."""
        holds = self.status.snapshot.holds
        known = next((hold for hold in holds if hold.reason == reason), None)
        others = tuple(hold for hold in holds if hold is not known)
        since_at = known.since_at if known else self._clock.now()
        self.status.change(holds=(*others, Hold(reason, detail, since_at, pools)))
        self.undone_seen(reason, pools or 0, since_at)
        if known is None:
            self.metrics.add(table.HOLDS, reason=reason)
            self._note("held", f"{reason}: {detail}")

    def released(self, reason: str) -> None:
        """Record that a reason for holding pools no longer applies."""
        holds = self.status.snapshot.holds
        left = tuple(hold for hold in holds if hold.reason != reason)
        if left != holds:
            self.status.change(holds=left)
            self.undone_seen(reason, 0)
            self._note("released", reason)

    def _note(self, kind: str, text: str, *, pool_id: int | None = None) -> None:
        self.status.note(Event(self._clock.now(), kind, text, pool_id))
