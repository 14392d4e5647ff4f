"""Documents of the database, bit for bit: the golden vectors hold the bytes that the existing service writes."""

import dataclasses
import gzip
import json
import math
from pathlib import Path
from typing import Any

import bson
import pytest
from bson import Decimal128, Int64
from bson.raw_bson import RawBSONDocument

from pool_daemon.capacity.pool import NEVER, Pool
from pool_daemon.capacity.reservation import Reservation
from pool_daemon.errors import UnreadableDocumentError
from pool_daemon.store.codec import (
    changed_fields,
    decoded,
    document_id,
    integer,
    pool_from_document,
    pool_to_document,
    protecting_steps,
    reservation_from_document,
    reservation_to_document,
)

TABLES = Path(__file__).parents[1] / "data" / "tables.jsonl.gz"


def rows(table: str) -> list[dict[str, Any]]:
    with gzip.open(TABLES, "rt") as lines:
        return [row for row in map(json.loads, lines) if row["table"] == table]


GOOD: dict[str, Any] = {
    "_id": Int64(1),
    "cus": 1.5,
    "sus": 2.0,
    "ipv4us": 0.0,
    "node_ids": ["a"],
    "last_updated": Int64(100),
    "active_cu": 0.5,
    "active_su": 0.0,
    "active_ipv4": 0.0,
    "empty_at": Int64(103),
    "customer_tid": Int64(7),
    "sponsor_tid": Int64(0),
    "active_workload_ids": [Int64(11)],
}


@pytest.mark.parametrize(
    ("stored", "number"),
    [
        *((7, 7), (Int64(7), 7), (7.0, 7), (Decimal128("7.00"), 7), (Decimal128("-9223372036854775808"), -(2**63))),
        *((Decimal128(text), None) for text in ("0.5", "NaN", "sNaN", "-Infinity", "1E+6000", "9223372036854775808")),
        *((each, None) for each in (0.5, math.nan, 2**63, True, "7", None, [7], {"7": 7}, b"7")),
    ],
)
def test_equal_numbers_of_every_type_are_one_id(stored: Any, number: int | None) -> None:
    assert integer(stored) == number


@pytest.mark.parametrize("row", rows("pool_bson"), ids=lambda row: str(row["json"]["pool_id"]))
def test_a_pool_is_read_and_written_byte_for_byte(row: dict[str, Any]) -> None:
    raw = bytes.fromhex(row["bson_hex"])
    pool = pool_from_document(decoded(RawBSONDocument(raw)))
    assert bson.encode(pool_to_document(pool)) == raw
    assert pool == Pool.from_json(row["json"])


@pytest.mark.parametrize("row", rows("reservation"), ids=lambda row: str(row["json"]["id"]))
def test_a_reservation_is_read_and_written_byte_for_byte(row: dict[str, Any]) -> None:
    raw = bytes.fromhex(row["bson_hex"])
    reservation = reservation_from_document(decoded(RawBSONDocument(raw)))
    assert bson.encode(reservation_to_document(reservation)) == raw
    assert reservation == Reservation.from_json(row["json"])


def test_there_are_vectors_of_both_kinds() -> None:
    assert (len(rows("pool_bson")), len(rows("reservation"))) == (40, 40)


@pytest.mark.parametrize(
    ("field", "stored", "read"),
    [
        ("_id", 5, 5),
        ("_id", 5.0, 5),
        ("empty_at", 103, 103),
        ("empty_at", Int64(NEVER), NEVER),
        ("empty_at", Int64(-5), -5),
        ("empty_at", 1e18, 10**18),
        ("cus", 3, 3.0),
        ("cus", Int64(3), 3.0),
        ("node_ids", None, None),
        ("node_ids", [], []),
        ("active_workload_ids", [5, 6.0, Int64(7)], [5, 6, 7]),
    ],
)
def test_other_number_types_and_null_arrays_are_read(field: str, stored: Any, read: Any) -> None:
    document = bson.decode(bson.encode(GOOD | {field: stored, "unknown": "field"}))
    attribute = "pool_id" if field == "_id" else field
    assert getattr(pool_from_document(document), attribute) == read


@pytest.mark.parametrize("field", ["node_ids", "active_workload_ids"])
def test_a_missing_array_is_read_as_none(field: str) -> None:
    assert getattr(pool_from_document({key: GOOD[key] for key in GOOD if key != field}), field) is None


@pytest.mark.parametrize(
    ("field", "stored"),
    [
        ("_id", "one"),
        ("_id", 1.5),
        ("cus", "3"),
        ("cus", True),
        ("cus", None),
        ("cus", math.nan),
        ("active_su", math.inf),
        ("active_cu", -0.5),
        ("last_updated", 100.5),
        ("empty_at", "never"),
        ("empty_at", 1e30),
        ("empty_at", math.nan),
        ("empty_at", False),
        ("node_ids", "a"),
        ("node_ids", ["a", 5]),
        ("active_workload_ids", {"0": 5}),
        ("active_workload_ids", ["x"]),
        ("sponsor_tid", [1]),
    ],
)
def test_an_unreadable_pool_says_which_field_it_is(field: str, stored: Any) -> None:
    with pytest.raises(UnreadableDocumentError) as caught:
        pool_from_document(GOOD | {field: stored})
    assert field in str(caught.value) or "finite" in str(caught.value)


