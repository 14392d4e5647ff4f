"""The guard against a clock that is wrong: this machine's and the database's must agree, or nothing is done."""

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
"""How soon the clocks are compared again while the guard is closed: a pool may be waiting for them to agree."""

ReadServerClock = Callable[[], Awaitable[float]]


class ClockAgreement(StrEnum):
    """What a comparison of the clocks proves."""

    AGREE = "agree"
    APART = "apart"
    UNSURE = "unsure"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both wall clocks at one moment, in unix seconds, and that moment on the clock that never steps.

    The moment is the middle of the question's round trip; the server may have read its clock as much as
    `uncertainty_seconds` before or after it.
    """

    local_at: float
    server_at: float
    at_monotonic: float
    uncertainty_seconds: float

    @property
    def difference_seconds(self) -> float:
        """How far this machine's clock is ahead of the server's."""
        return self.local_at - self.server_at

    def agreement(self, max_difference_seconds: float) -> ClockAgreement:
        """Return whether the clocks are within that bound, beyond it, or the answer came too slowly to tell."""
        difference = abs(self.difference_seconds)
        if difference + self.uncertainty_seconds <= max_difference_seconds:
            return ClockAgreement.AGREE
        if difference - self.uncertainty_seconds > max_difference_seconds:
            return ClockAgreement.APART
        return ClockAgreement.UNSURE


class ClockObserver(Teller, Protocol):
    """Is told how the clocks stand."""

    def clocks_compared(self, difference_seconds: float, *, agree: bool) -> None:
        """Record how far this machine's clock is ahead of the server's, and whether that is within the bound."""

    def clock_skew_detected(self, reason: str, *, difference_seconds: float, max_difference_seconds: float) -> None:
        """Record that the clocks are apart, so that nothing is done."""

    def clock_skew_resolved(self, *, difference_seconds: float) -> None:
        """Record that the clocks agree, for the first time or again."""


async def compare(read_server_clock: ReadServerClock, clock: Clock) -> Comparison:
    """Read both clocks.

    Should this machine's clock step meanwhile, what it shows afterwards counts. Raises what `read_server_clock` raises.
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

    They are compared at intervals. In between, this machine's clock is held against the one that never steps, at the
    very moment that the gate is asked, so a step in the middle of a pass is noticed before its next batch. That
    clock has to count the time in which the machine slept: the wall clock does, and a wall clock that does not is
    wrong afterwards.

    An outage of the database, or an answer too slow to prove anything, leaves it at what is known. `opened` is
    called each time the gate opens.
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
        """Return why nothing may be done now: the clocks are apart, or were never compared; None if they agree."""
        if self._known is None:
            return Closed.CLOCK_UNKNOWN
        if not self._held and abs(self._difference_now(self._known)) > self._settings.max_difference_seconds:
            self._hold("this machine's clock has stepped", self._difference_now(self._known))
            self._doubted.set()
        return Closed.CLOCKS_APART if self._held else None

    async def run(self) -> None:
        """Compare the clocks for ever, at intervals and at once when this machine's was seen to step."""
        while True:
            await self.check()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause_seconds()):
                    await self._doubted.wait()

    async def check(self) -> None:
        """Compare the clocks now, and hold or let go; a comparison that cannot be made changes nothing."""
        self._doubted.clear()
        try:
            comparison = await compare(self._read_server_clock, self._clock)
        except StoreError as error:
            self._not_compared(str(error))
            return
        agreement = comparison.agreement(self._settings.max_difference_seconds)
        if agreement is ClockAgreement.UNSURE:
            self._not_compared(f"the answer took {2 * comparison.uncertainty_seconds:.1f} s, too long to tell")
            return
        self._warned = False
        self._observer.clocks_compared(comparison.difference_seconds, agree=agreement is ClockAgreement.AGREE)
        first, self._known = self._known is None, comparison
        if agreement is ClockAgreement.APART:
            self._hold("this machine's clock and the database's are apart", comparison.difference_seconds)
        elif first or self._held:
            self._let_go(comparison)

    def _difference_now(self, known: Comparison) -> float:
        """Return how far this machine's clock must be ahead by now, if the server's has not stepped since."""
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
        """Tell, once until the next comparison, that there is none."""
        if not self._warned:
            self._observer.tell(CLOCK_NOT_COMPARED, reason=reason)
        self._warned = True

    def _pause_seconds(self) -> float:
        closed = self._held or self._known is None
        return min(RECHECK_SECONDS, self._settings.check_seconds) if closed else self._settings.check_seconds
