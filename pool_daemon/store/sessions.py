"""Transactions, the sessions in which they run, and a client's recovery from two permanent failures of the driver."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol, TypeVar, cast

from bson import Binary
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorClientSession
from pymongo import ReadPreference
from pymongo.errors import PyMongoError, ServerSelectionTimeoutError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from pool_daemon.errors import StoreError
from pool_daemon.store.error_mapping import COLLECTION_LOCKED, lacks_sessions, lost_race

SESSIONS: Final = 36
"""More than `expiry.concurrency` may be, plus a few for restored orders; a transaction waits while none is free."""

TRANSACTION_ATTEMPTS: Final = 3
"""Attempts at a transaction that loses to another writer; together they take some milliseconds. A writer that commits
is done by then. One that does not commit may lock a document for a minute, and the caller has other work."""

FIRST_WAIT_SECONDS: Final = 0.008
"""The longest wait after the first conflict, about the length of the transaction it lost to; it doubles each time."""

COLLECTION_LOCK_ATTEMPTS: Final = 40
"""Attempts at a transaction while a collection is locked; together they take about a second. It is the daemon's own
indexes that are built beside its first passes. No clock bounds them: where the server or this process stood still, a
second may be over and hardly anything tried."""

COLLECTION_WAIT_SECONDS: Final = 0.05
"""The longest wait between attempts while a collection is locked."""

SEARCHES: Final = 4
"""Searches for locked pools at once, each in a session of its own."""


Client = AsyncIOMotorClient[Any]
Session = AsyncIOMotorClientSession
T = TypeVar("T")


class Probe(Protocol):
    """Runs a command on a database."""

    def __call__(self, command: Mapping[str, Any], *, database: str = ...) -> Mapping[str, Any]:
        """Return the answer."""


class Sessions:
    """A fixed number of sessions, lent to one transaction each; all ids are known before the first is used."""

    def __init__(self, client: AsyncIOMotorClient[Any], *, number: int = SESSIONS) -> None:
        self._client = client
        self._number = number
        self._turns = asyncio.Semaphore(number)
        self._starting = asyncio.Lock()
        self._all: list[Session] = []
        self._free: list[Session] = []

    async def ids(self) -> list[Binary]:
        """Return the ids of all sessions; nothing is sent."""
        await self._start()
        return [cast("Mapping[str, Binary]", session.session_id)["id"] for session in self._all]

    @asynccontextmanager
    async def lend(self) -> AsyncIterator[Session]:
        """Lend a session for one transaction.

        A session whose transaction was cancelled is discarded, for the driver may still use it. Its replacement is made
        at once, and has another id.
        """
        async with self._turns:
            await self._start()
            session = self._free.pop()
            try:
                yield session
            except asyncio.CancelledError:
                self._all = [each for each in self._all if each is not session]
                raise
            finally:
                if any(each is session for each in self._all):
                    self._free.append(session)

    async def transact(self, body: Callable[[Session], Awaitable[T]], *, attempts: int) -> T:
        """Run `body` in a transaction, and begin that again when it loses to another writer.

        That is until `attempts` have lost; while a collection is locked, for about a second. Raises the last error.
        """
        async with self.lend() as session:
            conflicts = locks = 0
            while True:
                try:
                    return await self._attempt(session, body)
                except (PyMongoError, StoreError) as error:
                    code = lost_race(error)
                    if code == COLLECTION_LOCKED:
                        locks += 1
                        longest_wait_seconds = COLLECTION_WAIT_SECONDS
                    else:
                        longest_wait_seconds = FIRST_WAIT_SECONDS * 2**conflicts
                        conflicts += 1
                    if code is None or conflicts >= attempts or locks >= COLLECTION_LOCK_ATTEMPTS:
                        raise
                await asyncio.sleep(random.uniform(0, longest_wait_seconds))  # noqa: S311 - jitter

    async def _attempt(self, session: Session, body: Callable[[Session], Awaitable[T]]) -> T:
        transaction = session.start_transaction(
            read_concern=ReadConcern("snapshot"),
            write_concern=WriteConcern("majority"),
            read_preference=ReadPreference.PRIMARY,
        )
        async with transaction:
            result = await body(session)
            await self._commit(session)
        return result

    async def _commit(self, session: Session) -> None:
        """Commit; the driver retries within its time limit, and the server recognizes a commit that it has done.

        If that fails, and the server has not aborted the transaction itself, it is aborted there: left open, it would
        lock its pools against every other writer, the next pass included, for a minute. The driver aborts none that it
        has begun to commit. One that was committed after all, and whose answer was lost, stays committed.
        """
        try:
            await session.commit_transaction()
        except PyMongoError as error:
            if not error.has_error_label("TransientTransactionError"):
                with contextlib.suppress(PyMongoError):
                    await self._client.admin.command("killSessions", [session.session_id])
            raise

    def forget(self) -> None:
        """Discard all sessions: they belong to former servers, and would go on gossiping their cluster time."""
        self._all, self._free = [], []

    async def _start(self) -> None:
        async with self._starting:
            while len(self._all) < self._number:
                # A transaction reads from a snapshot of its own: causal consistency with other clients is of no use.
                session = await self._client.start_session(causal_consistency=False)
                self._all.append(session)
                self._free.append(session)


@contextlib.contextmanager
def renewing(*clients: Client, began_anew: Callable[[], None]) -> Iterator[None]:
    """Renew clients whose operation failed with an error that would make every later one fail, too.

    `began_anew` is called for each client that forgets its servers; the former sessions belong to those.

    The driver decides once, when it makes a connection, whether the connection has sessions, and a server that changes
    its role just then has none. In the driver's pool, that connection would be used again and again, because the one
    returned last is lent first. The driver also never returns to a server that it has removed: see
    `_refuses_what_answers`.

    The driver has no public way to empty its pool or to begin anew. The client stays the same object, so that
    collections made of it go on working. If a newer driver names its parts otherwise, nothing is renewed.
    """
    try:
        yield
    except (PyMongoError, StoreError) as error:
        with contextlib.suppress(AttributeError):
            for client in clients:
                if lacks_sessions(error):
                    _renew_connections(client)
                elif _found_no_server(error) and _refuses_what_answers(client):
                    _begin_anew(client)
                    began_anew()
        raise


def _found_no_server(error: BaseException) -> bool:
    cause = error.__cause__ if isinstance(error, StoreError) else error
    return isinstance(cause, ServerSelectionTimeoutError)


def _refuses_what_answers(client: Client) -> bool:
    """Return whether the driver has removed a server for good.

    It takes a primary whose elections were counted from one again, as in a replica set restored with a fresh history,
    for an outdated one. And it removes a member that answers as a standalone server, however briefly.
    """
    servers = client.delegate.topology_description.server_descriptions().values()
    return not servers or any("stale" in str(server.error) for server in servers if server.error)


def _renew_connections(client: Client) -> None:
    for server in list(client.delegate._topology._servers.values()):  # noqa: SLF001
        server.pool.reset_without_pause()


def _begin_anew(client: Client) -> None:
    """Forget all servers and begin with those of the address, as a new client does."""
    driver = client.delegate
    old, keeper = driver._topology, driver._kill_cursors_executor  # noqa: SLF001
    driver._init_background()  # noqa: SLF001
    keeper.close()
    old.close()
