"""Reservations for people: one whole, or the numbers of many, with what became of each.

A customer decides how long the text and the arrays of a reservation are. So of many only numbers are read, and one is
read whole only up to a bound.
"""

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from bson import Int64

from pool_daemon.capacity.escrow import Escrow, ReservationState, state_of
from pool_daemon.capacity.fields import whole_or_none
from pool_daemon.capacity.pool import Pool
from pool_daemon.capacity.reservation import Reservation
from pool_daemon.capacity.reservation_checks import Known, User
from pool_daemon.errors import PoolNotFoundError, ReservationNotFoundError, UnreadableDocumentError
from pool_daemon.store.client import PAGE, Database, pages
from pool_daemon.store.codec import RAW, decoded, reservation_from_document
from pool_daemon.store.error_mapping import translated
from pool_daemon.store.excerpts import number_only
from pool_daemon.store.pools import CAPACITY_RESERVATIONS, PoolStore
from pool_daemon.store.sessions import Session
from pool_daemon.store.workloads import NODE_ID_CHARACTERS

USERS: Final = "user"
CAPACITY_ESCROW: Final = "capacity-escrow"
APPLIED: Final = "pool-daemon-applied"
SUBMITTED: Final = "pool-daemon-submitted"

OPERATORS_COLLECTIONS: Final = (APPLIED, SUBMITTED)
"""What operators' commands keep; the daemon neither reads nor writes it, and its role may not."""

LONGEST_BYTES: Final = 4 * 2**20
"""The longest reservation that is read whole; one that names 10,000 nodes, in its text and in its data, has 1 MB."""

WINDOW: Final = 2000
"""Reservations that one query with a condition looks at: 100,000 take half a second, and none of the queries long."""

KEY_CHARACTERS: Final = 200
"""What is read of a user's public key; a valid one has 64."""

NODES: Final = 10
"""Nodes of a reservation that are shown to a person."""

_NODE_IDS: Final[Mapping[str, Any]] = {
    "$cond": [{"$isArray": "$data_reservation.node_ids"}, "$data_reservation.node_ids", []]
}

NUMBERS: Final[Mapping[str, Any]] = {
    **{name: number_only(name) for name in ("_id", "customer_tid", "sponsor_tid")},
    **{name: number_only(f"data_reservation.{name}") for name in ("pool_id", "cus", "sus", "ipv4us")},
    "nodes": {"$size": _NODE_IDS},
}
"""The fields of a reservation that are read of each; of its nodes the number."""

FIRST_NODES: Final[Mapping[str, Any]] = {
    "$map": {
        "input": {"$slice": [_NODE_IDS, NODES]},
        "in": {
            "$cond": [{"$eq": [{"$type": "$$this"}, "string"]}, {"$substrCP": ["$$this", 0, NODE_ID_CHARACTERS]}, "?"]
        },
    }
}

BY_ID: Final[Mapping[str, Any]] = {"sort": [("_id", -1)], "hint": [("_id", 1)]}

ESCROW_FIELDS: Final = ("paid", "released", "canceled", "cancellation_pending", "expiration")

APPLIED_FIELDS: Final = ("at", "by", "reason")


@dataclass(frozen=True, slots=True)
class Applied:
    """The record that a reservation was credited: when (unix seconds), by whom and why."""

    at: float | None
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class ReservationRow:
    """The numbers of a reservation, None where they are none, and what became of it.

    `reservation_id` is the name of the id's type where that is no number. `amounts` are unit seconds (cu, su, ipv4u).
    """

    reservation_id: Any
    customer_tid: int | None
    sponsor_tid: int | None
    pool_id: int | None
    amounts: tuple[int, int, int]
    nodes: int
    node_ids: tuple[str, ...]
    applied: Applied | None
    escrow: Escrow | None

    @property
    def pool(self) -> Any:
        """The pool that it is for: a new one has the reservation's id."""
        return self.pool_id or self.reservation_id

    def state(self, now: float) -> ReservationState:
        """Return what became of it, as of the unix second `now`."""
        return state_of(self.escrow, applied=self.applied is not None, now=now)


