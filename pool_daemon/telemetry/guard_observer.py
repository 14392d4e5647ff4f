"""Records what the guards report: which due pools are kept from being settled, and why."""

from collections.abc import Sequence

from pool_daemon import events
from pool_daemon.capacity.grace import GraceEnd
from pool_daemon.store.quarantine import Quarantined
from pool_daemon.telemetry import metric_table as table
from pool_daemon.telemetry.recorder import Recorder
from pool_daemon.telemetry.snapshot import Clocks, OnHold, Undone


class GuardObserver(Recorder):
    """Records pools on hold, in quarantine, or failing, and how the clocks stand."""

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

    def put_on_hold(self, reason: str, *, detail: str, pools: int | None = None) -> None:
        """Record why due pools are on hold (`reason`, one word), what ends that (`detail`), and how many there are."""
        holds = self.status.snapshot.holds
        known = next((hold for hold in holds if hold.reason == reason), None)
        others = tuple(hold for hold in holds if hold is not known)
        since_at = known.since_at if known else self._clock.now()
        self.status.change(holds=(*others, OnHold(reason, detail, since_at, pools)))
        self.undone_seen(reason, pools or 0, since_at)
        if known is None:
            self.metrics.add(table.HOLDS, reason=reason)
            self._note("held", f"{reason}: {detail}")

    def taken_off_hold(self, reason: str) -> None:
        """Record that a reason for holding pools no longer applies."""
        holds = self.status.snapshot.holds
        left = tuple(hold for hold in holds if hold.reason != reason)
        if left != holds:
            self.status.change(holds=left)
            self.undone_seen(reason, 0)
            self._note("released", reason)

    def in_grace_counted(self, pools: int | None) -> None:
        """Record how many pools are in grace; None if this daemon does not lead."""
        self.status.change(in_grace=pools)

    def grace_ended(self, reason: GraceEnd) -> None:
        """Count the grace of a resource of a pool that has ended, for that reason."""
        if not self._dry_run:
            self.metrics.add(table.GRACES_ENDED, reason=reason.replace(" ", "_"))

    def clocks_compared(self, difference_seconds: float, *, agree: bool) -> None:
        """Record how far this machine's clock is ahead of the database's, and whether that is within tolerance."""
        self.status.change(clocks=Clocks(difference_seconds, agree, self._clock.monotonic()))

    def clock_skew_detected(self, reason: str, *, difference_seconds: float, max_difference_seconds: float) -> None:
        """Record that the clocks are apart, so that nothing is done."""
        self.put_on_hold("clock", detail=reason)
        self.tell(
            events.CLOCK_SKEW_DETECTED,
            reason=reason,
            difference_seconds=round(difference_seconds, 3),
            max_difference_seconds=max_difference_seconds,
        )

    def clock_skew_resolved(self, *, difference_seconds: float) -> None:
        """Record that the clocks agree, for the first time or again."""
        self.taken_off_hold("clock")
        self.tell(events.CLOCK_SKEW_RESOLVED, difference_seconds=round(difference_seconds, 3))
