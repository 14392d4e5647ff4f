"""The connection to MongoDB: one client, its time-outs, and the transaction in which effects are committed."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from bson.codec_options import CodecOptions
from motor.motor_asyncio import (
    AsyncIOMotorClient,
    AsyncIOMotorClientSession,
    AsyncIOMotorCollection,
    AsyncIOMotorDatabase,
)
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from pool_daemon.store.documents import LENIENT
from pool_daemon.store.failures import translated

T = TypeVar("T")
Collection = AsyncIOMotorCollection[Any]
Session = AsyncIOMotorClientSession

TRANSACTION_ATTEMPTS: Final = 8
"""A transaction that loses to another writer is begun anew this often before its batch is split. The waits add up
to about half a second: long enough for a burst of top-ups, short enough that nobody else's pool is late."""

FIRST_WAIT_SECONDS: Final = 0.004
"""The longest first wait after a conflict, about the length of the transaction it lost to; it doubles each time."""


class Database:
    """One database on one MongoDB deployment, reached through motor.

    `timeout_seconds` bounds every operation with all its retries; `server_selection_seconds` bounds the search for
    a primary. Nothing is sent before the first operation.
    """

    def __init__(
        self, *, uri: str, name: str, timeout_seconds: float = 10, server_selection_seconds: float = 5
    ) -> None:
        with translated("connecting"):
            self._client: AsyncIOMotorClient[Any] = AsyncIOMotorClient(
                uri,
                appname="pool-daemon",
                timeoutMS=int(timeout_seconds * 1000),
                serverSelectionTimeoutMS=int(server_selection_seconds * 1000),
                w="majority",
            )
        self.name = name
        self.timeout_seconds = timeout_seconds
        self._replicated: bool | None = None

    @property
    def motor(self) -> AsyncIOMotorDatabase[Any]:
        """Return motor's own database object, for the rooms of the store."""
        return self._client.get_database(self.name, codec_options=LENIENT)

    def collection(self, name: str, codec_options: CodecOptions[Any] = LENIENT) -> Collection:
        """Return a collection that decodes as told."""
        return self._client.get_database(self.name).get_collection(name, codec_options=codec_options)

    async def ping(self) -> None:
        """Ask the primary whether it is there.

        Raises StoreUnavailableError or StoreRefusedError.
        """
        with translated("reaching MongoDB"):
            await self._client.admin.command("ping")

    async def has_transactions(self) -> bool:
        """Tell whether the deployment has transactions and change streams: a standalone server has neither."""
        if self._replicated is None:
            with translated("asking the server what it is"):
                hello = await self._client.admin.command("hello")
            self._replicated = "setName" in hello or hello.get("msg") == "isdbgrid"
        return self._replicated

    async def session(self) -> Session:
        """Start a session; the caller ends it."""
        with translated("starting a session"):
            return await self._client.start_session()

    async def transact(self, body: Callable[[Session], Awaitable[T]]) -> T:
        """Run `body` in a transaction: a snapshot to read from, a majority commit, all of it or nothing.

        Begun anew when another writer was faster, with a short random wait that grows; a commit whose answer was
        lost is sent again, which the server recognises. Raises what `body` raises, StoreConflictError when every
        attempt lost, or StoreUnavailableError; in the last case the transaction may have been committed.
        """
        with translated("committing a batch"):
            async with await self._client.start_session() as session:
                for attempt in range(1, TRANSACTION_ATTEMPTS + 1):
                    try:
                        return await self._attempt(session, body)
                    except PyMongoError as error:
                        if attempt == TRANSACTION_ATTEMPTS or not _lost_a_race(error):
                            raise
                    await asyncio.sleep(random.uniform(0, FIRST_WAIT_SECONDS * 2**attempt))  # noqa: S311 - jitter
        raise AssertionError("the last attempt returns or raises")

    async def _attempt(self, session: Session, body: Callable[[Session], Awaitable[T]]) -> T:
        transaction = session.start_transaction(
            read_concern=ReadConcern("snapshot"), write_concern=WriteConcern("majority")
        )
        async with transaction:
            result = await body(session)
            try:
                await session.commit_transaction()
            except PyMongoError as error:
                if not error.has_error_label("UnknownTransactionCommitResult"):
                    raise
                await session.commit_transaction()
        return result

    def close(self) -> None:
        """Close every connection; operations still waiting fail."""
        self._client.close()


def _lost_a_race(error: PyMongoError) -> bool:
    return error.has_error_label("TransientTransactionError") and getattr(error, "code", None) is not None
