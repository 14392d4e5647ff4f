"""The heartbeat of the event loop: proves that the loop is not stuck, and feeds systemd's watchdog."""

import asyncio
import math
from collections.abc import Callable
from typing import Final, Protocol

import structlog

from pool_daemon.clock import Clock
from pool_daemon.telemetry.health import StalenessLimits, headline, startup
from pool_daemon.telemetry.logs import dropped_lines
from pool_daemon.telemetry.notify import Notifier
from pool_daemon.telemetry.observer import Observer
from pool_daemon.telemetry.snapshot import Role

TICK_SECONDS: Final = 0.5
"""Interval between beats: short enough to catch every stall that could make a pool late, at no measurable cost."""

EXTENSION_SECONDS: Final = 60.0
"""The extension asked of systemd, repeatedly, while the start waits for a database; without one for so long, the start
hangs."""

log = structlog.get_logger("pool_daemon.heartbeat")


class Leadership(Protocol):
    """Who leads, as far as this daemon knows."""

    @property
    def role(self) -> Role:
        """This daemon's current role."""

    @property
    def term(self) -> int | None:
        """The term in which this daemon leads."""

    @property
    def holder(self) -> str | None:
        """The identity of the daemon that leads."""

    @property
    def held_monotonic(self) -> float | None:
        """Monotonic time at which any daemon was last known to hold the lease; None if never."""


class Heartbeat:
    """Beats until it is cancelled.

    Leadership is read with every beat because a lease ends by the passing of time alone: no event reports it. Without
    leadership, this daemon acts in any case. `staleness_limits` is called with every beat, too, so that it
    follows a reload.
    """

    def __init__(
        self,
        *,
        observer: Observer,
        staleness_limits: Callable[[], StalenessLimits],
        notifier: Notifier,
        clock: Clock,
        leadership: Leadership | None = None,
    ) -> None:
        self._observer = observer
        self._staleness_limits = staleness_limits
        self._notifier = notifier
        self._clock = clock
        self._leadership = leadership
        self._ready = False
        self._told: str | None = None
        self._alive_monotonic = self._waiting_monotonic = -math.inf

    async def run(self) -> None:
        """Beat twice a second."""
        while True:
            due_monotonic = self._clock.monotonic() + TICK_SECONDS
            await asyncio.sleep(TICK_SECONDS)
            self.beat(max(0.0, self._clock.monotonic() - due_monotonic))

    def ready_again(self) -> None:
        """Report to systemd that a reload is over, but not before the end of the start has been reported."""
        if self._ready:
            self._ready = False
            self._notify()

    def beat(self, lag_seconds: float) -> None:
        """Record a beat and its lag, and send systemd the status and the watchdog signal that are due."""
        self._observer.beat(lag_seconds)
        self._observer.log_lines_dropped(dropped_lines())
        self._see_role()
        self._notify()

    def _see_role(self) -> None:
        who = self._leadership
        if who is None:
            self._observer.role_seen(Role.LEADER)
        else:
            self._observer.role_seen(who.role, term=who.term, leader=who.holder)
            self._observer.lease_held(who.held_monotonic)

    def _notify(self) -> None:
        now, tick = self._observer.status.snapshot, self._clock.monotonic()
        line = headline(now, tick, self._staleness_limits())
        if not self._ready:
            self._begin(line, tick, started=startup(now, tick).is_good)
        elif line != self._told and self._notifier.status(line):
            self._told = line
        watchdog_seconds = self._notifier.watchdog_seconds
        if watchdog_seconds is not None and tick - self._alive_monotonic >= watchdog_seconds - TICK_SECONDS:
            self._notifier.alive()
            self._alive_monotonic = tick

    def _begin(self, line: str, tick: float, *, started: bool) -> None:
        """Report the end of the start until systemd has received it; before that, what the start waits for."""
        if started:
            self._ready = self._notifier.ready(line)
            self._told = line
        elif line != self._told or tick - self._waiting_monotonic >= EXTENSION_SECONDS / 2:
            self._notifier.waiting(line, patience_seconds=EXTENSION_SECONDS)
            self._told = line
            self._waiting_monotonic = tick
