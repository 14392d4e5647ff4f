"""The embedded server: a mongod in one folder, restarted as often as needed, primary of a replica set of one."""

import asyncio
import socket
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pymongo import AsyncMongoClient
from pymongo.errors import AutoReconnect, OperationFailure

from pool_daemon.embedded.folder import Access, claim
from pool_daemon.embedded.process import MongodProcess, PortInUseError, find_mongod
from pool_daemon.errors import EmbeddedError

FRUGAL_OPTIONS = (
    "--quiet",
    "--wiredTigerCacheSizeGB=0.5",
    "--oplogSize=512",
    "--setParameter=diagnosticDataCollectionEnabled=false",
)
"""Little memory, a bounded oplog (MB) and a short log: the machine is shared with the daemon.

The cache takes memory as it fills. Half of it, the least that mongod allows, is too little: a fresh server refuses each
document of 14 MB or more for half a minute and longer, as too large for its cache.
"""

FREE_PORTS_TRIED = 5
"""Free ports tried in a row: each may be taken by another program before mongod binds it."""


class EmbeddedMongod:
    """A mongod on the loopback address, with its data in a folder that outlives it; an async context manager.

    It requires a password, which `uri` contains and the folder keeps. With `replica_set` it is the primary of a set of
    one and has transactions and change streams; with None it is a standalone server. `port` 0 takes any free port, and
    the same one again after a stop where possible. `options` are further options of mongod, in the form
    ``--name=value``; they rank above FRUGAL_OPTIONS.

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
        self._access: Access | None = None

    @property
    def port(self) -> int:
        """The port of the current or the last run; EmbeddedError before the first start."""
        return self._run.port

    @property
    def pid(self) -> int:
        """The process id of the current or the last run; EmbeddedError before the first start."""
        return self._run.pid

    @property
    def uri(self) -> str:
        """The address for clients, with user and password, without a database; EmbeddedError before the first start."""
        query = f"replicaSet={self._replica_set}" if self._replica_set else "directConnection=true"
        return self._entry.uri(port=self.port, query=query)

    async def start(self) -> None:
        """Run mongod and return once it accepts writes.

        Raises EmbeddedError with the remedy if there is no mongod, if it cannot run, if its folder or its port is in
        use, or if it is not ready within `start_seconds`. A failed or cancelled start leaves no process.
        """
        binary = find_mongod(self._mongod)
        self._access = claim(self._folder)
        self._process = await self._serve_somewhere(binary)

    async def stop(self) -> None:
        """Stop mongod, by force if it hangs; do nothing if it is not running."""
        if self._process is not None:
            self._entry.withdraw()
            await self._process.stop()

    async def wait(self) -> None:
        """Wait until mongod is stopped; raise EmbeddedError if it ended by itself."""
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

    @property
    def _entry(self) -> Access:
        if self._access is None:
            raise EmbeddedError(f"the mongod of {self._folder} has not been started")
        return self._access

    async def _serve_somewhere(self, binary: Path) -> MongodProcess:
        *ports, last = self._ports()
        for port in ports:
            with suppress(PortInUseError):
                return await self._serve(binary, port)
        return await self._serve(binary, last)

    async def _serve(self, binary: Path, port: int) -> MongodProcess:
        options = self._all_options()
        process = await MongodProcess.launch(binary=binary, folder=self._folder, port=port, options=options)
        try:
            async with asyncio.timeout(self._start_seconds):
                await self._until_ready(process)
        except TimeoutError:
            await process.kill()
            raise EmbeddedError(
                f"{binary} was not ready within {self._start_seconds:g} s: {process.log_excerpt()}"
            ) from None
        except BaseException:
            await process.kill()
            raise
        return process

    async def _until_ready(self, process: MongodProcess) -> None:
        await process.until(process.listening)
        host = f"127.0.0.1:{process.port}"
        async with self._entry.as_server(host) as client:
            if self._replica_set is not None:
                await process.until(partial(become_primary, client, host=host, replica_set=self._replica_set))
            await process.until(partial(self._entry.create_user, client))
        self._entry.publish(process.port)

    def _all_options(self) -> list[str]:
        given = {_name(option) for option in self._options}
        own = (*FRUGAL_OPTIONS, *self._entry.options)
        options = [option for option in own if _name(option) not in given]
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


ALREADY_INITIALIZED = 23
STILL_LOADING = frozenset({93, 94})
"""InvalidReplicaSetConfig and NotYetInitialized: the server has not read its configuration yet."""


async def become_primary(client: AsyncMongoClient[dict[str, Any]], *, host: str, replica_set: str) -> bool:
    """Bring the server one step closer to being a writable primary; return whether `host` is one already.

    `client` is a direct connection to `host`. A new folder is initiated. A folder whose last run had another port still
    names that port as its only member: it is reconfigured by force, or it would wait for itself for ever. A server that
    does not answer counts as not ready. Raises EmbeddedError if the server refuses.
    """
    try:
        hello = await client.admin.command("hello")
        if "setName" not in hello:
            await _join(client, host=host, replica_set=replica_set)
    except AutoReconnect:
        return False
    except OperationFailure as error:
        if error.code in STILL_LOADING:
            return False
        raise EmbeddedError(f"the mongod on {host} cannot become a replica set: {error}") from error
    return bool(hello.get("isWritablePrimary"))


async def _join(client: AsyncMongoClient[dict[str, Any]], *, host: str, replica_set: str) -> None:
    members = [{"_id": 0, "host": host}]
    try:
        await client.admin.command("replSetInitiate", {"_id": replica_set, "members": members})
    except OperationFailure as error:
        if error.code != ALREADY_INITIALIZED:
            raise
        await _move(client, host=host, replica_set=replica_set)


async def _move(client: AsyncMongoClient[dict[str, Any]], *, host: str, replica_set: str) -> None:
    config = (await client.admin.command("replSetGetConfig"))["config"]
    # Another set's members elsewhere would be cut off by force.
    if config["_id"] != replica_set or len(config["members"]) != 1:
        raise EmbeddedError(
            f"its folder belongs to the replica set {config['_id']} of {len(config['members'])}: choose another folder"
        )
    config["members"][0]["host"] = host
    config["version"] += 1
    await client.admin.command("replSetReconfig", config, force=True)
