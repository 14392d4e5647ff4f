"""Records what becomes of notices: which were sent, which could not be written, and how receivers stand."""

from pool_daemon import events
from pool_daemon.telemetry import metric_table as table
from pool_daemon.telemetry.recorder import Recorder


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
