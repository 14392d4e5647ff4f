"""Amounts, durations, instants and ids, formatted for a person."""

import time
from contextlib import suppress
from typing import Final

from pool_daemon.capacity.exhaustion import Resource
from pool_daemon.capacity.pool import NEVER
from pool_daemon.capacity.workload import NextAction, WorkloadType
from pool_daemon.plain_text import LAST_DATE, date

LARGE: Final = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
"""The smallest amount of each unit."""

UNITS: Final = {Resource.COMPUTE: "CU", Resource.STORAGE: "SU", Resource.ADDRESSES: "IPv4U"}
"""What a unit of each resource is called by those who buy it."""

NAMES: Final = {Resource.COMPUTE: "compute", Resource.STORAGE: "storage", Resource.ADDRESSES: "addresses"}

LENGTHS: Final = ((172_800, 86_400, "d"), (7200, 3600, "h"), (120, 60, "min"), (10, 1, "s"))
"""The shortest span, in seconds, for each unit, and the unit's length in seconds."""


def span(seconds: float) -> str:
    """Format a duration, rounded to its largest unit."""
    for least, unit, name in LENGTHS:
        if seconds >= least:
            return f"{seconds / unit:,.0f} {name}"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def remaining(seconds: int) -> str:
    """Format a duration in its two largest units, such as 6 d 2 h."""
    parts = [(seconds // 86_400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "min"), (seconds % 60, "s")]
    first = next((index for index, (number, _) in enumerate(parts) if number), 3)
    return " ".join(f"{number} {name}" for number, name in parts[first : first + 2] if number) or "0 s"


def short(number: float) -> str:
    """Format a number with three digits and a unit; JSON has all digits."""
    for least, unit in LARGE:
        if number >= least:
            return f"{number / least:,.3g}{unit}"
    return f"{number:.3g}"


def units_for(unit_seconds: float, rate: float, resource: Resource) -> str:
    """Format unit seconds as they are bought: `2 CU for 30 d`; at a rate of 0 as one unit for as long as they last."""
    rate = rate or 1.0
    return f"{rate:.4g} {UNITS[resource]} for {span(unit_seconds / rate)}" if unit_seconds > 0 else "none"


def when(at: int, *, now: float | None = None) -> str:
    """Format an instant (unix seconds) as a date in UTC, and how far away it is."""
    if at == NEVER:
        return "never"
    if not 0 <= at <= LAST_DATE:
        return str(at)
    away = at - (time.time() if now is None else now)
    shown = date(at).removesuffix(" UTC")
    if abs(away) < 1:
        return f"{shown}, now"
    return f"{shown}, in {span(away)}" if away > 0 else f"{shown}, {span(-away)} ago"


def action_name(next_action: int | None) -> str:
    """Return the name of a workload's state: what is to be done next with it."""
    return _name(NextAction, next_action)


def type_name(workload_type: int | None) -> str:
    """Return the name of a workload's type."""
    return _name(WorkloadType, workload_type)


def _name(numbers: type[NextAction | WorkloadType], number: int | None) -> str:
    if number is None:
        return "?"
    with suppress(ValueError):
        return numbers(number).name.lower()
    return str(number)