class Reservations:
    """Reads `capacity-reservations`, with `user`, `capacity-escrow` and the records of what was applied.

    Every method raises StoreUnavailableError when MongoDB is away, and StoreRefusedError when it refuses.
    """

    def __init__(self, *, database: Database) -> None:
        self._reservations = database.collection(CAPACITY_RESERVATIONS)
        self._raw = database.collection(CAPACITY_RESERVATIONS, RAW)
        self._users = database.collection(USERS)
        self._escrows = database.collection(CAPACITY_ESCROW)
        self._applied = database.collection(APPLIED)
        self._pools = PoolStore(database=database)

    async def get(self, reservation_id: int) -> Reservation:
        """Return one reservation, whole.

        Raises ReservationNotFoundError, or UnreadableDocumentError if a field is wrong or the document too long.
        """
        size = {"$bsonSize": "$$ROOT"}
        stages: list[dict[str, Any]] = [
            {"$match": {"_id": Int64(reservation_id)}},
            {"$replaceWith": {"$cond": [{"$lte": [size, LONGEST_BYTES]}, "$$ROOT", {"size": size}]}},
        ]
        with translated(f"reading reservation {reservation_id}"):
            found = await self._raw.aggregate(stages).to_list(1)
        if not found:
            raise ReservationNotFoundError(f"reservation {reservation_id}: the specified reservation was not found")
        document = decoded(found[0])
        if "_id" not in document:
            raise UnreadableDocumentError(f"reservation {reservation_id} has {document['size']:,} bytes: too long")
        return reservation_from_document(document)

    async def known_for(self, reservation: Reservation) -> Known:
        """Return what the reservation is checked against: its users, and the pool that it extends.

        Raises UnreadableDocumentError if that pool cannot be read.
        """
        return Known(
            customer=await self._user(reservation.customer_tid),
            sponsor=await self._user(reservation.sponsor_tid),
            pool=await self._pool(reservation.data_reservation.pool_id),
        )

    async def pages(
        self, *, owner: int | None = None, pool: int | None = None
    ) -> AsyncGenerator[list[ReservationRow], None]:
        """Stream reservations, the newest first, in pages; close the iterator when leaving it early.

        Only those of one customer, or for one pool: the one that created it among them. Neither has an index: the
        collection is the explorer's. So those who have ordered little are looked for in windows, none of which takes
        long, however many and how large the reservations of others are.
        """
        query: dict[str, Any] = {} if owner is None else {"customer_tid": Int64(owner)}
        if pool is not None:
            created = {"_id": Int64(pool), "data_reservation.pool_id": {"$in": [0, None]}}
            query["$or"] = [{"data_reservation.pool_id": Int64(pool)}, created]
        async with aclosing(self._windows() if query else _everything()) as windows:
            async for window in windows:
                cursor = self._reservations.find(query, NUMBERS, **BY_ID, **window, batch_size=PAGE)
                async with aclosing(pages(cursor, doing="reading reservations")) as found:
                    async for documents in found:
                        yield await self._rows(documents)

    async def row(self, reservation_id: int) -> ReservationRow:
        """Return the numbers of one reservation and its first nodes.

        Raises ReservationNotFoundError.
        """
        with translated(f"reading reservation {reservation_id}"):
            found = await self._reservations.find_one(
                {"_id": Int64(reservation_id)}, {**NUMBERS, "node_ids": FIRST_NODES}
            )
        if found is None:
            raise ReservationNotFoundError(f"reservation {reservation_id}: the specified reservation was not found")
        return (await self._rows([found]))[0]

    async def applied(self, reservation_id: int) -> Applied | None:
        """Return the record that a reservation was credited, None if there is none."""
        return (await self._applied_among([Int64(reservation_id)])).get(reservation_id)

    async def escrow(self, reservation_id: int, session: Session | None = None) -> Escrow | None:
        """Return the escrow of a reservation, None if there is none."""
        return (await self._escrows_among([Int64(reservation_id)], session)).get(reservation_id)

    async def _windows(self) -> AsyncGenerator[dict[str, Any], None]:
        """Yield, as options of a query, ranges of ids that hold `WINDOW` reservations each, the newest first.

        They are ranges of the index: unlike a condition, those compare ids of any type.
        """
        below: dict[str, Any] = {}
        while True:
            with translated("reading reservations"):
                cursor = self._reservations.find({}, {"_id": 1}, **BY_ID, **below, skip=WINDOW - 1, limit=1)
                found = await cursor.to_list(1)
            if not found:
                yield below
                return
            border = {"_id": found[0]["_id"]}
            yield below | {"min": border}
            below = {"max": border}

    async def _rows(self, documents: list[dict[str, Any]]) -> list[ReservationRow]:
        ids = [document["_id"] for document in documents if isinstance(document["_id"], int | float)]
        applied = await self._applied_among(ids)
        escrows = await self._escrows_among(ids)
        return [_row(each, applied.get(each["_id"]), escrows.get(each["_id"])) for each in documents]

    async def _applied_among(self, ids: Iterable[Any]) -> dict[Any, Applied]:
        with translated("reading what was applied"):
            found = await self._applied.find({"_id": {"$in": list(ids)}}, dict.fromkeys(APPLIED_FIELDS, 1)).to_list(
                None
            )
        return {each["_id"]: _applied(each) for each in found}

    async def _escrows_among(self, ids: Iterable[Any], session: Session | None = None) -> dict[Any, Escrow]:
        query = {"_id": {"$in": list(ids)}}
        with translated("reading escrows"):
            found = await self._escrows.find(query, dict.fromkeys(ESCROW_FIELDS, 1), session=session).to_list(None)
        return {each["_id"]: _escrow(each) for each in found}

    async def _user(self, tid: int) -> User | None:
        if tid == 0:
            return None
        is_text = {"$eq": [{"$type": "$pubkey"}, "string"]}
        fields = {
            "key": {"$cond": [is_text, {"$substrCP": ["$pubkey", 0, KEY_CHARACTERS]}, ""]},
            "trusted": {"$eq": ["$trusted_sales_channel", True]},
        }
        with translated(f"reading user {tid}"):
            found = await self._users.find_one({"_id": Int64(tid)}, fields)
        return None if found is None else User(found["key"], found["trusted"])

    async def _pool(self, pool_id: int) -> Pool | None:
        if pool_id == 0:
            return None
        try:
            return await self._pools.get_pool(pool_id)
        except PoolNotFoundError:
            return None


