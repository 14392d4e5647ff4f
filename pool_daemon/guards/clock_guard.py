"""The clock guard: while this machine's clock and the database's disagree, the daemon does not act."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from pool_daemon.clock import Clock
from pool_daemon.errors import StoreError
from pool_daemon.events import CLOCK_NOT_COMPARED, Teller
from pool_daemon.guards.gate import Closed
from pool_daemon.settings import sections

RECHECK_SECONDS: Final = 2.0
"""Interval between comparisons while the guard is closed: pools may be waiting for it to open."""

ReadServerClock = Callable[[], Awaitable[float]]


class ClockAgreement(StrEnum):
    """The result of a comparison of the clocks."""

    AGREE = "agree"
    APART = "apart"
    UNSURE = "unsure"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both wall clocks at one moment, in unix seconds, and that moment on the monotonic clock.

    The moment is the middle of the round trip; the server may have read its clock up to `uncertainty_seconds` before or
    after it.
    """

    local_at: float
    server_at: float
    at_monotonic: float
    uncertainty_seconds: float

    @property
    def difference_seconds(self) -> float:
        """Seconds by which this machine's clock is ahead of the server's."""
        return self.local_at - self.server_at

    def agreement(self, max_difference_seconds: float) -> ClockAgreement:
        """Return whether the clocks are within this bound or beyond it, or UNSURE if the answer came too slowly."""
        difference = abs(self.difference_seconds)
        if difference + self.uncertainty_seconds <= max_difference_seconds:
            return ClockAgreement.AGREE
        if difference - self.uncertainty_seconds > max_difference_seconds:
            return ClockAgreement.APART
        return ClockAgreement.UNSURE


class ClockObserver(Teller, Protocol):
    """The receiver of the results of the comparisons."""

    def clocks_compared(self, difference_seconds: float, *, agree: bool) -> None:
        """Record by how much this machine's clock is ahead of the server's, and whether that is within the bound."""

    def clock_skew_detected(self, reason: str, *, difference_seconds: float, max_difference_seconds: float) -> None:
        """Record that the clocks are apart, so that the daemon does not act."""

    def clock_skew_resolved(self, *, difference_seconds: float) -> None:
        """Record that the clocks agree, for the first time or again."""


async def compare(read_server_clock: ReadServerClock, clock: Clock) -> Comparison:
    """Read both clocks.

    If this machine's clock steps meanwhile, its reading after the step counts. Raises the errors of
    `read_server_clock`.
    """
    asked_monotonic = clock.monotonic()
    server_at = await read_server_clock()
    answered_monotonic = clock.monotonic()
    half_seconds = (answered_monotonic - asked_monotonic) / 2
    return Comparison(
        local_at=clock.now() - half_seconds,
        server_at=server_at,
        at_monotonic=answered_monotonic - half_seconds,
        uncertainty_seconds=half_seconds,
    )


class ClockGuard:
    """A gate that is open while this machine's clock and the database's agree.

    They are compared at intervals. In between, whenever the gate is asked, this machine's wall clock is compared with
    its monotonic clock, so a step in the middle of a pass is noticed before its next batch. That monotonic clock has to
    count on while the machine sleeps, as the wall clock does.

    An outage of the database, or an answer that is too slow to decide, leaves the gate as it is. `opened` is called
    each time the gate opens.
    """

    def __init__(
        self,
        *,
        read_server_clock: ReadServerClock,
        clock: Clock,
        settings: sections.Clock,
        opened: Callable[[], None],
        observer: ClockObserver,
    ) -> None:
        self._read_server_clock = read_server_clock
        self._clock = clock
        self._settings = settings
        self._opened = opened
        self._observer = observer
        self._known: Comparison | None = None
        self._held = False
        self._warned = False
        self._doubted = asyncio.Event()

    def closed_by(self) -> Closed | None:
        """Return that the clocks are apart, or were never compared; None if they agree."""
        if self._known is None:
            return Closed.CLOCK_UNKNOWN
        if not self._held and abs(self._difference_now(self._known)) > self._settings.max_difference_seconds:
            self._hold("this machine's clock has stepped", self._difference_now(self._known))
            self._doubted.set()
        return Closed.CLOCKS_APART if self._held else None

    async def run(self) -> None:
        """Compare the clocks for ever, at intervals and at once after a step of this machine's clock."""
        while True:
            await self.check()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause_seconds()):
                    await self._doubted.wait()

    async def check(self) -> None:
        """Compare the clocks now, and close or open the gate; a comparison that cannot be made changes nothing."""
        self._doubted.clear()
        try:
            comparison = await compare(self._read_server_clock, self._clock)
        except StoreError as error:
            self._not_compared(str(error))
            return
        agreement = comparison.agreement(self._settings.max_difference_seconds)
        if agreement is ClockAgreement.UNSURE:
            self._not_compared(f"the answer took {2 * comparison.uncertainty_seconds:.1f} s, too long to decide")
            return
        self._warned = False
        self._observer.clocks_compared(comparison.difference_seconds, agree=agreement is ClockAgreement.AGREE)
        first, self._known = self._known is None, comparison
        if agreement is ClockAgreement.APART:
            self._hold("this machine's clock and the database's are apart", comparison.difference_seconds)
        elif first or self._held:
            self._let_go(comparison)

    def _difference_now(self, known: Comparison) -> float:
        """Return by how much this machine's clock is ahead now, provided that the server's has not stepped since."""
        passed_seconds = self._clock.monotonic() - known.at_monotonic
        return self._clock.now() - (known.server_at + passed_seconds)

    def _hold(self, reason: str, difference_seconds: float) -> None:
        if self._held:
            return
        self._held = True
        bound_seconds = self._settings.max_difference_seconds
        self._observer.clock_skew_detected(
            reason, difference_seconds=difference_seconds, max_difference_seconds=bound_seconds
        )

    def _let_go(self, comparison: Comparison) -> None:
        self._held = False
        self._observer.clock_skew_resolved(difference_seconds=comparison.difference_seconds)
        self._opened()

    def _not_compared(self, reason: str) -> None:
        """Log that there is no comparison, once until the next one."""
        if not self._warned:
            self._observer.tell(CLOCK_NOT_COMPARED, reason=reason)
        self._warned = True

    def _pause_seconds(self) -> float:
        closed = self._held or self._known is None
        return min(RECHECK_SECONDS, self._settings.check_seconds) if closed else self._settings.check_seconds
