"""The heartbeat of the event loop: proves that the loop is not stuck, and reports to systemd with sd_notify."""

import asyncio
import math
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from pool_daemon.clock import Clock
from pool_daemon.guards.leadership import Role
from pool_daemon.telemetry.health import StalenessLimits, headline, startup
from pool_daemon.telemetry.logs import dropped_lines
from pool_daemon.telemetry.observer import Observer

SEND_SECONDS: Final = 0.1
"""Time-out of a message to a manager that does not read: the event loop is blocked meanwhile."""


class Notifier:
    """The connection of the service to its manager, if the environment names one.

    `watchdog_seconds` is how often `alive` has to be called; None if no watchdog is set.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # A name that begins with @ is in the kernel's abstract namespace, not in the file system.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self.watchdog_seconds = _half_of_watchdog(environ) if address else None

    def ready(self, status: str) -> bool:
        """Report that start or reload is over, with a status line; return False if the message could not be sent."""
        return self._send("READY=1", f"STATUS={status}")

    def waiting(self, status: str, *, patience_seconds: float) -> bool:
        """Report what the start waits for, and extend its time-out to `patience_seconds`."""
        return self._send(f"STATUS={status}", f"EXTEND_TIMEOUT_USEC={patience_seconds * 1e6:.0f}")

    def status(self, status: str) -> bool:
        """Report a status line."""
        return self._send(f"STATUS={status}")

    def alive(self) -> bool:
        """Feed the watchdog."""
        return self._send("WATCHDOG=1")

    def reloading(self) -> bool:
        """Report that the settings are being reloaded; `ready` ends it."""
        return self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> bool:
        """Report that the service is stopping."""
        return self._send("STOPPING=1", "STATUS=stopping")

    def _send(self, *assignments: str) -> bool:
        if not self._address:
            return True
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
                line.settimeout(SEND_SECONDS)
                line.sendto("\n".join(assignments).encode(), self._address)
        except OSError:
            return False
        return True


def _half_of_watchdog(environ: Mapping[str, str]) -> float | None:
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        return int(environ.get("WATCHDOG_USEC", "0")) / 2e6 or None
    except ValueError:
        return None


TICK_SECONDS: Final = 0.5
"""Interval between beats: short enough to catch every stall that could make a pool late, at no measurable cost."""

EXTENSION_SECONDS: Final = 60.0
"""The extension asked of systemd, repeatedly, while the start waits for a database; without one for so long, the start
hangs."""


class LeadershipState(Protocol):
    """The state of leadership, as far as this daemon knows."""

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
        leadership: LeadershipState | None = None,
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
