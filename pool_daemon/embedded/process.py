"""One run of mongod: a child process that does not outlive the daemon and does not die of the daemon's terminal."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Self

from pool_daemon.embedded import diagnosis
from pool_daemon.embedded.folder import LOG
from pool_daemon.errors import EmbeddedError

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
        return diagnosis.words(self._log().decode(errors="replace"))

    def _why_it_ended(self) -> EmbeddedError:
        return diagnosis.explain(
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
