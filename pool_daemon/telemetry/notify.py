"""Reports the state of the service to systemd with sd_notify; without systemd nothing happens."""

import os
import socket
import time
from collections.abc import Mapping
from typing import Final

SEND_SECONDS: Final = 0.1
"""How long a message may wait for a manager that does not read: the event loop is blocked meanwhile."""


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
