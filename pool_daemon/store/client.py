"""The connection to MongoDB: two clients with their time-outs, one of them for the change stream.

Beside it what all reads share: pages, the server's clock, and the report of how long each command took. How a
transaction runs is in `sessions.py`.
"""

import contextlib
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol, TypeVar

import pymongo
from bson import Binary
from bson.codec_options import CodecOptions
from motor.motor_asyncio import (
    AsyncIOMotorClient,
    AsyncIOMotorCollection,
    AsyncIOMotorDatabase,
)
from pymongo import monitoring
from pymongo.monitoring import CommandListener, TopologyListener

from pool_daemon.errors import ConfigurationError, StoreUnavailableError
from pool_daemon.store.address import read_address
from pool_daemon.store.codec import LENIENT
from pool_daemon.store.error_mapping import one_line, translated
from pool_daemon.store.sessions import SEARCHES, TRANSACTION_ATTEMPTS, Probe, Session, Sessions, renewing
from pool_daemon.store.topology import OneRouter

T = TypeVar("T")
Collection = AsyncIOMotorCollection[Any]

STREAM_AWAIT_MS: Final = 1000
"""Time for which the server delays an answer of the change stream while nothing changes: one command a second, and a
stop waits no longer than that."""

SAFETY: Final[Mapping[str, Any]] = {
    "readPreference": "primary",
    "readConcernLevel": "majority",
    "w": "majority",
    "retryReads": True,
    "retryWrites": True,
}
"""Options that no address and no default of the cluster may change: reads and writes survive an election."""

STANDALONE: Final = (
    "database.uri: this is a standalone server, without transactions and change streams. Make it a replica set of "
    "one member: restart it with `mongod --replSet rs0`, then run `mongosh --eval 'rs.initiate()'` once"
)


def connect(
    *,
    uri: str,
    name: str,
    timeout_seconds: float = 10,
    server_selection_seconds: float = 5,
    listeners: Sequence[CommandListener | TopologyListener] = (),
) -> "Database":
    """Return the database of that name at that address; nothing is sent before the first operation.

    `timeout_seconds` bounds every operation with all its retries and, since the driver then ignores every other limit,
    with its search for a server; `server_selection_seconds` bounds that search for `ping` and the change stream.
    `listeners` are called for every command, or every change of a server, in the driver's threads. Of several mongos
    each client keeps to one. Raises ConfigurationError if the address is invalid; an old driver raises
    StoreUnavailableError if the servers behind mongodb+srv:// cannot be looked up now, a newer one looks them up with
    every operation until it has them.
    """
    address = read_address(uri)

    def client(**limits: Any) -> AsyncIOMotorClient[Any]:
        return AsyncIOMotorClient(
            address.uri,
            appname="pool-daemon",
            serverSelectionTimeoutMS=int(server_selection_seconds * 1000),
            event_listeners=listeners,
            server_selector=OneRouter(),
            **SAFETY,
            **limits,
        )

    # The driver's own operations, such as ending a cursor, are not bounded by timeoutMS, but by the socket's time-out.
    milliseconds = int(timeout_seconds * 1000)
    stream_milliseconds = STREAM_AWAIT_MS + milliseconds
    try:
        with translated("connecting"), warnings.catch_warnings(action="error", category=UserWarning):
            return Database(
                client=client(timeoutMS=milliseconds, socketTimeoutMS=milliseconds),
                stream_client=client(socketTimeoutMS=stream_milliseconds, connectTimeoutMS=milliseconds),
                name=name,
                ping_seconds=min(timeout_seconds, server_selection_seconds),
            )
    except (OSError, ValueError, UserWarning) as error:  # the driver's errors for a wrong port or wrong certificates
        raise ConfigurationError(f"database.uri: {one_line(error)}") from error