async def _everything() -> AsyncGenerator[dict[str, Any], None]:
    yield {}


def _row(document: Mapping[str, Any], applied: Applied | None, escrow: Escrow | None) -> ReservationRow:
    cus, sus, ipv4us = (whole_or_none(document, name) or 0 for name in ("cus", "sus", "ipv4us"))
    return ReservationRow(
        reservation_id=document["_id"],
        customer_tid=whole_or_none(document, "customer_tid"),
        sponsor_tid=whole_or_none(document, "sponsor_tid"),
        pool_id=whole_or_none(document, "pool_id"),
        amounts=(cus, sus, ipv4us),
        nodes=document["nodes"],
        node_ids=tuple(map(str, document.get("node_ids", ()))),
        applied=applied,
        escrow=escrow,
    )


def _applied(document: Mapping[str, Any]) -> Applied:
    at = document.get("at")
    return Applied(
        at=at.timestamp() if isinstance(at, datetime) else None,
        by=str(document.get("by", "")),
        reason=str(document.get("reason", "")),
    )


def _escrow(document: Mapping[str, Any]) -> Escrow:
    paid, released, canceled, pending = (bool(document.get(name)) for name in ESCROW_FIELDS[:4])
    return Escrow(paid, released, canceled, pending, _instant(document.get("expiration")))


def _instant(value: Any) -> float | None:
    """Return an instant in unix seconds: the explorer writes a date, and elsewhere a number."""
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
