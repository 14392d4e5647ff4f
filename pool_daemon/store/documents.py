"""Pools and reservations as BSON: read leniently, written with exact types and field order."""

import math
from collections.abc import Mapping
from typing import Any

import bson
from bson import Int64
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.raw_bson import RawBSONDocument

from pool_daemon.capacity.pool import Pool
from pool_daemon.capacity.reservation import Reservation, ReservationData
from pool_daemon.errors import UnreadableDocumentError
from pool_daemon.store.failures import one_line

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

LENIENT: CodecOptions[dict[str, Any]] = CodecOptions(
    document_class=dict, tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_AUTO
)
"""Decodes every date that MongoDB can hold, those beyond a datetime's range included."""

_FORGIVING = LENIENT.with_options(unicode_decode_error_handler="replace")

RAW: CodecOptions[RawBSONDocument] = CodecOptions(
    document_class=RawBSONDocument, tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_AUTO
)
"""Leaves documents as bytes, so that one that cannot be decoded does not fail the batch it came with."""

POOL_FIELDS = (
    ("_id", "pool_id"),
    ("cus", "cus"),
    ("sus", "sus"),
    ("ipv4us", "ipv4us"),
    ("node_ids", "node_ids"),
    ("last_updated", "last_updated"),
    ("active_cu", "active_cu"),
    ("active_su", "active_su"),
    ("active_ipv4", "active_ipv4"),
    ("empty_at", "empty_at"),
    ("customer_tid", "customer_tid"),
    ("sponsor_tid", "sponsor_tid"),
    ("active_workload_ids", "active_workload_ids"),
)
"""A pool document's fields in the order in which they are written, each with its attribute of `Pool`."""

_FLOATS = frozenset({"cus", "sus", "ipv4us", "active_cu", "active_su", "active_ipv4"})
_RATES = ("active_cu", "active_su", "active_ipv4")


def decoded(raw: RawBSONDocument) -> dict[str, Any]:
    """Decode a raw document.

    Raises UnreadableDocumentError if its bytes are no BSON that Python can hold.
    """
    try:
        return bson.decode(raw.raw, LENIENT)
    except (bson.errors.BSONError, ValueError, OverflowError) as error:
        raise UnreadableDocumentError(f"not decodable: {one_line(error)}") from error


def document_id(raw: RawBSONDocument) -> Any:
    """Return a raw document's id, even if other fields of it hold text that is not UTF-8; else "unknown"."""
    try:
        return bson.decode(raw.raw, _FORGIVING).get("_id")
    except (bson.errors.BSONError, ValueError, OverflowError):
        return "unknown"


def integer(value: Any, name: str) -> int:
    """Read one value as an int64: a whole double or a 32-bit number passes.

    Raises UnreadableDocumentError, naming the field.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise UnreadableDocumentError(f"{name}: {_shown(value)} is not a whole number")
    if not INT64_MIN <= value <= INT64_MAX:
        raise UnreadableDocumentError(f"{name}: {value} is beyond 64 bits")
    return int(value)


def pool_from_document(document: Mapping[str, Any]) -> Pool:
    """Read a pool: whole doubles and 32-bit numbers pass for int64, integers for doubles, null for an array.

    Raises UnreadableDocumentError, naming the field, for anything else; unknown fields are ignored.
    """
    values = {attribute: _pool_field(document, name) for name, attribute in POOL_FIELDS}
    negative = [name for name in _RATES if values[name] < 0]
    if negative:
        raise UnreadableDocumentError(f"{negative[0]}: an active rate below zero")
    return Pool(**values)


def pool_to_document(pool: Pool) -> dict[str, Any]:
    """Write a pool with the contract's field order: int64, double, and arrays or null."""
    return {name: _exact(getattr(pool, attribute)) for name, attribute in POOL_FIELDS}


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
        raise UnreadableDocumentError("data_reservation: not a document")
    return Reservation(
        reservation_id=_integer(document, "_id"),
        json=_text(document, "json"),
        data_reservation=ReservationData(
            pool_id=_integer(data, "pool_id"),
            cus=_integer(data, "cus"),
            sus=_integer(data, "sus"),
            ipv4us=_integer(data, "ipv4us"),
            node_ids=_texts(data, "node_ids"),
            currencies=_texts(data, "currencies"),
        ),
        customer_tid=_integer(document, "customer_tid"),
        customer_signature=_text(document, "customer_signature"),
        sponsor_tid=_integer(document, "sponsor_tid"),
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
            "node_ids": _exact(data.node_ids),
            "currencies": _exact(data.currencies),
        },
        "customer_tid": Int64(reservation.customer_tid),
        "customer_signature": reservation.customer_signature,
        "sponsor_tid": Int64(reservation.sponsor_tid),
        "sponsor_signature": reservation.sponsor_signature,
    }


def _pool_field(document: Mapping[str, Any], name: str) -> Any:
    if name in _FLOATS:
        return _double(document, name)
    if name == "node_ids":
        return _texts(document, name)
    if name == "active_workload_ids":
        return _integers(document, name)
    return _integer(document, name)


def _exact(value: Any) -> Any:
    if isinstance(value, int):
        return Int64(value)
    if isinstance(value, list | tuple):
        return [_exact(item) for item in value]
    return value


def _integer(document: Mapping[str, Any], name: str) -> int:
    return integer(document.get(name), name)


def _double(document: Mapping[str, Any], name: str) -> float:
    value = document.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnreadableDocumentError(f"{name}: {_shown(value)} is not a number")
    if not math.isfinite(value):
        raise UnreadableDocumentError(f"{name}: {value} is not finite")
    return float(value)


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str):
        raise UnreadableDocumentError(f"{name}: {_shown(value)} is not a string")
    return value


def _texts(document: Mapping[str, Any], name: str) -> list[str] | None:
    values = _array(document, name)
    if values is not None and not all(isinstance(value, str) for value in values):
        raise UnreadableDocumentError(f"{name}: holds something that is not a string")
    return values


def _integers(document: Mapping[str, Any], name: str) -> list[int] | None:
    values = _array(document, name)
    return None if values is None else [integer(value, name) for value in values]


def _array(document: Mapping[str, Any], name: str) -> list[Any] | None:
    value = document.get(name)
    if value is not None and not isinstance(value, list):
        raise UnreadableDocumentError(f"{name}: {_shown(value)} is not an array")
    return value


def _shown(value: Any) -> str:
    """Show a field's value in an error: its type, and its text if that is short."""
    if value is None:
        return "null or nothing"
    text = repr(value)
    return f"{type(value).__name__} {text[:40]}"
