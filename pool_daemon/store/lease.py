"""The lease: one document that says who may act, in which term, and until when by the database's own clock.

Whoever wants to act takes it, renews it and at last releases it, each in one atomic operation on that document. No
client's clock is ever written or compared: `renewed_at` and `expires_at` are the server's `$$NOW`, read when it starts
on the operation and therefore after the client has sent it.
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
from pool_daemon.store.documents import RAW, decoded
from pool_daemon.store.failures import translated

LEASE: Final = "pool-daemon-lease"
LEADER: Final = "leader"

ANSWERS_PER_LEASE: Final = 3
"""An answer that takes longer than this part of the lease is no answer: there must be time to ask again."""

LONGEST_SECONDS: Final = 300
"""No daemon may be told to hold the lease for longer; a document that says so is somebody else's doing."""

TERMS: Final = 2**53
"""Terms stay below this, so that every program can count them; one a second lasts longer than the sun."""

SESSIONS_READ: Final = 100
"""More sessions than any holder has; a document that names more is somebody else's doing."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """The lease as the database had it at one moment.

    `document` is opaque: equal for two sightings if nobody wrote in between, None if there is no document. `holder` is
    None if it was released. It expires in `remaining_seconds` by the database's clock, `seconds` after it was renewed.
    `problem` says why a document cannot be read; the other fields then say nothing, but for `sessions`: the ids of
    those in which its holder commits.
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

    `identity` is who takes the lease, `seconds` how long it lasts from each renewal. Every method raises
    StoreUnavailableError if no answer comes in a third of that time; what was asked may then have been done, or may be
    done yet. The other errors are StoreRefusedError and, rarely, a bare StoreError.
    """

    def __init__(self, *, database: Database, identity: str, seconds: float) -> None:
        self.identity = identity
        self.seconds = seconds
        self._database = database
        # The client reads from the primary and writes to a majority: no election undoes what was answered.
        self._leases: Collection = database.collection(LEASE)
        self._raw: Collection = database.collection(LEASE, RAW)

    async def look(self) -> Sighting:
        """Return the lease as it is now; a document that makes no sense comes back with its problem."""
        with self._asking("reading the lease"):
            answer = await self._raw.find_one({"_id": LEADER}, {"_id": 0, "document": "$$ROOT", "now": "$$NOW"})
        if answer is None:
            return Sighting()
        raw, document = answer["document"], {}
        try:
            document = decoded(raw)
            return read_lease(document, now=answer["now"], raw=raw)
        except UnreadableDocumentError as error:
            return Sighting(document=raw, problem=str(error), sessions=_sessions(document))

    async def take(self, seen: Sighting, *, term: int) -> bool:
        """Become the holder in that term, if the lease is still exactly what was seen; tell whether that was so.

        Of any number that saw the same, one takes it. No renewal since goes unnoticed, for each writes another instant.
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
        except StoreConflictError:  # another was faster to insert the document
            return False

    async def renew(self, *, term: int) -> bool:
        """Hold the lease for its whole length again; False if it is no longer held by this holder in that term.

        An expired lease that nobody else has taken is renewed like any other.
        """
        return await self._write("renewing the lease", self._held(term), {"$set": await self._renewed()})

    async def end_sessions(self, seen: Sighting) -> None:
        """End what the holder that was seen may have under way: its transactions are aborted and lock nothing more.

        A holder that froze would otherwise keep its pools from everybody until the server gives its transactions up,
        a minute later; and once it goes on it can commit nothing of what it had begun.
        """
        if seen.sessions:
            with self._asking("ending the former holder's transactions"):
                await self._database.end_sessions(seen.sessions)

    async def release(self, *, term: int) -> bool:
        """Let the lease go, if it is still held by this holder in that term; tell whether that was so.

        The holder is taken out of the document, so that a renewal still under way finds nothing to renew.
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


def read_lease(document: Mapping[str, Any], *, now: datetime, raw: Any) -> Sighting:
    """Read a lease document as it was at the database's instant `now`; `raw` is what later sightings compare.

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
    return Sighting(
        document=raw,
        holder=None if released else fields.text(document, "holder", UnreadableDocumentError),
        term=term,
        seconds=seconds,
        remaining_seconds=remaining_seconds,
        sessions=_sessions(document),
    )


def _sessions(document: Mapping[str, Any]) -> tuple[Binary, ...]:
    """Read the ids of sessions as far as they are any: what else stands there makes no lease unreadable."""
    named = document.get("sessions")
    ids = named[:SESSIONS_READ] if isinstance(named, list) else ()
    return tuple(each for each in ids if isinstance(each, Binary) and each.subtype == UUID_SUBTYPE)


def _unchanged(seen: Sighting) -> dict[str, Any]:
    """Return the query for the very document that was seen; if there was none, one that no document matches."""
    if seen.document is None:
        return {"term": {"$in": []}}
    # Servers before 6.0 fail to optimize a plain $eq of the whole document.
    return {"$expr": {"$eq": [{"$cmp": ["$$ROOT", {"$literal": seen.document}]}, 0]}}
