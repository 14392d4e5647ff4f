"""The lease: one document that names the daemon that may act, the term, and the expiry by the database's own clock.

A daemon that wants to act takes the lease, renews it and finally releases it, each in one atomic operation on that
document. No client's clock is ever written or compared: `renewed_at` and `expires_at` are the server's `$$NOW`, read
when it starts the operation and therefore after the client has sent it.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import pymongo
from bson import Binary, Int64
from bson.binary import UUID_SUBTYPE
from pymongo import ReturnDocument

from pool_daemon.capacity import fields
from pool_daemon.errors import StoreConflictError, UnreadableDocumentError
from pool_daemon.store.client import Collection, Database
from pool_daemon.store.codec import RAW, decoded
from pool_daemon.store.error_mapping import translated

LEASE: Final = "pool-daemon-lease"
LEADER: Final = "leader"

ANSWERS_PER_LEASE: Final = 3
"""An answer that takes longer than this part of the lease counts as none: there must be time for another attempt."""

LONGEST_SECONDS: Final = 300
"""The longest lease that a daemon may be configured for; a longer one was written by another program."""

TERMS: Final = 2**53
"""Terms stay below this, so that every program can represent them; one a second lasts longer than the sun."""

SESSIONS_READ: Final = 100
"""More sessions than any holder has; a document that names more was written by another program."""


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """The lease as it was in the database at one moment.

    `document` is opaque: equal for two sightings if no write came in between, None if there is no document. `holder` is
    None if the lease was released. It expires in `remaining_seconds` by the database's clock, `seconds` after it was
    renewed. `problem` says why a document cannot be read; of the other fields only `sessions` is valid then: the ids of
    the sessions in which its holder commits.
    """

    document: Any = None
    holder: str | None = None
    term: int = 0
    seconds: float = 0.0
    remaining_seconds: float = math.inf
    problem: str | None = None
    sessions: tuple[Binary, ...] = ()


class LeaseStore:
    """The collection `pool-daemon-lease`, for one process.

    `identity` is the name of this holder, `seconds` how long the lease lasts from each renewal. Every method raises
    StoreUnavailableError if no answer comes in a third of that time; the operation may then have been done, or may
    still be done. The other errors are StoreRefusedError and, rarely, a bare StoreError.
    """

    def __init__(self, *, database: Database, identity: str, seconds: float) -> None:
        self.identity = identity
        self.seconds = seconds
        self._database = database
        # The client reads from the primary and writes to a majority: no election rolls back an acknowledged operation.
        self._leases: Collection = database.collection(LEASE)
        self._raw: Collection = database.collection(LEASE, RAW)

    async def look(self) -> LeaseRecord:
        """Return the lease as it is now; an unreadable document is returned with its problem."""
        with self._asking("reading the lease"):
            answer = await self._raw.find_one({"_id": LEADER}, {"_id": 0, "document": "$$ROOT", "now": "$$NOW"})
        if answer is None:
            return LeaseRecord()
        raw, document = answer["document"], {}
        try:
            document = decoded(raw)
            return read_lease(document, now=answer["now"], raw=raw)
        except UnreadableDocumentError as error:
            return LeaseRecord(document=raw, problem=str(error), sessions=_sessions(document))

    async def take(self, seen: LeaseRecord, *, term: int) -> bool:
        """Become the holder in that term, if the lease is still exactly what was seen; return whether that succeeded.

        Of several daemons that saw the same lease, one takes it. No renewal in between goes unnoticed, for each writes
        another instant.
        """
        query = {"_id": LEADER, **_unchanged(seen)}
        lease = {
            "_id": LEADER,
            "holder": {"$literal": self.identity},
            "term": {"$literal": Int64(term)},
            "acquired_at": "$$NOW",
            **await self._renewed(),
        }
        try:
            return await self._write("taking the lease", query, {"$replaceWith": lease}, upsert=seen.document is None)
        except StoreConflictError:  # another daemon inserted the document first
            return False

    async def renew(self, *, term: int) -> bool:
        """Extend the lease to its whole length again; False if it is no longer held by this holder in that term.

        An expired lease that no other daemon has taken is renewed like any other.
        """
        return await self._write("renewing the lease", self._held(term), {"$set": await self._renewed()})

    async def end_sessions(self, seen: LeaseRecord) -> None:
        """End the sessions of the holder that was seen: its transactions are aborted and their locks released.

        Otherwise a holder that froze would lock its pools until the server aborts its transactions, a minute later.
        When that holder resumes, it cannot commit anything that it had begun.
        """
        if seen.sessions:
            with self._asking("ending the former holder's transactions"):
                await self._database.end_sessions(seen.sessions)

    async def release(self, *, term: int) -> bool:
        """Release the lease, if it is still held by this holder in that term; return whether that was so.

        The holder is removed from the document, so that a renewal still in flight finds nothing to renew.
        """
        released = {"holder": None, "renewed_at": "$$NOW", "expires_at": "$$NOW"}
        return await self._write("releasing the lease", self._held(term), {"$set": released})

    async def _write(
        self, doing: str, query: Mapping[str, Any], stage: Mapping[str, Any], *, upsert: bool = False
    ) -> bool:
        with self._asking(doing):
            document = await self._leases.find_one_and_update(
                query, [stage], upsert=upsert, return_document=ReturnDocument.AFTER
            )
        return document is not None

    @contextmanager
    def _asking(self, doing: str) -> Iterator[None]:
        with translated(doing), pymongo.timeout(self.seconds / ANSWERS_PER_LEASE):
            yield

    def _held(self, term: int) -> dict[str, Any]:
        return {"_id": LEADER, "holder": self.identity, "term": Int64(term)}

    async def _renewed(self) -> dict[str, Any]:
        milliseconds = round(self.seconds * 1000)
        return {
            "seconds": {"$literal": float(self.seconds)},
            "renewed_at": "$$NOW",
            "expires_at": {"$add": ["$$NOW", milliseconds]},
            "sessions": {"$literal": await self._database.session_ids()},
        }


def read_lease(document: Mapping[str, Any], *, now: datetime, raw: Any) -> LeaseRecord:
    """Read a lease document as of the database's instant `now`; `raw` is what later sightings are compared with.

    Raises UnreadableDocumentError, naming the field.
    """
    expires_at = document.get("expires_at")
    if not isinstance(expires_at, datetime):
        raise UnreadableDocumentError("expires_at is no date")
    seconds = fields.number(document, "seconds", UnreadableDocumentError)
    if not 0 < seconds <= LONGEST_SECONDS:
        raise UnreadableDocumentError(f"seconds is {seconds}, not between 0 and {LONGEST_SECONDS}")
    remaining_seconds = (expires_at - now).total_seconds()
    if remaining_seconds > 2 * LONGEST_SECONDS:
        raise UnreadableDocumentError(f"expires_at is {remaining_seconds:.0f} s away, longer than any lease lasts")
    term = fields.whole(document, "term", UnreadableDocumentError)
    if not 0 < term < TERMS:
        raise UnreadableDocumentError(f"term is {term}, out of bounds")
    released = "holder" in document and document["holder"] is None
    return LeaseRecord(
        document=raw,
        holder=None if released else fields.text(document, "holder", UnreadableDocumentError),
        term=term,
        seconds=seconds,
        remaining_seconds=remaining_seconds,
        sessions=_sessions(document),
    )


def _sessions(document: Mapping[str, Any]) -> tuple[Binary, ...]:
    """Read the valid session ids; other values do not make the lease unreadable."""
    named = document.get("sessions")
    ids = named[:SESSIONS_READ] if isinstance(named, list) else ()
    return tuple(each for each in ids if isinstance(each, Binary) and each.subtype == UUID_SUBTYPE)


def _unchanged(seen: LeaseRecord) -> dict[str, Any]:
    """Return the query for exactly the document that was seen; if there was none, one that matches no document."""
    if seen.document is None:
        return {"term": {"$in": []}}
    # Servers before 6.0 fail to optimize a plain $eq of the whole document.
    return {"$expr": {"$eq": [{"$cmp": ["$$ROOT", {"$literal": seen.document}]}, 0]}}
