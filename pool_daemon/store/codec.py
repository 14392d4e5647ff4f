"""Pools and reservations as BSON: read leniently, written with exact types and field order."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

import bson
from bson import Decimal128, Int64
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.raw_bson import RawBSONDocument

from pool_daemon.capacity import fields
from pool_daemon.capacity.arithmetic import EARLIEST, LATEST
from pool_daemon.capacity.pool import FIELDS, Pool
from pool_daemon.capacity.reservation import DATA_ZEROES, ZEROES, Reservation, ReservationData
from pool_daemon.capacity.workload import NextAction
from pool_daemon.errors import NotFiniteError, UnreadableDocumentError
from pool_daemon.store.error_mapping import one_line

LENIENT: CodecOptions[dict[str, Any]] = CodecOptions(
    document_class=dict,
    tz_aware=True,
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
    unicode_decode_error_handler="replace",
)
"""Decodes everything that MongoDB can hold: dates beyond a datetime's range, and text that is not UTF-8."""

RAW: CodecOptions[RawBSONDocument] = LENIENT.with_options(document_class=RawBSONDocument)
"""Leaves documents as bytes: to be copied exactly, or decoded one by one, so that one bad document cannot spoil a
batch."""

POOL_FIELDS: Final = tuple(name for name, _, _ in FIELDS)

ENUMERATIONS: Final = ("workload_type", "type", "disk_type")
"""A workload's fields that are int32, whatever their value."""


def decoded(raw: RawBSONDocument) -> dict[str, Any]:
    """Decode a raw document.

    Raises UnreadableDocumentError if its bytes are no BSON that Python can hold.
    """
    try:
        return bson.decode(raw.raw, LENIENT)
    except (bson.errors.BSONError, ValueError, OverflowError) as error:
        raise UnreadableDocumentError(f"not decodable: {one_line(error)}") from error


def document_id(raw: RawBSONDocument) -> Any:
    """Return a raw document's id; "unknown" if it cannot be read."""
    try:
        return decoded(raw).get("_id")
    except UnreadableDocumentError:
        return "unknown"


def integer(number: Any) -> int | None:
    """Return the int64 that a number of any of BSON's types is equal to; None if there is none.

    To the server equal numbers are one id, so a document that is found by an id may hold it in any type. In Python a
    decimal equals no number and cannot be a key.
    """
    if isinstance(number, Decimal128):
        decimal = number.to_decimal()
        fits = decimal.is_finite() and EARLIEST <= decimal <= LATEST and decimal == int(decimal)
        number = int(decimal) if fits else None
    with suppress(UnreadableDocumentError):
        return fields.whole({"number": number}, "number", UnreadableDocumentError)
    return None


def pool_from_document(document: Mapping[str, Any]) -> Pool:
    """Read a pool: whole doubles and 32-bit numbers pass for int64, integers for doubles, null for an array.

    A missing field is its zero value; only the id is required. Raises UnreadableDocumentError, naming the field, for
    anything else; unknown fields are ignored.
    """
    try:
        return Pool.read(document, id_field="_id", error=UnreadableDocumentError)
    except NotFiniteError as error:
        raise UnreadableDocumentError(str(error)) from error


def pool_to_document(pool: Pool) -> dict[str, Any]:
    """Write a pool with the contract's field order: int64, double, and arrays or null."""
    return {"_id": Int64(pool.pool_id)} | exact_fields(pool, POOL_FIELDS)


def exact_fields(pool: Pool, names: Iterable[str]) -> dict[str, Any]:
    """Return some fields of a pool in BSON's exact types."""
    return {name: _exact(getattr(pool, name)) for name in names}


def unchanged(as_read: Pool) -> dict[str, Any]:
    """Return the query that matches a pool's document only while every field is as it was read, or missing as then."""
    return pool_to_document(as_read) | {name: {"$exists": False} for name in as_read.missing}


