"""Durations, instants and limits as they are typed."""

import argparse
import time

import pytest

from pool_daemon.cli import main
from pool_daemon.commands.arguments import duration, instant
from pool_daemon.errors import ExitCode


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("15min", 900),
        ("15m", 900),
        ("1h", 3600),
        ("0.5h", 1800),
        ("30d", 2_592_000),
        ("2w", 1_209_600),
    ],
)
def test_a_duration_is_a_number_and_its_unit(text: str, seconds: int) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "1", "h", "-1h", "0s", "0.1s", "1 h", "1y", "1e3s", "nan", "٣h", "9999999d", "1h30m"]
)
def test_anything_else_is_a_usage_error_with_the_remedy(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="such as 90s, 15min, 1h or 30d"):
        duration(text)


@pytest.mark.parametrize("option", ["--within", "--limit"])
def test_a_wrong_value_names_its_option(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pools", "list", option, "0"]) == ExitCode.USAGE
    assert f"argument {option}: must be a " in capsys.readouterr().err


@pytest.mark.parametrize("number", ["0", "-1", "1.5", "x", "1000000000", "²"])
def test_a_limit_is_a_whole_number_above_0(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pools", "next", f"--limit={number}"]) == ExitCode.USAGE
    assert "must be a whole number from 1 to 999999999" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("1970-01-01", 0),
        ("2026-11-30", 1_795_996_800),
        ("2026-11-30T12:00", 1_796_040_000),
        ("2026-11-30 12:00:01Z", 1_796_040_001),
        ("2026-11-30T13:00+01:00", 1_796_040_000),
    ],
)
def test_an_instant_is_a_date_in_utc(text: str, at: int) -> None:
    assert instant(text) == at


def test_an_instant_is_a_duration_before_now() -> None:
    assert abs(instant("2h") - (time.time() - 7200)) < 5


@pytest.mark.parametrize("text", ["", "now", "12:00", "1969-12-31", "2026-13-01", "1e9", "0001-01-01T00:00+14:00"])
def test_an_instant_that_is_neither_is_a_usage_error(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["events", "list", "--since", text]) == ExitCode.USAGE
    assert "argument --since: must be a date from 1970 on, such as 2026-11-30" in capsys.readouterr().err


def test_an_export_needs_its_beginning(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["events", "export"]) == ExitCode.USAGE
    assert "arguments are required: --since" in capsys.readouterr().err
