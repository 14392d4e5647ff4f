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
from bson import Int64
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

TERMS: Final = 2**62
"""Terms stay below this, so that the next one always fits an int64; one a second lasts longer than the sun."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """The lease as the database had it at one moment.

    `document` is opaque: equal for two sightings if nobody wrote in between, None if there is no document. `holder` is
    None if it was released. It expires in `remaining_seconds` by the database's clock, `seconds` after it was renewed.
    `problem` says why a document cannot be read; the other fields then say nothing.
    """

    document: Any = None
    holder: str | None = None
    term: int = 0
    seconds: float = 0.0
    remaining_seconds: float = math.inf
    problem: str | None = None


class LeaseStore:
    """The collection `pool-daemon-lease`, for one process.

    `identity` is who takes the lease, `seconds` how long it lasts from each renewal. Every method raises
    StoreUnavailableError if no answer comes in a third of that time; what was asked may then have been done, or may be
    done yet. The other errors are StoreRefusedError and, rarely, a bare StoreError.
    """

    def __init__(self, *, database: Database, identity: str, seconds: float) -> None:
        self.identity = identity
        self.seconds = seconds
        # The client reads from the primary and writes to a majority: no election undoes what was answered.
        self._leases: Collection = database.collection(LEASE)
        self._raw: Collection = database.collection(LEASE, RAW)

    async def look(self) -> Sighting:
        """Return the lease as it is now; a document that makes no sense comes back with its problem."""
        with self._asking("reading the lease"):
            answer = await self._raw.find_one({"_id": LEADER}, {"_id": 0, "document": "$$ROOT", "now": "$$NOW"})
        if answer is None:
            return Sighting()
        raw = answer["document"]
        try:
            return read_lease(decoded(raw), now=answer["now"], raw=raw)
        except UnreadableDocumentError as error:
            return Sighting(document=raw, problem=str(error))

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
            **self._renewed(),
        }
        try:
            return await self._write("taking the lease", query, {"$replaceWith": lease}, upsert=seen.document is None)
        except StoreConflictError:  # another was faster to insert the document
            return False

    async def renew(self, *, term: int) -> bool:
        """Hold the lease for its whole length again; False if it is no longer held by this holder in that term.

        An expired lease that nobody else has taken is renewed like any other.
        """
        return await self._write("renewing the lease", self._held(term), {"$set": self._renewed()})

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

    def _renewed(self) -> dict[str, Any]:
        milliseconds = round(self.seconds * 1000)
        return {
            "seconds": {"$literal": float(self.seconds)},
            "renewed_at": "$$NOW",
            "expires_at": {"$add": ["$$NOW", milliseconds]},
        }


def read_lease(document: Mapping[str, Any], *, now: datetime, raw: Any) -> Sighting:
    """Read a lease document as it was at the database's instant `now`; `raw` is what later sightings compare.

    Raises UnreadableDocumentError, naming the field.
    """
    expires_at = document.get("expires_at")
    if not isinstance(expires_at, datetime):
        raise UnreadableDocumentError("expires_at is no date")
    seconds = fields.number(document, "seconds", UnreadableDocumentError)
    if not 0 < seconds < math.inf:
        raise UnreadableDocumentError(f"seconds is {seconds}, not a length of time")
    term = fields.whole(document, "term", UnreadableDocumentError)
    if not 0 < term < TERMS:
        raise UnreadableDocumentError(f"term is {term}, out of bounds")
    released = "holder" in document and document["holder"] is None
    return Sighting(
        document=raw,
        holder=None if released else fields.text(document, "holder", UnreadableDocumentError),
        term=term,
        seconds=seconds,
        remaining_seconds=(expires_at - now).total_seconds(),
    )


def _unchanged(seen: Sighting) -> dict[str, Any]:
    """Return the query for the very document that was seen; if there was none, one that no document matches."""
    if seen.document is None:
        return {"term": {"$in": []}}
    return {"$expr": {"$eq": ["$$ROOT", {"$literal": seen.document}]}}