def changed_fields(as_read: Pool, after: Pool, names: Iterable[str] = POOL_FIELDS) -> dict[str, Any]:
    """Return those fields, in BSON's exact types, whose value differs from what was read.

    A field that the document lacks is left out: no write adds one.
    """
    return {
        name: _exact(getattr(after, name))
        for name in names
        if name not in as_read.missing and getattr(after, name) != getattr(as_read, name)
    }


def protecting_steps(as_read: Pool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return two updates of a due pool that leave it unchanged, and yet conflict with every other writer of it.

    A no-op update would not conflict. The updates lead towards 0 and back: away from it a number might overflow its
    type. A pool without `last_updated` has an `empty_at`, or it would not have been found due.
    """
    name = "empty_at" if "last_updated" in as_read.missing else "last_updated"
    step = -1 if getattr(as_read, name) > 0 else 1
    return {"$inc": {name: step}}, {"$inc": {name: -step}}


def reservation_from_document(document: Mapping[str, Any]) -> Reservation:
    """Read a reservation, as leniently as a pool: a missing or null field is its zero value, except for the id.

    Raises UnreadableDocumentError, naming the field.
    """
    filled = fields.filled(document, ZEROES)
    data = filled["data_reservation"]
    if not isinstance(data, Mapping):
        raise UnreadableDocumentError("data_reservation is not a document")
    data = fields.filled(data, DATA_ZEROES)
    return Reservation(
        reservation_id=_whole(document, "_id"),
        json=_text(filled, "json"),
        data_reservation=ReservationData(
            pool_id=_whole(data, "pool_id"),
            cus=_whole(data, "cus"),
            sus=_whole(data, "sus"),
            ipv4us=_whole(data, "ipv4us"),
            node_ids=fields.texts(data, "node_ids", UnreadableDocumentError),
            currencies=fields.texts(data, "currencies", UnreadableDocumentError),
        ),
        customer_tid=_whole(filled, "customer_tid"),
        customer_signature=_text(filled, "customer_signature"),
        sponsor_tid=_whole(filled, "sponsor_tid"),
        sponsor_signature=_text(filled, "sponsor_signature"),
    )


def reservation_to_document(reservation: Reservation) -> dict[str, Any]:
    """Write a reservation with the contract's field order and types."""
    data = reservation.data_reservation
    return {
        "_id": Int64(reservation.reservation_id),
        "json": reservation.json,
        "data_reservation": {
            "pool_id": Int64(data.pool_id),
            "cus": Int64(data.cus),
            "sus": Int64(data.sus),
            "ipv4us": Int64(data.ipv4us),
            "node_ids": data.node_ids,
            "currencies": data.currencies,
        },
        "customer_tid": Int64(reservation.customer_tid),
        "customer_signature": reservation.customer_signature,
        "sponsor_tid": Int64(reservation.sponsor_tid),
        "sponsor_signature": reservation.sponsor_signature,
    }


def workload_to_document(workload_id: int, pool: Pool, node_id: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Write a deployed workload of a pool's owner; `fields` are its type, a plain int, and those of that type."""
    return {
        "_id": Int64(workload_id),
        "workload_id": Int64(workload_id),
        "node_id": node_id,
        "pool_id": Int64(pool.pool_id),
        "customer_tid": Int64(pool.customer_tid),
        "next_action": int(NextAction.DEPLOY),
        **_exact_fields(fields),
    }


def _exact_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a workload's fields in the explorer's types: int64 but for enumerations."""
    return {
        name: _exact_fields(value) if isinstance(value, Mapping) else value if name in ENUMERATIONS else _exact(value)
        for name, value in fields.items()
    }


def _whole(document: Mapping[str, Any], name: str) -> int:
    return fields.whole(document, name, UnreadableDocumentError)


def _text(document: Mapping[str, Any], name: str) -> str:
    return fields.text(document, name, UnreadableDocumentError)


def _exact(value: Any) -> Any:
    if isinstance(value, int):
        return Int64(value)
    if isinstance(value, list):
        return [_exact(item) for item in value]
    return value
