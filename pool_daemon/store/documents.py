"""Pools and reservations as BSON: read leniently, written with exact types and field order."""

from collections.abc import Mapping
from typing import Any

import bson
from bson import Int64
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.raw_bson import RawBSONDocument

from pool_daemon.capacity import fields
from pool_daemon.capacity.pool import Pool
from pool_daemon.capacity.reservation import Reservation, ReservationData
from pool_daemon.errors import NotFiniteError, UnreadableDocumentError
from pool_daemon.store.failures import one_line

LENIENT: CodecOptions[dict[str, Any]] = CodecOptions(
    document_class=dict,
    tz_aware=True,
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
    unicode_decode_error_handler="replace",
)
"""Decodes whatever MongoDB can hold: dates beyond a datetime's range, and text that is not UTF-8."""

RAW: CodecOptions[RawBSONDocument] = LENIENT.with_options(document_class=RawBSONDocument)
"""Leaves documents as bytes: to be copied exactly, or decoded one by one, so that one cannot spoil a batch."""

POOL_FIELDS = (
    ("_id", "pool_id", fields.whole),
    ("cus", "cus", fields.number),
    ("sus", "sus", fields.number),
    ("ipv4us", "ipv4us", fields.number),
    ("node_ids", "node_ids", fields.texts),
    ("last_updated", "last_updated", fields.whole),
    ("active_cu", "active_cu", fields.number),
    ("active_su", "active_su", fields.number),
    ("active_ipv4", "active_ipv4", fields.number),
    ("empty_at", "empty_at", fields.whole),
    ("customer_tid", "customer_tid", fields.whole),
    ("sponsor_tid", "sponsor_tid", fields.whole),
    ("active_workload_ids", "active_workload_ids", fields.wholes),
)
"""A pool document's fields in the order in which they are written: name, attribute of `Pool`, how it is read."""


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


def pool_from_document(document: Mapping[str, Any]) -> Pool:
    """Read a pool: whole doubles and 32-bit numbers pass for int64, integers for doubles, null for an array.

    Raises UnreadableDocumentError, naming the field, for anything else; unknown fields are ignored.
    """
    values: dict[str, Any] = {
        attribute: read(document, name, UnreadableDocumentError) for name, attribute, read in POOL_FIELDS
    }
    for rate in ("active_cu", "active_su", "active_ipv4"):
        if values[rate] < 0:
            raise UnreadableDocumentError(f"{rate} is {values[rate]}, a rate below zero")
    try:
        return Pool(**values)
    except NotFiniteError as error:
        raise UnreadableDocumentError(str(error)) from error


def pool_to_document(pool: Pool) -> dict[str, Any]:
    """Write a pool with the contract's field order: int64, double, and arrays or null."""
    return {name: _exact(getattr(pool, attribute)) for name, attribute, _ in POOL_FIELDS}


def changed_fields(before: Pool, after: Pool) -> dict[str, Any]:
    """Return the fields, in BSON's exact types, whose value differs between two states of one pool."""
    old, new = pool_to_document(before), pool_to_document(after)
    return {name: value for name, value in new.items() if value != old[name]}


def reservation_from_document(document: Mapping[str, Any]) -> Reservation:
    """Read a reservation, as leniently as a pool.

    Raises UnreadableDocumentError, naming the field.
    """
    data = document.get("data_reservation")
    if not isinstance(data, Mapping):
        raise UnreadableDocumentError("data_reservation is not a document")
    return Reservation(
        reservation_id=_whole(document, "_id"),
        json=_text(document, "json"),
        data_reservation=ReservationData(
            pool_id=_whole(data, "pool_id"),
            cus=_whole(data, "cus"),
            sus=_whole(data, "sus"),
            ipv4us=_whole(data, "ipv4us"),
            node_ids=fields.texts(data, "node_ids", UnreadableDocumentError),
            currencies=fields.texts(data, "currencies", UnreadableDocumentError),
        ),
        customer_tid=_whole(document, "customer_tid"),
        customer_signature=_text(document, "customer_signature"),
        sponsor_tid=_whole(document, "sponsor_tid"),
        sponsor_signature=_text(document, "sponsor_signature"),
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
