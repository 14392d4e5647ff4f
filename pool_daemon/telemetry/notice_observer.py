"""Records what becomes of notices: which were sent, which could not be written, and how receivers stand."""

from collections.abc import Mapping
from types import MappingProxyType

from pool_daemon import events
from pool_daemon.store.receivers import Standing
from pool_daemon.telemetry import metric_table as table
from pool_daemon.telemetry.recorder import Recorder
from pool_daemon.telemetry.snapshot import ReceiverStatus


class NoticeObserver(Recorder):
    """Records what is told to owners of pools, and what cannot be."""

    _ends_refused: bool = False

    def ends_untold(self, pools: int, *, reason: str) -> None:
        """Record that pools ended whose end was not written to the outbox; the first of a row is logged."""
        self.metrics.add(table.ENDS_UNTOLD, pools)
        if not self._ends_refused:
            self._ends_refused = True
            self.tell(events.ENDS_UNTOLD, pools=pools, reason=reason)
            self._note("notices", f"ends untold: {reason}")

    def ends_told(self) -> None:
        """Record that the outbox takes the ends of pools."""
        if self._ends_refused:
            self._ends_refused = False
            self.tell(events.ENDS_TOLD)

    def event_sent(self, receiver: str, outcome: str, *, delay_seconds: float | None = None) -> None:
        """Record an attempt to send an event, or why there is no other; of a delivery how old the event was."""
        self.metrics.add(table.NOTICES_SENT, receiver=receiver, outcome=outcome)
        if delay_seconds is not None:
            self.metrics.observe(table.NOTICE_DELAY, delay_seconds)

    def receivers_seen(self, standings: Mapping[str, Standing]) -> None:
        """Record how the receivers stand; none on a standby."""
        now, tick = self._clock.now(), self._clock.monotonic()
        receivers = {
            name: ReceiverStatus(
                pending=each.pending,
                waits_monotonic=None if each.oldest_at is None else tick - max(0.0, now - each.oldest_at),
                dead=each.dead,
                off=each.off,
            )
            for name, each in standings.items()
        }
        self.status.change(receivers=MappingProxyType(receivers))
