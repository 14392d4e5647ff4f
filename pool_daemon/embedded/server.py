"""The server of one folder, over as many runs of mongod as its life takes."""

import asyncio
import socket
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pymongo import AsyncMongoClient

from pool_daemon.embedded.binary import find_mongod
from pool_daemon.embedded.diagnosis import PortInUseError
from pool_daemon.embedded.folder import claim
from pool_daemon.embedded.membership import step_up
from pool_daemon.embedded.process import MongodProcess
from pool_daemon.errors import EmbeddedError

FRUGAL_OPTIONS = (
    "--quiet",
    "--wiredTigerCacheSizeGB=0.25",
    "--oplogSize=512",
    "--setParameter=diagnosticDataCollectionEnabled=false",
)
"""Little memory, a bounded history (MB) and a short log: it shares its machine with the daemon."""

FREE_PORTS_TRIED = 5
"""A port that was free may be taken before mongod takes it; as often in a row it is no accident."""

SELECTION_MILLISECONDS = 1000
"""How long a question to mongod waits before the next look at whether it still runs."""


class EmbeddedMongod:
    """A mongod on the loopback address, with its data in a folder that outlives it; an async context manager.

    With `replica_set` it is the primary of a set of one and has transactions and change streams; with None
    it stands alone. `port` 0 takes any free port, and the same one again after a stop where possible.
    `options` are further options of mongod, in the form ``--name=value``; they win over FRUGAL_OPTIONS.

    Use it from one event loop. If the thread of that loop ends, even by SIGKILL, mongod ends with it.
    """

    def __init__(
        self,
        *,
        folder: Path,
        port: int = 0,
        mongod: Path | None = None,
        replica_set: str | None = "pool-daemon",
        options: Sequence[str] = (),
        start_seconds: float = 60,
    ) -> None:
        self._folder = folder.expanduser().absolute()
        self._wanted_port = port
        self._mongod = mongod
        self._replica_set = replica_set
        self._options = options
        self._start_seconds = start_seconds
        self._process: MongodProcess | None = None

    @property
    def port(self) -> int:
        """The port of the present or the last run; EmbeddedError before the first start."""
        return self._run.port

    @property
    def pid(self) -> int:
        """The process id of the present or the last run; EmbeddedError before the first start."""
        return self._run.pid

    @property
    def uri(self) -> str:
        """Where clients connect, without a database's name; EmbeddedError before the first start."""
        query = f"replicaSet={self._replica_set}" if self._replica_set else "directConnection=true"
        return f"mongodb://127.0.0.1:{self.port}/?{query}"

    async def start(self) -> None:
        """Run mongod and return once it takes writes.

        Raises EmbeddedError, naming the remedy, if there is no mongod, it cannot run, its folder or its port
        is taken, or it is not ready within `start_seconds`. Failed or cancelled, it leaves no process.
        """
        binary = find_mongod(self._mongod)
        claim(self._folder)
        *ports, last = self._ports()
        for port in ports:
            with suppress(PortInUseError):
                self._process = await self._serve(binary, port)
                return
        self._process = await self._serve(binary, last)

    async def stop(self) -> None:
        """End mongod cleanly, or by force if it does not end; nothing happens if it is not running."""
        if self._process is not None:
            await self._process.stop()

    async def wait(self) -> None:
        """Return once mongod was stopped; raise EmbeddedError if it ended by itself, so that its owner notices."""
        await self._run.wait()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def _run(self) -> MongodProcess:
        if self._process is None:
            raise EmbeddedError(f"the mongod of {self._folder} has not been started")
        return self._process

    async def _serve(self, binary: Path, port: int) -> MongodProcess:
        options = self._all_options()
        process = await MongodProcess.launch(binary=binary, folder=self._folder, port=port, options=options)
        try:
            async with asyncio.timeout(self._start_seconds):
                await self._until_ready(process)
        except TimeoutError:
            await process.kill()
            raise EmbeddedError(f"{binary} was not ready within {self._start_seconds:g} s: {process.words()}") from None
        except BaseException:
            await process.kill()
            raise
        return process

    async def _until_ready(self, process: MongodProcess) -> None:
        await process.until(process.listening)
        if self._replica_set is None:
            return
        host = f"127.0.0.1:{process.port}"
        client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
            host, directConnection=True, serverSelectionTimeoutMS=SELECTION_MILLISECONDS
        )
        async with client:
            await process.until(partial(step_up, client, host=host, replica_set=self._replica_set))

    def _all_options(self) -> list[str]:
        given = {_name(option) for option in self._options}
        options = [option for option in FRUGAL_OPTIONS if _name(option) not in given]
        if self._replica_set is not None:
            options.append(f"--replSet={self._replica_set}")
        return [*options, *self._options]

    def _ports(self) -> list[int]:
        if self._wanted_port:
            return [self._wanted_port]
        known = [self._process.port] if self._process is not None else []
        return known + [_free_port() for _ in range(FREE_PORTS_TRIED)]


def _name(option: str) -> str:
    return option.rpartition("=")[0] or option


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
