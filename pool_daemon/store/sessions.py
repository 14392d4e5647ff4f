"""The sessions in which this process's transactions run: few and known by id, so that a successor can end them."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, cast

from bson import Binary
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorClientSession

SESSIONS: Final = 36
"""More than `expiry.concurrency` may be, plus a few for restored orders; a transaction waits while none is free."""


class Sessions:
    """A fixed number of sessions, lent to one transaction each; all ids are known before the first is used."""

    def __init__(self, client: AsyncIOMotorClient[Any]) -> None:
        self._client = client
        self._turns = asyncio.Semaphore(SESSIONS)
        self._starting = asyncio.Lock()
        self._all: list[AsyncIOMotorClientSession] = []
        self._free: list[AsyncIOMotorClientSession] = []

    async def ids(self) -> list[Binary]:
        """Return the ids of all sessions; nothing is sent."""
        await self._start()
        return [cast("Mapping[str, Binary]", session.session_id)["id"] for session in self._all]

    @asynccontextmanager
    async def lend(self) -> AsyncIterator[AsyncIOMotorClientSession]:
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

    def forget(self) -> None:
        """Discard all sessions: they belong to former servers, and would go on gossiping their cluster time."""
        self._all, self._free = [], []

    async def _start(self) -> None:
        async with self._starting:
            while len(self._all) < SESSIONS:
                # A transaction reads from a snapshot of its own: causal consistency with other clients is of no use.
                session = await self._client.start_session(causal_consistency=False)
                self._all.append(session)
                self._free.append(session)
