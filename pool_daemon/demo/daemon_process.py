"""The real daemon, started as an operator would start it, in a process of its own."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pool_daemon.embedded import tether
from pool_daemon.errors import DemoError
from pool_daemon.settings.sources import PREFIX, SYSTEMD_SECRETS_DIR

STOP_SECONDS: Final = 30
"""Longer than the daemon's own time limit for a stop; a daemon that takes longer hangs, and is killed."""

LAST_WORDS: Final = 8


class DaemonProcess:
    """One run of `pool-daemon run` on a database, its log in a file.

    It has a session of its own, so that Ctrl-C on the terminal reaches only the demo, which then stops it. It is
    tethered to the demo, so that it ends even if the demo is killed.
    """

    def __init__(self, *, uri: str, database: str, log: Path) -> None:
        self._settings = {"DATABASE__URI": uri, "DATABASE__NAME": database, "LOG__FORMAT": "json", "HTTP__PORT": "0"}
        self._log = log
        self._read = 0
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """The process's id, None before the start."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Start the daemon; it is not ready yet when this returns."""
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", tether.__file__, str(os.getpid())),
                *(sys.executable, "-m", "pool_daemon", "run"),
                env=_without_settings(os.environ) | {PREFIX + key: text for key, text in self._settings.items()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    async def stop(self) -> int:
        """Tell the daemon to stop, wait until it has, and return its exit code; kill it if it hangs."""
        if self._process is None:
            return 0
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                return await self._process.wait()
        except TimeoutError:
            self._process.kill()
            return await self._process.wait()

    def ensure_alive(self) -> None:
        """Raise DemoError with the daemon's last log lines if it has ended by itself."""
        if self._process is not None and self._process.returncode is not None:
            with self._log.open(encoding="utf-8", errors="replace") as lines:
                last_words = "".join(deque(lines, maxlen=LAST_WORDS)).rstrip()
            code = self._process.returncode
            raise DemoError(f"the daemon ended by itself with exit code {code}; its last words:\n{last_words}")

    def new_log_entries(self) -> Iterator[Mapping[str, Any]]:
        """Yield the daemon's log entries since the last call; lines that are no JSON are skipped."""
        with self._log.open("rb") as log:
            log.seek(self._read)
            for line in log:
                if not line.endswith(b"\n"):
                    break
                self._read += len(line)
                entry = _parsed(line)
                if entry is not None:
                    yield entry


def _without_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Remove settings meant for another daemon: the demo must never touch another database."""
    return {
        name: text
        for name, text in environment.items()
        if not name.upper().startswith(PREFIX) and name != SYSTEMD_SECRETS_DIR
    }


def _parsed(line: bytes) -> Mapping[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None
