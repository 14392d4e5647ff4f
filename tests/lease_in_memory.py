"""The lease without a database, for virtual time: the same promises as the real store, on a wire that may be bad."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeVar

from pool_daemon.errors import PoolDaemonError, StoreRefusedError, StoreUnavailableError, UnreadableDocumentError
from pool_daemon.store.lease import ANSWERS_PER_LEASE, LeaseRecord, read_lease

T = TypeVar("T")
Document = dict[str, Any]

NEVER_SECONDS = 1e9


class Trip(NamedTuple):
    """How long a request is on its way to the server, and its answer on the way back."""

    there_seconds: float = 0.0
    back_seconds: float = 0.0


class LeaseServer:
    """The one document and the server's clock, which follows the loop's, only faster or slower."""

    def __init__(self, *, clock_rate: float = 1.0) -> None:
        self.document: Document | None = None
        self.out_of_order: PoolDaemonError | None = None
        self.read_only = False
        self.clock_ahead = timedelta()
        self._clock_rate = clock_rate

    def edit(self, **fields: Any) -> None:
        """Change the document by hand."""
        self.document = (self.document or {}) | fields

    def now(self) -> datetime:
        """Read the clock, to the millisecond as BSON has it."""
        milliseconds = int(asyncio.get_running_loop().time() * self._clock_rate * 1000)
        return datetime(2030, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds) + self.clock_ahead


class LeaseInMemory:
    """One process's way to the lease. `next_trip` says how long each request travels."""

    def __init__(
        self, *, server: LeaseServer, identity: str, seconds: float, next_trip: Callable[[], Trip] = Trip
    ) -> None:
        self.identity = identity
        self.seconds = seconds
        self._server = server
        self._next_trip = next_trip

    async def look(self) -> LeaseRecord:
        return await self._ask(self._look)

    async def take(self, seen: LeaseRecord, *, term: int) -> bool:
        return await self._ask(lambda: self._write(lambda: self._take(seen, term)))

    async def renew(self, *, term: int) -> bool:
        return await self._ask(lambda: self._write(lambda: self._change(term, self._renewed())))

    async def end_sessions(self, seen: LeaseRecord) -> None:
        """End nothing: nobody commits anything here."""

    async def release(self, *, term: int) -> bool:
        return await self._ask(lambda: self._write(lambda: self._change(term, self._released())))

    async def _ask(self, operation: Callable[[], T]) -> T:
        """Have the server do something; an answer too late is none, and does not undo what was done."""
        if self._server.out_of_order is not None:
            raise self._server.out_of_order
        request = asyncio.create_task(self._travel(operation, self._next_trip()))
        answered, _ = await asyncio.wait({request}, timeout=self.seconds / ANSWERS_PER_LEASE)
        if not answered:
            raise StoreUnavailableError("no answer in time")
        return request.result()

    @staticmethod
    async def _travel(operation: Callable[[], T], trip: Trip) -> T:
        await asyncio.sleep(trip.there_seconds)
        result = operation()
        await asyncio.sleep(trip.back_seconds)
        return result

    def _look(self) -> LeaseRecord:
        document = self._server.document
        if document is None:
            return LeaseRecord()
        try:
            return read_lease(document, now=self._server.now(), raw=document)
        except UnreadableDocumentError as error:
            return LeaseRecord(document=document, problem=str(error))

    def _write(self, operation: Callable[[], T]) -> T:
        if self._server.read_only:
            raise StoreRefusedError("not authorized")
        return operation()

    def _take(self, seen: LeaseRecord, term: int) -> bool:
        if self._server.document != seen.document:
            return False
        taken = {"_id": "leader", "holder": self.identity, "term": term, "acquired_at": self._server.now()}
        self._server.document = taken | self._renewed()
        return True

    def _change(self, term: int, changes: Document) -> bool:
        document = self._server.document
        if document is None or (document.get("holder"), document.get("term")) != (self.identity, term):
            return False
        self._server.document = document | changes
        return True

    def _renewed(self) -> Document:
        now = self._server.now()
        length = timedelta(milliseconds=round(self.seconds * 1000))
        return {"seconds": float(self.seconds), "renewed_at": now, "expires_at": now + length}

    def _released(self) -> Document:
        now = self._server.now()
        return {"holder": None, "renewed_at": now, "expires_at": now}
