"""The verbs in which the guards tell what keeps due pools from being settled."""

from collections.abc import Sequence

from pool_daemon.clock import Clock
from pool_daemon.telemetry import metric_table as table
from pool_daemon.telemetry.metrics import Metrics
from pool_daemon.telemetry.snapshot import Event, Hold, Quarantined, Undone
from pool_daemon.telemetry.status import Status


class HoldObserver:
    """Records what is held, in quarantine, or failing: counted in `metrics`, and as it stands now in `status`.

    Recording the same state twice costs nothing.
    """

    def __init__(self, *, identity: str, version: str, clock: Clock, dry_run: bool) -> None:
        self._clock = clock
        self._dry_run = dry_run
        self.status = Status(identity=identity, version=version, clock=clock, dry_run=dry_run)
        self.metrics = Metrics(status=self.status, clock=clock)

    def quarantine_seen(self, total: int, sample: Sequence[Quarantined]) -> None:
        """Record how many pools are in quarantine, and some of them, those to be tried next first."""
        self.status.change(quarantined=total, quarantine=tuple(sample))
        self.undone_seen("quarantine", total)

    def undone_seen(self, reason: str, pools: int, since_at: float | None = None) -> None:
        """Record how many pools are due and not settled for a reason, 0 if none.

        `since_at` is the unix instant since when there are any; None if that is only known since this was called first.
        """
        tick = self._clock.monotonic()
        undone = {each.reason: each for each in self.status.snapshot.undone}
        known = undone.pop(reason, None)
        if pools:
            since_tick = tick if known is None else known.since_tick
            if since_at is not None:
                since_tick = tick - max(0.0, self._clock.now() - since_at)
            undone[reason] = Undone(reason, pools, since_tick)
        if pools or known:
            self.status.change(undone=tuple(undone.values()))

    def held(self, reason: str, *, detail: str, pools: int | None = None) -> None:
        """Record in one word why what is due is held back, in a few more what ends it, and how many pools that are."""
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
        """Record that this is no reason any more."""
        holds = self.status.snapshot.holds
        left = tuple(hold for hold in holds if hold.reason != reason)
        if left != holds:
            self.status.change(holds=left)
            self.undone_seen(reason, 0)
            self._note("released", reason)

    def _note(self, kind: str, text: str, *, pool_id: int | None = None) -> None:
        self.status.note(Event(self._clock.now(), kind, text, pool_id))