class Database:
    """One database on one MongoDB deployment, reached through motor.

    The change stream has a client of its own: the other client sends its time-out with every command as the time limit
    for the server, and the server would delay the stream's answers for that long.
    """

    def __init__(
        self,
        *,
        client: AsyncIOMotorClient[Any],
        name: str,
        stream_client: AsyncIOMotorClient[Any] | None = None,
        ping_seconds: float = 5,
    ) -> None:
        self._client = client
        self._ping_seconds = ping_seconds
        self._stream_client = stream_client or client
        self._sessions = Sessions(client)
        self._search_sessions = Sessions(client, number=SEARCHES)
        self.name = name
        self.has_arbiter = False
        """Whether the replica set has an arbiter, as of the last `ping`."""

    @property
    def motor(self) -> AsyncIOMotorDatabase[Any]:
        """Return motor's own database object, for the other modules of the store."""
        return self._client.get_database(self.name, codec_options=LENIENT)

    def collection(self, name: str, codec_options: CodecOptions[Any] = LENIENT) -> Collection:
        """Return a collection with these codec options."""
        return self._client.get_database(self.name).get_collection(name, codec_options=codec_options)

    def without_time_limit(self, name: str) -> Collection:
        """Return a collection whose commands have no time limit on the server; the wait for an answer stays bounded."""
        return self._stream_client.get_database(self.name).get_collection(name)

    async def ping(self) -> None:
        """Check that a primary answers, within the time of a server selection; it must support transactions.

        Raises ConfigurationError if that is a standalone server, StoreUnavailableError if it is a secondary to which
        the address leads directly, or if no server answers, or StoreRefusedError.
        """
        with translated("reaching MongoDB"), pymongo.timeout(self._ping_seconds):
            await self._client.admin.command("ping")
            hello = await self._client.admin.command("hello")
        self.has_arbiter = bool(hello.get("arbiters"))
        if hello.get("msg") == "isdbgrid":
            return
        if "setName" not in hello and "isreplicaset" not in hello:
            raise ConfigurationError(STANDALONE)
        if not hello.get("isWritablePrimary"):
            raise StoreUnavailableError(
                "reaching MongoDB: the server is not primary; name the replica set in the address"
            )

    async def reach(self, seconds: float) -> None:
        """Wait for a primary, no longer than that; whatever it can do.

        Raises StoreUnavailableError or StoreRefusedError.
        """
        with translated("reaching MongoDB"), pymongo.timeout(seconds):
            await self._client.admin.command("ping")

    async def stream_session(self) -> Session:
        """Start a session for a change stream; the caller ends it."""
        with translated("starting a session"):
            return await self._stream_client.start_session()

    async def stream_command(self, command: dict[str, Any], session: Session) -> dict[str, Any]:
        """Send one of a change stream's commands in its session; raises the driver's errors."""
        with self._renewing():
            # Unlike a collection, a command ignores every codec option but its own for decoding its answer.
            return await self._stream_client.get_database(self.name).command(
                command, session=session, codec_options=LENIENT
            )

    async def transact(
        self, body: Callable[[Session], Awaitable[T]], *, doing: str, attempts: int = TRANSACTION_ATTEMPTS
    ) -> T:
        """Run `body` in a transaction: it reads from a snapshot, commits to a majority, all of it or nothing.

        `doing` names the operation in errors, as far as `body` has not named a part of it.

        After a conflict with another writer it is begun again, until `attempts` have lost, after a short random wait
        that grows; while a collection is locked, for a second. Raises what `body` raises, StoreConflictError when every
        attempt lost, or StoreUnavailableError; in the last case the transaction may have been committed.
        """
        with translated(doing), self._renewing():
            return await self._sessions.transact(body, attempts=attempts)

    @asynccontextmanager
    async def probe(self) -> AsyncIterator[Probe]:
        """Lend what runs commands, each naming its transaction, in a session of the searches for locked pools.

        It blocks, so it is called in a thread. It raises the driver's errors.
        """
        async with self._search_sessions.lend() as session:

            def run(command: Mapping[str, Any], *, database: str = self.name) -> Mapping[str, Any]:
                answer: Mapping[str, Any] = self._client.delegate[database].command(
                    command, session=session.delegate, codec_options=LENIENT
                )
                return answer

            yield run

    async def session_ids(self) -> list[Binary]:
        """Return the ids of the sessions in which all transactions run; nothing is sent."""
        with translated("starting sessions"):
            return [*await self._sessions.ids(), *await self._search_sessions.ids()]

    async def end_sessions(self, ids: Sequence[Binary]) -> None:
        """End other sessions of this user: their transactions are aborted and their locks released at once.

        No privilege is needed for that. A session that is unknown, or another user's, is left alone.
        """
        own = set(await self.session_ids())
        if others := [{"id": each} for each in ids if each not in own]:  # an empty list would mean all sessions
            with translated("ending sessions"):
                await self._client.admin.command("killSessions", others)

    def _renewing(self) -> contextlib.AbstractContextManager[None]:
        return renewing(self._stream_client, self._client, began_anew=self._forget_sessions)

    def _forget_sessions(self) -> None:
        self._sessions.forget()
        self._search_sessions.forget()

    def close(self) -> None:
        """Close every connection; operations still waiting fail."""
        self._client.close()
        self._stream_client.close()


class ServerClock:
    """The clock of the server that takes the writes.

    `hello` returns it: the cheapest command there is, which touches no data and needs no privilege. `$$NOW` in an
    aggregation reads the same clock, but needs the right to read a collection.
    """

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def now(self) -> float:
        """Return the server's wall clock, in unix seconds exact to the millisecond, as of some moment of the call.

        Raises StoreUnavailableError or StoreRefusedError.
        """
        with translated("reading the server's clock"):
            hello = await self._database.motor.command("hello", codec_options=LENIENT)
        return float(hello["localTime"].timestamp())


PAGE: Final = 1000
"""Documents a round trip."""


async def pages(cursor: Any, *, doing: str) -> AsyncGenerator[list[Any], None]:
    """Yield the documents of a cursor in pages, and close it; close the iterator when leaving it early.

    `doing` names the operation in errors. Raises StoreUnavailableError or StoreRefusedError.
    """
    try:
        while True:
            with translated(doing):
                documents = await cursor.to_list(PAGE)
            if not documents:
                return
            yield documents
    finally:
        await cursor.close()


class CommandObserver(Protocol):
    """Receives the duration of each command, in the driver's threads: it must be quick and thread-safe."""

    def __call__(self, name: str, seconds: float, /, *, failed: bool) -> None:
        """Record one command."""


class CommandLog(monitoring.CommandListener):
    """A listener of the driver; pass it to the client as one of its `event_listeners`.

    A command that the server refused and one that it never answered both count as failed.
    """

    def __init__(self, told: CommandObserver) -> None:
        self._told = told

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        """Ignore the start: the end has the duration."""

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Report an answer."""
        self._told(event.command_name, event.duration_micros / 1e6, failed=False)

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Report an error, or a connection that broke."""
        self._told(event.command_name, event.duration_micros / 1e6, failed=True)
