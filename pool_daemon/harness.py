"""The real daemon as a process that is started and watched: for the demo, the benchmark and the tests."""

import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from pool_daemon.embedded import die_with_parent
from pool_daemon.errors import PoolDaemonError
from pool_daemon.settings.sources import CONFIG, PREFIX, SYSTEMD_SECRETS_DIR

Entry = Mapping[str, Any]

STOP_SECONDS: Final = 30
"""Longer than the daemon's own time limit for a stop; a daemon that takes longer hangs, and is killed."""

POLL_SECONDS: Final = 0.02
LAST_WORDS: Final = 8
LAST_WORDS_LENGTH: Final = 400


class DaemonProcess:
    """One run of `pool-daemon run` on a database; a context manager that starts and stops it.

    Its log goes to a file, as it would to a journal. It has a session of its own, so that Ctrl-C on the terminal
    reaches only its owner, which then stops it. It is tethered to the thread that starts it, so that it ends even if
    its owner is killed. `settings` are named as in the environment; `error` is the kind of error that is raised, with
    the daemon's last log lines, if it ends by itself.
    """

    def __init__(
        self, *, uri: str, database: str, log: Path, error: type[PoolDaemonError], settings: Mapping[str, str]
    ) -> None:
        self._environment = environment(**settings, DATABASE__URI=uri, DATABASE__NAME=database)
        self._log = log
        self._error = error
        self._read = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start the daemon; it is not ready yet when this returns."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the daemon, by force if it hangs."""
        self.stop()

    def start(self) -> None:
        """Start the daemon; it is not ready yet when this returns."""
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the daemon itself
                [
                    *(sys.executable, "-I", "-S", die_with_parent.__file__, str(os.getpid())),
                    *(sys.executable, "-m", "pool_daemon", "run"),
                ],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def stop(self) -> int:
        """Send SIGTERM, wait for the end, and return the exit code; kill the daemon if it hangs."""
        if self._process is None:
            return 0
        self._process.terminate()
        try:
            return self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    @property
    def pid(self) -> int:
        """The process's id. Raises the error if it was never started."""
        return self._running.pid

    def ensure_alive(self) -> None:
        """Raise the error with the daemon's last log lines if it has ended by itself."""
        if (code := self._running.poll()) is not None:
            raise self._error(
                f"the daemon ended by itself with exit code {code}; its last words:\n{self._last_words()}"
            )

    def new_entries(self) -> Iterator[Entry]:
        """Yield the daemon's log entries since the last call; lines that are no JSON are skipped."""
        with self._log.open("rb") as log:
            log.seek(self._read)
            for line in log:
                if not line.endswith(b"\n"):
                    break
                self._read += len(line)
                if (entry := _parsed(line)) is not None:
                    yield entry

    def entries(self, event: str) -> Iterator[Entry]:
        """Yield the entries of this event in the daemon's log so far."""
        mark = json.dumps(event).encode()
        with self._log.open("rb") as log:
            for line in log:
                if mark in line and line.endswith(b"\n"):
                    entry = _parsed(line)
                    if entry is not None and entry.get("event") == event:
                        yield entry

    def first(self, event: str, *, holds: Callable[[Entry], bool] = bool, within_seconds: float = 60) -> Entry:
        """Wait until the daemon logs an event for which `holds` is true, and return the first such entry.

        Raises the error, with the daemon's last log lines, if that takes longer or the daemon ends by itself.
        """
        deadline = time.monotonic() + within_seconds
        while True:
            for entry in self.entries(event):
                if holds(entry):
                    return entry
            if time.monotonic() > deadline:
                raise self._error(
                    f"the daemon did not log {event} within {within_seconds:g} s; its last words:\n{self._last_words()}"
                )
            self.ensure_alive()
            time.sleep(POLL_SECONDS)

    def cpu_seconds(self) -> float:
        """Return the processor time that the daemon has used so far."""
        return cpu_seconds(self.pid)

    def memory_mb(self) -> float:
        """Return the memory that the daemon uses, in megabytes."""
        return memory_mb(self.pid)

    def peak_memory_mb(self) -> float:
        """Return the peak memory of the daemon, in megabytes."""
        return peak_memory_mb(self.pid)

    @property
    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            raise self._error("the daemon has not been started")
        return self._process

    def _last_words(self) -> str:
        with self._log.open(encoding="utf-8", errors="replace") as log:
            lines = [line.rstrip()[:LAST_WORDS_LENGTH] for line in deque(log, maxlen=LAST_WORDS)]
        return "\n".join(lines) or "it logged nothing"


def logged_at(entry: Entry) -> float:
    """Return when an entry was logged, in unix seconds."""
    return datetime.fromisoformat(entry["timestamp"]).timestamp()


def _parsed(line: bytes) -> Entry | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


DEFAULTS: Final = {"LOG__FORMAT": "json", "HTTP__PORT": "0"}
"""A log that a program can read, and a port that nothing else has."""


def environment(**settings: str) -> dict[str, str]:
    """Return this process's environment with these settings and no others, named as `DATABASE__URI`.

    Settings meant for another daemon are removed: they would lead this one to its database, and change results.
    """
    inherited = {
        name: text
        for name, text in os.environ.items()
        if not name.upper().startswith(PREFIX) and name != SYSTEMD_SECRETS_DIR
    }
    return inherited | {CONFIG: ""} | {PREFIX + name: text for name, text in (DEFAULTS | settings).items()}


def cpu_seconds(pid: int) -> float:
    """Return the processor time that the process has used so far."""
    fields = _proc(pid, "stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int) -> float:
    """Return the memory that the process uses, in megabytes."""
    return _kilobytes(pid, "VmRSS:") / 1024


def peak_memory_mb(pid: int) -> float:
    """Return the peak memory of the process, in megabytes."""
    return _kilobytes(pid, "VmHWM:") / 1024


def _kilobytes(pid: int, name: str) -> int:
    line = next(line for line in _proc(pid, "status").splitlines() if line.startswith(name))
    return int(line.split()[1])


def _proc(pid: int, name: str) -> str:
    return Path(f"/proc/{pid}/{name}").read_text(encoding="utf-8", errors="replace")
