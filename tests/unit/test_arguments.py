"""Durations and limits as they are typed."""

import argparse

import pytest

from pool_daemon.cli import main
from pool_daemon.commands.arguments import duration
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
