"""The daemon to be measured: the real one, in a process of its own, observed from outside."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from pool_daemon.embedded import tether
from pool_daemon.errors import BenchError
from pool_daemon.settings.sections import SECTIONS
from pool_daemon.settings.sources import PREFIX, SEPARATOR, SYSTEMD_SECRETS_DIR

Entry = Mapping[str, Any]

STOP_SECONDS: Final = 30
POLL_SECONDS: Final = 0.02
LAST_WORDS: Final = 2
LAST_WORDS_LENGTH: Final = 200

QUIET: Final = {
    "LOG__FORMAT": "json",
    "LOG__LEVEL": "debug",
    "BRAKE__ENABLED": "false",
    "HTTP__ENABLED": "false",
    "RECONCILE__ENABLED": "false",
}
"""Settings of every row: a readable log, and nothing running beside what is measured. The brake is off, because it is
there to stop a storm."""


class DaemonProcess:
    """One run of `pool-daemon run`; a context manager that starts and stops it.

    Its log goes to a file, as it would to a journal. It is tethered to the bench, so that it ends even if the bench is
    killed.
    """

    def __init__(self, *, uri: str, database: str, log: Path, settings: Mapping[str, str]) -> None:
        wanted = QUIET | dict(settings) | {"DATABASE__URI": uri, "DATABASE__NAME": database}
        self._environment = _without_settings(os.environ) | {
            PREFIX + name: text for name, text in wanted.items() if _exists(name)
        }
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start the daemon; it is not ready yet when this returns."""
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the daemon itself
                [
                    *(sys.executable, "-I", "-S", tether.__file__, str(os.getpid())),
                    *(sys.executable, "-m", "pool_daemon", "run"),
                ],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the daemon, by force if it hangs."""
        self._running.terminate()
        try:
            self._running.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._running.kill()
            self._running.wait()

    @property
    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            raise BenchError("the daemon under measure has not been started")
        return self._process

    def cpu_seconds(self) -> float:
        """Return the processor time that the process has used so far."""
        fields = self._proc("stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mb(self) -> float:
        """Return the memory that the process uses, in megabytes."""
        return self._kilobytes("VmRSS:") / 1024

    def peak_memory_mb(self) -> float:
        """Return the peak memory of the process, in megabytes."""
        return self._kilobytes("VmHWM:") / 1024

    def entries(self, event: str) -> Iterator[Entry]:
        """Yield the entries of this event in the daemon's log so far."""
        mark = json.dumps(event).encode()
        with self._log.open("rb") as log:
            for line in log:
                if mark in line and line.endswith(b"\n"):
                    entry = json.loads(line)
                    if entry.get("event") == event:
                        yield entry

    def first(self, event: str, *, holds: Callable[[Entry], bool] = bool, within_seconds: float = 60) -> Entry:
        """Wait until the daemon logs an event for which `holds` is true, and return the first such entry.

        Raises BenchError, with the daemon's last log lines, if that takes longer or the daemon ends by itself.
        """
        deadline = time.monotonic() + within_seconds
        while True:
            for entry in self.entries(event):
                if holds(entry):
                    return entry
            if time.monotonic() > deadline or self._running.poll() is not None:
                raise BenchError(f"the daemon did not log {event} within {within_seconds:g} s: {self._last_words()}")
            time.sleep(POLL_SECONDS)

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()
        return "; ".join(line[:LAST_WORDS_LENGTH] for line in lines[-LAST_WORDS:]) or "it said nothing"

    def _kilobytes(self, name: str) -> int:
        line = next(line for line in self._proc("status").splitlines() if line.startswith(name))
        return int(line.split()[1])

    def _proc(self, name: str) -> str:
        return Path(f"/proc/{self._running.pid}/{name}").read_text()


def logged_at(entry: Entry) -> float:
    """Return when an entry was logged, in unix seconds."""
    return datetime.fromisoformat(entry["timestamp"]).timestamp()


def _exists(name: str) -> bool:
    section, _, field = name.lower().partition(SEPARATOR)
    return field in SECTIONS.get(section, {})


def _without_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Remove settings meant for another daemon: results must not depend on the environment."""
    return {
        name: text
        for name, text in environment.items()
        if not name.upper().startswith(PREFIX) and name != SYSTEMD_SECRETS_DIR
    }
