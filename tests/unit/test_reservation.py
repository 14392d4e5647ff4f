"""Reservations against the explorer's own verdicts, and against texts that nobody should have signed."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import golden
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from pool_daemon.capacity.pool import Pool, new_pool
from pool_daemon.capacity.reservation import Reservation, ReservationData
from pool_daemon.errors import CapacityError, ReservationError, VerificationError

CUSTOMER, SPONSOR = SigningKey(b"c" * 32), SigningKey(b"s" * 32)
CUSTOMER_PK, SPONSOR_PK = (key.verify_key.encode().hex() for key in (CUSTOMER, SPONSOR))
DATA = {"pool_id": 0, "cus": 5, "sus": 6, "ipv4us": 7, "node_ids": ["n1", "n2"], "currencies": ["TFT"]}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(list(DATA)), inner),
    max_leaves=10,
)


def signed(text: str | None = None, **data: Any) -> Reservation:
    """Return a reservation that both have signed; its text says what its data says unless it is given."""
    document = DATA | data
    text = json.dumps(document) if text is None else text
    message = text.encode(errors="surrogatepass")
    return Reservation(
        reservation_id=3,
        json=text,
        data_reservation=ReservationData.from_json(document),
        customer_tid=7,
        customer_signature=CUSTOMER.sign(message).signature.hex(),
        sponsor_tid=8,
        sponsor_signature=SPONSOR.sign(message).signature.hex(),
    )


def changed(**changes: Any) -> Reservation:
    return dataclasses.replace(signed(), **changes)


def a_pool(**changes: Any) -> Pool:
    return dataclasses.replace(new_pool(9, 7, 0, ["n1"], now=0), **changes)


def holds(error: type[CapacityError], check: Callable[..., None], *arguments: str) -> bool:
    try:
        check(*arguments)
    except error:
        return False
    return True


def refusal(read: Callable[[Any], object], value: object) -> str | None:
    try:
        read(value)
    except ReservationError as error:
        return str(error)
    return None


def test_every_golden_reservation_gets_the_explorers_verdicts() -> None:
    rows = golden.table("reservation")
    assert len(rows) == 40
    for row in rows:
        reservation = Reservation.from_json(row["json"])
        customer_pk, sponsor_pk = row["customer_pk"], row["sponsor_pk"]
        both = reservation.verify_customer_and_sponsor
        assert {
            "verify": holds(VerificationError, reservation.verify, customer_pk),
            "verify_sponsor": holds(VerificationError, reservation.verify_sponsor, sponsor_pk),
            "verify_both": holds(VerificationError, both, customer_pk, sponsor_pk),
            "valid": holds(ReservationError, reservation.validate),
        } == {name: row[name] for name in ("verify", "verify_sponsor", "verify_both", "valid")}, row


def test_every_golden_reservation_is_read_from_json_and_written_as_it_was() -> None:
    for row in golden.table("reservation"):
        written = Reservation.from_json(row["json"]).to_json()
        assert json.dumps(written) == json.dumps(row["json"])


def test_a_complete_reservation_is_valid_and_its_signatures_hold() -> None:
    reservation = signed()
    reservation.validate()
    reservation.verify(CUSTOMER_PK)
    reservation.verify_sponsor(SPONSOR_PK)
    reservation.verify_customer_and_sponsor(CUSTOMER_PK.upper(), SPONSOR_PK)


def test_text_that_is_not_ascii_is_signed_as_utf_8() -> None:
    text = json.dumps(DATA | {"node_ids": ["nœud"]}, ensure_ascii=False)
    signed(text, node_ids=["nœud"]).verify(CUSTOMER_PK)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"json": json.dumps(DATA) + " "}, "customer's signature does not hold"),
        ({"customer_signature": ""}, "customer's signature has 0 bytes, not 64"),
        ({"customer_signature": "zz"}, "customer's signature is not hexadecimal"),
        ({"customer_signature": "abc"}, "customer's signature is not hexadecimal"),
        ({"customer_signature": "ab " * 64}, "customer's signature is not hexadecimal"),
        ({"customer_signature": "é" * 128}, "customer's signature is not hexadecimal"),
        ({"customer_signature": None}, "customer's signature is not hexadecimal"),
        ({"customer_signature": "ab" * 60}, "customer's signature has 60 bytes, not 64"),
        ({"customer_signature": "ab" * 64}, "customer's signature does not hold"),
        ({"json": "\ud800"}, "json is no text that could have been signed"),
    ],
)
def test_a_signature_that_does_not_hold_is_refused_with_what_is_wrong(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(VerificationError, match=reason):
        changed(**changes).verify(CUSTOMER_PK)


@pytest.mark.parametrize(
    ("pk", "reason"),
    [
        (SPONSOR_PK, "customer's signature does not hold"),
        ("00" * 32, "customer's signature does not hold"),
        ("ff" * 32, "customer's signature does not hold"),
        (CUSTOMER_PK[2:], "customer's public key has 31 bytes, not 32"),
        (CUSTOMER_PK[1:], "customer's public key is not hexadecimal"),
        ("", "customer's public key has 0 bytes, not 32"),
        ("0x" + CUSTOMER_PK[2:], "customer's public key is not hexadecimal"),
        (None, "customer's public key is not hexadecimal"),
        (5, "customer's public key is not hexadecimal"),
    ],
)
def test_a_key_that_is_not_the_signers_is_refused_with_what_is_wrong(pk: Any, reason: str) -> None:
    with pytest.raises(VerificationError, match=reason):
        signed().verify(pk)


def test_when_neither_signature_holds_both_are_named() -> None:
    with pytest.raises(VerificationError, match=r"^customer's signature .*; sponsor's signature does not hold$"):
        signed().verify_customer_and_sponsor(SPONSOR_PK, CUSTOMER_PK)


def test_one_good_signature_does_not_make_up_for_the_other() -> None:
    with pytest.raises(VerificationError, match=r"^sponsor's signature does not hold$"):
        signed().verify_customer_and_sponsor(CUSTOMER_PK, CUSTOMER_PK)
    with pytest.raises(VerificationError, match=r"^customer's signature does not hold$"):
        signed().verify_customer_and_sponsor(SPONSOR_PK, SPONSOR_PK)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"customer_tid": 0}, "customer_tid is required"),
        ({"customer_signature": ""}, "customer_signature is required"),
        ({"sponsor_signature": ""}, "sponsor_signature is required"),
        ({"json": ""}, "json cannot be parsed"),
        ({"data_reservation": ReservationData.from_json(DATA | {"node_ids": []})}, "must name a node"),
        ({"data_reservation": ReservationData.from_json(DATA | {"node_ids": None})}, "must name a node"),
        ({"data_reservation": ReservationData.from_json(DATA | {"node_ids": ["n1"] * 2})}, "a node twice"),
    ],
)
def test_an_incomplete_reservation_is_refused_with_what_is_wrong(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ReservationError, match=reason):
        changed(**changes).validate()


def test_without_a_sponsor_no_signature_of_one_is_needed() -> None:
    changed(sponsor_tid=0, sponsor_signature="").validate()


@pytest.mark.parametrize("name", list(DATA))
def test_a_field_in_which_text_and_data_differ_is_named(name: str) -> None:
    other = ["n2", "n1"] if name in {"node_ids", "currencies"} else 99
    reservation = signed(json.dumps(DATA), **{name: other})
    with pytest.raises(ReservationError, match=f"json and data_reservation differ in {name}"):
        reservation.validate()


@pytest.mark.parametrize("written", ["", '"currencies": null,', '"currencies": [],'])
@pytest.mark.parametrize("held", [None, []])
def test_null_missing_and_empty_arrays_are_equal(written: str, held: list[str] | None) -> None:
    text = "{" + written + '"pool_id":0,"cus":5,"sus":6,"ipv4us":7,"node_ids":["n1","n2"]}'
    signed(text, currencies=held).validate()


@pytest.mark.parametrize("number", ["null", "0"])
def test_a_number_that_is_null_or_missing_is_0(number: str) -> None:
    signed(
        '{"ipv4us":' + number + ',"cus":5,"sus":6,"node_ids":["n1"]}',
        node_ids=["n1"],
        currencies=None,
        ipv4us=0,
    )
    text = '{"ipv4us":' + number + ',"cus":5,"sus":6,"node_ids":["n1","n2"],"currencies":["TFT"]}'
    signed(text, ipv4us=0).validate()


def test_the_text_may_have_other_fields_and_names_in_any_case() -> None:
    extra = '{"deep":{"a":[1.5,true],"a":1e9},"Pool_ID":0,"CUS":5,"sus":6,"IPv4Us":7,'
    signed(extra + '"node_ids":["n1","n2"],"currencies":["TFT"]} \n').validate()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"cus":true}', "json: cus is of type bool, not a whole number"),
        ('{"cus":1.0}', "json: cus is 1.0, not an integer"),
        ('{"cus":1e3}', "json: cus is 1000.0, not an integer"),
        ('{"cus":1e999}', "json: cus is inf, not an integer"),
        ('{"cus":"5"}', "json: cus is of type str, not a whole number"),
        ('{"cus":{}}', "json: cus is of type tuple, not a whole number"),
        ('{"cus":-1}', "json: cus is -1, below 0"),
        ('{"cus":9223372036854775808}', "json: cus does not fit an int64"),
        ('{"pool_id":-9223372036854775809}', "json: pool_id does not fit an int64"),
        ('{"cus":5,"cus":5}', "json names cus twice"),
        ('{"cus":5,"CuS":6}', "json names cus twice"),
        ('{"node_ids":"n1"}', "json: node_ids is of type str, not an array"),
        ('{"node_ids":{}}', "json: node_ids is of type tuple, not an array"),
        ('{"node_ids":[null]}', "json: node_ids is null, not a string"),
        ('{"node_ids":[1.5]}', "json: node_ids is 1.5, not a string"),
        ("[]", "json is no object"),
        ("null", "json is no object"),
        ("5", "json is no object"),
        ("", "json cannot be parsed"),
        ("{", "json cannot be parsed"),
        ("{'cus':5}", "json cannot be parsed"),
        ('{"cus":5}{}', "json cannot be parsed"),
        ('\ufeff{"cus":5}', "json cannot be parsed"),
        ('{"other":NaN}', "NaN is no JSON"),
        ('{"other":"a\nb"}', "json cannot be parsed"),
        ('{"other":' + "9" * 5000 + "}", "json cannot be parsed"),
        ('{"other":' + "[" * 100_000 + "]" * 100_000 + "}", "json cannot be parsed"),
        ('{"other":' + '{"a":' * 100_000, "json cannot be parsed"),
    ],
)
def test_a_text_that_is_not_exactly_right_is_refused_with_what_is_wrong(text: str, reason: str) -> None:
    with pytest.raises(ReservationError, match=reason) as refused:
        changed(json=text).validate()
    assert str(refused.value).isprintable()


@given(
    st.text() | json_values.map(json.dumps) | st.dictionaries(st.sampled_from(list(DATA)), json_values).map(json.dumps)
)
def test_whatever_the_text_is_it_is_valid_or_refused_in_one_line(text: str) -> None:
    reason = refusal(ReservationData.from_signed_text, text)
    assert reason is None or reason.isprintable()


@given(st.dictionaries(st.sampled_from([*signed().to_json(), *DATA]), json_values))
def test_whatever_a_document_holds_it_is_read_or_refused(document: dict[str, Any]) -> None:
    reason = refusal(Reservation.from_json, document)
    assert reason is None or reason.isprintable()


def test_what_json_leaves_out_is_0_or_empty() -> None:
    empty = Reservation.from_json({"sponsor_tid": None, "surprise": 1})
    assert empty.to_json() == {
        "id": 0,
        "json": "",
        "data_reservation": {
            "pool_id": 0,
            "cus": 0,
            "sus": 0,
            "ipv4us": 0,
            "node_ids": None,
            "currencies": None,
        },
        "customer_tid": 0,
        "customer_signature": "",
        "sponsor_tid": 0,
        "sponsor_signature": "",
    }


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"data_reservation": []}, "data_reservation is no document"),
        ({"data_reservation": {"cus": -1}}, "cus is -1, below 0"),
        ({"customer_tid": "7"}, "customer_tid is of type str"),
        ({"customer_signature": 7}, "customer_signature is of type int"),
    ],
)
def test_json_with_a_wrong_field_is_refused_by_name(document: dict[str, Any], reason: str) -> None:
    with pytest.raises(ReservationError, match=reason):
        Reservation.from_json(document)


def test_a_pool_may_be_extended_by_units_or_by_a_node() -> None:
    signed(pool_id=9, node_ids=["n1"]).validate_extension(a_pool())
    signed(pool_id=9, cus=0, sus=0, ipv4us=0).validate_extension(a_pool())
    signed(pool_id=9).validate_extension(a_pool(node_ids=None))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"pool_id": 8}, "it is for pool 8, not for pool 9"),
        ({"pool_id": 9, "node_ids": ["n2"]}, "must name every node of the pool, 'n1' too"),
        ({"pool_id": 9, "node_ids": ["n1"], "cus": 0, "sus": 0, "ipv4us": 0}, "neither units nor a node"),
    ],
)
def test_an_extension_that_does_not_fit_its_pool_is_refused(data: dict[str, Any], reason: str) -> None:
    with pytest.raises(ReservationError, match=reason):
        signed(**data).validate_extension(a_pool())
