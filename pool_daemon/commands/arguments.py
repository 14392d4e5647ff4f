"""Arguments of several commands: durations, instants, texts, limits of lists, and what reads of the database take."""

import argparse
import re
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from pool_daemon.commands import add_config_argument
from pool_daemon.durations import seconds_of

LONGEST_SECONDS: Final = 100 * 366 * 86_400

LONGEST_TEXT: Final = 500
"""Characters of a reason, a key or a node's id."""

MOST: Final = 999_999_999
"""The highest limit of a list."""


def duration(text: str) -> int:
    """Read a duration, such as 90s, 15min, 1h or 30d, in whole seconds; anything else is a usage error."""
    seconds = seconds_of(text)
    if seconds is None or not 1 <= seconds <= LONGEST_SECONDS:
        raise argparse.ArgumentTypeError("must be a duration from 1s to 100 years, such as 90s, 15min, 1h or 30d")
    return seconds


def duration_or_none(text: str) -> int:
    """Read a duration, or 0 for none at all, in whole seconds; anything else is a usage error."""
    return 0 if text == "0" else duration(text)


def instant(text: str) -> float:
    """Read a date in UTC, or a duration before now, in unix seconds; anything else is a usage error."""
    with suppress(argparse.ArgumentTypeError):
        return time.time() - duration(text)
    with suppress(ValueError, OverflowError):
        moment = datetime.fromisoformat(text)
        at = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        if at >= 0:
            return at
    raise argparse.ArgumentTypeError(
        "must be a date from 1970 on, such as 2026-11-30 or 2026-11-30T12:00, or how long ago, such as 1h"
    )


def line(text: str) -> str:
    """Read one line of text that a record can hold."""
    if not text or len(text) > LONGEST_TEXT or not text.isprintable():
        raise argparse.ArgumentTypeError(f"must be one line of 1 to {LONGEST_TEXT} printable characters")
    return text


def add_config_and_json_arguments(parser: argparse.ArgumentParser, *, each: str | None = None) -> None:
    """Add `--config` and `--json`, for commands that print what is in the database; `each` is what a line of it is."""
    add_config_argument(parser)
    lines = f", one {each} a line" if each else ""
    parser.add_argument("--json", action="store_true", help=f"print JSON{lines}; instants in unix seconds")


def add_limit_argument(parser: argparse.ArgumentParser, *, default: int | None, what: str) -> None:
    """Add `--limit`, for commands that print lists; None prints all."""
    parser.add_argument(
        "--limit",
        type=_positive,
        default=default,
        metavar="N",
        help=f"print at most so many {what} (default: {default or 'all'})",
    )


def _positive(text: str) -> int:
    number = int(text) if re.fullmatch(r"\d{1,9}", text, re.ASCII) else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {MOST}")
    return number