NUMBERS = [field for field in GOOD if field not in {"_id", "node_ids", "active_workload_ids"}]
OLD = {key: GOOD[key] for key in GOOD if key not in {"ipv4us", "active_ipv4", "sponsor_tid"}}
"""A pool that an explorer wrote before it knew IPv4 units and sponsors."""


@pytest.mark.parametrize("field", NUMBERS)
def test_a_missing_number_is_read_as_zero_and_remembered_as_missing(field: str) -> None:
    pool = pool_from_document({key: GOOD[key] for key in GOOD if key != field})
    assert (getattr(pool, field), pool.missing) == (0, frozenset({field}))
    assert type(getattr(pool, field)) is type(getattr(pool_from_document(GOOD), field))


def test_only_the_id_of_a_pool_must_be_there() -> None:
    with pytest.raises(UnreadableDocumentError, match="_id is missing"):
        pool_from_document({key: GOOD[key] for key in GOOD if key != "_id"})
    assert pool_from_document({"_id": 5}) == Pool.from_json({"pool_id": 5})


@pytest.mark.parametrize("field", ["active_cu", "active_su", "active_ipv4"])
@pytest.mark.parametrize("dust", [0.0000099, 1e-300, -5.551115123125783e-17, -0.0000099])
def test_rounding_dust_in_a_rate_is_read_as_it_is(field: str, dust: float) -> None:
    assert getattr(pool_from_document(GOOD | {field: dust}), field) == dust


@pytest.mark.parametrize("rate", [-0.00001, -0.001, -1])
def test_a_rate_below_rounding_dust_is_unreadable(rate: float) -> None:
    with pytest.raises(UnreadableDocumentError, match=r"active_su is .*, a rate below zero"):
        pool_from_document(GOOD | {"active_su": rate})


def test_no_update_holds_a_field_that_was_missing() -> None:
    as_read = pool_from_document(OLD)
    after = dataclasses.replace(as_read, cus=0.5, ipv4us=5.0, sponsor_tid=9)
    assert changed_fields(as_read, after) == {"cus": 0.5}
    assert changed_fields(as_read, after, ("sus", "ipv4us")) == {}


def test_what_protects_a_pool_changes_a_field_that_is_there_and_overflows_no_type() -> None:
    def steps(**fields: Any) -> list[Any]:
        return [update["$inc"] for update in protecting_steps(pool_from_document(GOOD | fields))]

    assert steps(last_updated=NEVER) == [{"last_updated": -1}, {"last_updated": 1}]
    assert steps(last_updated=-(2**63)) == [{"last_updated": 1}, {"last_updated": -1}]
    without = pool_from_document({key: GOOD[key] for key in GOOD if key != "last_updated"})
    assert [update["$inc"] for update in protecting_steps(without)] == [{"empty_at": -1}, {"empty_at": 1}]


def test_a_reservation_of_an_old_explorer_is_read_with_what_it_lacks_as_zero() -> None:
    row = rows("reservation")[0]
    document = decoded(RawBSONDocument(bytes.fromhex(row["bson_hex"])))
    old = {key: value for key, value in document.items() if not key.startswith("sponsor_")}
    old["data_reservation"] = {key: value for key, value in document["data_reservation"].items() if key != "ipv4us"}
    reservation = reservation_from_document(old)
    assert (reservation.sponsor_tid, reservation.sponsor_signature, reservation.data_reservation.ipv4us) == (0, "", 0)
    assert reservation.data_reservation.node_ids == document["data_reservation"]["node_ids"]
    assert reservation_from_document({"_id": 5}).json == ""
    with pytest.raises(UnreadableDocumentError, match="_id is missing"):
        reservation_from_document({key: old[key] for key in old if key != "_id"})
    with pytest.raises(UnreadableDocumentError, match="data_reservation is not a document"):
        reservation_from_document(old | {"data_reservation": "none"})


def test_text_that_is_not_utf8_does_not_matter() -> None:
    raw = RawBSONDocument(bson.encode(GOOD | {"note": "ABCD"}).replace(b"ABCD", b"\xff\xfe\xff\xfe"))
    assert pool_from_document(decoded(raw)).pool_id == 1


def test_bytes_that_are_no_document_make_it_unreadable() -> None:
    raw = RawBSONDocument(bson.encode({"_id": 9, "name": "ABCD"}).replace(b"\x02name", b"\x63name"))
    with pytest.raises(UnreadableDocumentError, match="not decodable"):
        decoded(raw)
    assert document_id(raw) == "unknown"


def test_dates_beyond_what_python_can_hold_do_not_matter() -> None:
    raw = RawBSONDocument(bson.encode({"_id": 9, "at": bson.datetime_ms.DatetimeMS(2**62)}))
    assert decoded(raw)["_id"] == 9
