"""The ends of pools in the outbox: written with them where MongoDB takes them, and no reason for an end to wait."""

from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from pymongo.errors import ConnectionFailure

from pool_daemon.clock import Clock
from pool_daemon.errors import StoreError
from pool_daemon.store.cases import Settlement
from pool_daemon.store.outbox import Outbox, has_ended
from pool_daemon.store.sessions import Session

OFF_SECONDS: Final = 30.0
"""How long nothing is written to an outbox that has refused something: no batch of a storm is tried twice meanwhile."""


class EndsObserver(Protocol):
    """The receiver of what becomes of the ends."""

    def ends_untold(self, pools: int, *, reason: str) -> None:
        """Record that pools ended and nobody is told."""

    def ends_told(self) -> None:
        """Record that the outbox takes the ends of pools."""


class Attempt:
    """An attempt to commit a batch with its events. `refused` is the server's answer if it does not take those."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self.refused: StoreError | None = None
        self.has_written = False

    def begin(self) -> None:
        """Begin the transaction, or begin it again."""
        self.refused = None
        self.has_written = False

    async def write(self, settlement: Settlement, *, at: float, session: Session) -> None:
        """Write what a batch does at the unix instant `at`, as part of its transaction; raises StoreError.

        A connection that breaks is no answer: the batch is tried again as ever, its events with it.
        """
        try:
            self.has_written = await self._outbox.record_ends(settlement.cases, at=at, session=session)
        except StoreError as error:
            if not isinstance(error.__cause__, ConnectionFailure):
                self.refused = error
            raise


class Ends:
    """Commits batches with their events, and a batch whose events are refused at once without them.

    A validator, a right that is missing or a full index would else abort the transaction that decommissions. The events
    of such a batch are lost: the observer is told, and the records of what was done remain.
    """

    def __init__(self, *, outbox: Outbox, clock: Clock, observer: EndsObserver) -> None:
        self._outbox = outbox
        self._clock = clock
        self._observer = observer
        self._reason: str | None = None
        self._off_until_monotonic = 0.0

    async def settle(self, commit: Callable[[Attempt | None], Awaitable[Settlement]]) -> Settlement:
        """Commit a batch, with its events if possible; raises what `commit` raises without any."""
        attempt = self._attempt()
        if attempt is not None:
            try:
                settlement = await commit(attempt)
            except StoreError:
                if attempt.refused is None:
                    raise
            else:
                if attempt.has_written:
                    self._reason, self._off_until_monotonic = None, 0.0
                    self._observer.ends_told()
                return settlement
        settlement = await commit(None)
        if attempt is not None and attempt.refused is not None:  # the batch went without: nothing else was the cause
            self._reason = str(attempt.refused)
            self._off_until_monotonic = self._clock.monotonic() + OFF_SECONDS
        untold = sum(map(has_ended, settlement.cases))
        if untold:
            self._observer.ends_untold(untold, reason=self._reason or "")
        return settlement

    def _attempt(self) -> Attempt | None:
        """Return an attempt; None while the outbox is off. Only one batch is the first to try again."""
        now = self._clock.monotonic()
        if now < self._off_until_monotonic:
            return None
        if self._reason is not None:
            self._off_until_monotonic = now + OFF_SECONDS
        return Attempt(self._outbox)
