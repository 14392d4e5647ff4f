"""A replica set of three on one machine, whose members a test may kill, freeze and bring back."""

import asyncio
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from addresses import as_stranger, through
from pymongo import AsyncMongoClient
from pymongo.errors import AutoReconnect, OperationFailure

from pool_daemon.embedded import EmbeddedMongod
from pool_daemon.embedded.folder import KEY_FILE, PASSWORD_FILE, USER, Access
from pool_daemon.embedded.process import MongodProcess

NAME = "pool-daemon-three"
SETTINGS = {"electionTimeoutMillis": 1000, "heartbeatIntervalMillis": 500}
ANSWER_MILLISECONDS = 500
"""A member that takes longer to answer counts as silent: it is dead or frozen."""

AGREEMENT_SECONDS = 30
INELIGIBLE_SECONDS = 10
POLL_SECONDS = 0.02

NOBODY_CAUGHT_UP = 262
"""ExceededTimeLimit: on a busy machine the secondaries may lag behind for a moment."""

Answer = TypeVar("Answer")


class BreakableMongod(EmbeddedMongod):
    """A mongod that can be broken. Started again, it has its data, and its port if nobody took that meanwhile."""

    async def kill(self) -> None:
        """End it as kill -9 does; nothing happens if it has ended."""
        await self._run.kill()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Freeze it: its connections stay open and nothing answers, as behind a network that went dark."""
        self._run.send(signal.SIGSTOP)
        try:
            yield
        finally:
            self._run.send(signal.SIGCONT)


class _Member(BreakableMongod):
    """A mongod that waits for others to make a set of it and them, which knows its users."""

    async def _until_ready(self, process: MongodProcess) -> None:
        await process.until(process.listening)


class EmbeddedReplicaSet:
    """Three members that elect a new primary in a second or two; an async context manager for one event loop.

    With an `arbiter` the last of them has no data.
    """

    def __init__(self, *, folder: Path, arbiter: bool = False) -> None:
        options = [f"--replSet={NAME}", "--setParameter=enableTestCommands=1"]
        folders = [folder / f"member-{number}" for number in range(3)]
        self.members = [_Member(folder=it, replica_set=None, options=options) for it in folders]
        self._access = _shared_access(folders)
        self._arbiter = arbiter
        self._clients: list[AsyncMongoClient[dict[str, Any]]] = []

    @property
    def uri(self) -> str:
        """Where clients connect to the whole set."""
        ports = [member.port for member in self.members]
        return through(self.members[0].uri, *ports, options=f"replicaSet={NAME}")

    async def start(self) -> None:
        """Start the members, initiate their set, and return once it has a primary and two secondaries."""
        async with asyncio.TaskGroup() as starts:
            for member in self.members:
                starts.create_task(member.start())
        self._clients = [_direct_client(member) for member in self.members]
        hosts = [{"_id": i, "host": f"127.0.0.1:{member.port}"} for i, member in enumerate(self.members)]
        hosts[-1]["arbiterOnly"] = self._arbiter
        config = {"_id": NAME, "members": hosts, "settings": SETTINGS}
        async with self._access.as_server(str(hosts[0]["host"])) as server:
            await server.admin.command("replSetInitiate", config)
        primary = await self.primary()
        async with self._access.as_server(f"127.0.0.1:{primary.port}") as server:
            await _agreed(partial(self._access.create_user, server), on="a user")
            # A member that has just been elected may lack the key by which another one has signed the time.
            trusted = {"resource": {"cluster": True}, "actions": ["advanceClusterTime"]}
            await server.admin.command("createRole", "timekeeper", privileges=[trusted], roles=[])
            await server.admin.command("grantRolesToUser", USER, roles=["timekeeper"])
            everywhere = {"w": 3 - self._arbiter}
            await server.admin.command("appendOplogNote", 1, data={}, writeConcern=everywhere)
        await self.complete()

    async def stop(self) -> None:
        """End the members at once: nobody reads their folders again."""
        for client in self._clients:
            await client.close()
        await asyncio.gather(*(member.kill() for member in self.members))

    async def complete(self) -> None:
        """Return once one member leads and the two others follow."""
        await self.primary()
        await _agreed(self._two_follow, on="two secondaries")

    async def primary(self) -> BreakableMongod:
        """Return the primary, once there is one; of two that claim it, the one that was elected last."""
        return await _agreed(self._leader, on="a primary")

    async def step_down(self, *, ineligible_seconds: int = INELIGIBLE_SECONDS) -> BreakableMongod:
        """Make the primary hand over; return the new one once it takes writes."""
        old = await self.primary()
        client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(old.uri)

        async def hand_over() -> bool:
            try:
                await client.admin.command(
                    "replSetStepDown", ineligible_seconds, secondaryCatchUpPeriodSecs=ineligible_seconds - 1
                )
            except OperationFailure as error:
                if error.code != NOBODY_CAUGHT_UP:
                    raise
                return False
            return True

        async with client:
            await _agreed(hand_over, on="a secondary that has caught up")

        async def successor() -> BreakableMongod | None:
            leader = await self._leader()
            return leader if leader is not old else None

        return await _agreed(successor, on="a new primary")

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def _leader(self) -> BreakableMongod | None:
        answers = zip(await self._hellos(), self.members, strict=True)
        leaders = [(hello["electionId"], member) for hello, member in answers if hello.get("isWritablePrimary")]
        return max(leaders, key=lambda leader: leader[0])[1] if leaders else None

    async def _two_follow(self) -> bool:
        hellos = await self._hellos()
        return sum(bool(hello.get("secondary") or hello.get("arbiterOnly")) for hello in hellos) == 2

    async def _hellos(self) -> list[dict[str, Any]]:
        return await asyncio.gather(*(_hello(client) for client in self._clients))


def _shared_access(folders: Sequence[Path]) -> Access:
    """Give all members the secrets of the first: they must know each other."""
    for folder in folders:
        folder.mkdir(mode=0o700)
    access = Access.prepare(folders[0])
    for folder, name in product(folders[1:], (KEY_FILE, PASSWORD_FILE)):
        shutil.copy(folders[0] / name, folder)
    return access


def _direct_client(member: BreakableMongod) -> AsyncMongoClient[dict[str, Any]]:
    return AsyncMongoClient(
        as_stranger(member.uri),  # hello is answered before there is a user
        connectTimeoutMS=ANSWER_MILLISECONDS,
        socketTimeoutMS=ANSWER_MILLISECONDS,
        serverSelectionTimeoutMS=ANSWER_MILLISECONDS,
    )


async def _hello(client: AsyncMongoClient[dict[str, Any]]) -> dict[str, Any]:
    try:
        return await client.admin.command("hello")
    except (AutoReconnect, OperationFailure):  # one that has just started may lack the key that signs the time
        return {}


async def _agreed(question: Callable[[], Awaitable[Answer | None]], *, on: str) -> Answer:
    deadline = time.monotonic() + AGREEMENT_SECONDS
    while time.monotonic() < deadline:
        if answer := await question():
            return answer
        await asyncio.sleep(POLL_SECONDS)
    raise AssertionError(f"no agreement on {on} within {AGREEMENT_SECONDS} s")
