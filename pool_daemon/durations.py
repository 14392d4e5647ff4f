"""Durations as people write them, in settings and on the command line: 90s, 15min, 1h, 7d."""

import re
from typing import Final

UNITS: Final = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
"""Each unit's length in seconds."""

_WRITTEN: Final = re.compile(rf"(\d{{1,12}}(?:\.\d{{1,6}})?)({'|'.join(UNITS)})", re.ASCII)


def seconds_of(text: str) -> int | None:
    """Return a duration in whole seconds; None if the text is none."""
    match = _WRITTEN.fullmatch(text)
    return round(float(match[1]) * UNITS[match[2]]) if match else None


def as_written(seconds: int) -> str:
    """Return whole seconds as a duration that can be read again, in the largest unit up to a day that fits."""
    fitting = [name for name in ("d", "h", "min", "s") if seconds % UNITS[name] == 0]
    return f"{seconds // UNITS[fitting[0]]}{fitting[0]}" if seconds else "0"
