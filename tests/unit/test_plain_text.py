"""Text that customers have chosen, where people read it."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_daemon.plain_text import (
    LAST_DATE,
    MOST_CHARACTERS,
    cut,
    date,
    escaped,
    escaped_lines,
    mask_credentials,
    shown_id,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("pool 7, ünï 日本 ✓", "pool 7, ünï 日本 ✓"),
        ("\x1b]0;title\x07\x1b[2J", r"\x1b]0;title\x07\x1b[2J"),
        ("a\nb\r\tc\x85\u2028d\x7f", r"a\nb\r\tc\x85\u2028d\x7f"),
        ("\u202eabc\u2066\u200f\ufeff\u200b", r"\u202eabc\u2066\u200f\ufeff\u200b"),
        ("\ud800", r"\ud800"),
        ("[/nope] [red]", "[/nope] [red]"),
    ],
)
def test_what_is_not_seen_or_moves_something_is_shown_as_its_code(text: str, shown: str) -> None:
    assert escaped(text) == shown


@given(st.text())
def test_whatever_the_text_it_is_one_line_that_can_be_written(text: str) -> None:
    shown = escaped(text)
    assert len(shown.splitlines()) <= 1
    assert shown.isprintable() or any(not character.isprintable() for character in text)
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in shown)
    shown.encode()


def test_lines_that_are_meant_stay_lines() -> None:
    assert escaped_lines("a\x1b\n b\r\n") == "a\\x1b\n b\\r\n"


def test_an_id_is_told_as_it_is_if_it_is_a_number_and_cut_if_it_is_long() -> None:
    assert (shown_id(2**70), shown_id(1.5), shown_id(None)) == (2**70, 1.5, None)
    assert shown_id("\x1b") == r"\x1b"
    assert shown_id("A" * 10_000_000) == "A" * (MOST_CHARACTERS - 1) + "…"
    assert len(shown_id("\x1b" * 500)) == MOST_CHARACTERS
    assert shown_id({"a": "\x1b[2J"}).isprintable()


def test_what_is_short_is_not_cut() -> None:
    assert (cut("a" * 200), len(cut("a" * 201))) == ("a" * 200, 200)


@pytest.mark.parametrize(
    "hostile",
    [
        "mongodb:" + "/" * 300_000,
        "mongodb:/" * 40_000,
        "mongodb://" + "@" * 300_000,
        "tlsCertificateKeyFilePassword=" * 20_000,
    ],
    ids=["slashes", "schemes", "ats", "options"],
)
def test_masking_takes_no_longer_than_the_text_is_long(hostile: str) -> None:
    began_at = time.perf_counter()
    mask_credentials(hostile + " @")
    mask_credentials(hostile)
    assert time.perf_counter() - began_at < 2


@pytest.mark.parametrize(
    ("at", "shown"),
    [
        (0, "1970-01-01 00:00:00 UTC"),
        (1_800_000_000.987, "2027-01-15 08:00:00 UTC"),
        (LAST_DATE, "9999-12-31 23:59:59 UTC"),
        (LAST_DATE + 1, "253402300800"),
        (2**63 - 1, "9223372036854775807"),
        (-5, "-5"),
    ],
)
def test_an_instant_is_a_date_in_utc_or_a_number_where_there_is_none(at: float, shown: str) -> None:
    assert date(at) == shown


def test_milliseconds_are_cut_and_not_rounded_into_the_next_second() -> None:
    assert date(1_800_000_000.9996, milliseconds=True) == "2027-01-15 08:00:00.999 UTC"
