"""One field of a document, read leniently and checked.

Other programs write the documents, so an int64 may arrive as an int32 or a whole double, and a double as an integer.
The caller names the error to raise, because a reason means something else to each.
"""

from collections.abc import Mapping
from typing import Any, Final

from pool_daemon.capacity.arithmetic import EARLIEST, LATEST
from pool_daemon.errors import PoolDaemonError

_MISSING: Final = object()

RATE_DUST: Final = 0.00001
"""Rates closer to 0 than this, on either side, are rounding residue of workloads that are gone."""


def whole(document: Mapping[str, Any], name: str, error: type[PoolDaemonError]) -> int:
    """Return a field that fits an int64; a bool is not a number, a whole double is."""
    value = document.get(name, _MISSING)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise error(f"{name} {_describe(value)}, not a whole number")
    if not EARLIEST <= value <= LATEST:
        raise error(f"{name} does not fit an int64")
    return int(value)


def whole_or_none(document: Mapping[str, Any], name: str) -> int | None:
    """Return a field that fits an int64, None if it is missing or anything else."""
    try:
        return whole(document, name, PoolDaemonError)
    except PoolDaemonError:
        return None


def number(document: Mapping[str, Any], name: str, error: type[PoolDaemonError]) -> float:
    """Return a field that is a double or fits an int64, as a double; it may be NaN or infinite."""
    value = document.get(name, _MISSING)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return float(whole(document, name, error))
    raise error(f"{name} {_describe(value)}, not a number")


def rate(document: Mapping[str, Any], name: str, error: type[PoolDaemonError]) -> float:
    """Return a number that is an active rate; a negative one may only be rounding dust."""
    value = number(document, name, error)
    if value <= -RATE_DUST:
        raise error(f"{name} is {value}, a rate below zero")
    return value


def text(document: Mapping[str, Any], name: str, error: type[PoolDaemonError]) -> str:
    """Return a field that is a string."""
    value = document.get(name, _MISSING)
    if not isinstance(value, str):
        raise error(f"{name} {_describe(value)}, not a string")
    return value


def texts(document: Mapping[str, Any], name: str, error: type[PoolDaemonError]) -> list[str] | None:
    """Return a field that is an array of strings; missing or null is None."""
    values = _array(document, name, error)
    return None if values is None else [text({name: value}, name, error) for value in values]


def wholes(document: Mapping[str, Any], name: str, error: type[PoolDaemonError]) -> list[int] | None:
    """Return a field that is an array of whole numbers; missing or null is None."""
    values = _array(document, name, error)
    return None if values is None else [whole({name: value}, name, error) for value in values]


def filled(document: Mapping[str, Any], zeroes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that `zeroes` names; missing and null ones have their zero value."""
    values = {name: document.get(name) for name in zeroes}
    return {name: zeroes[name] if value is None else value for name, value in values.items()}


def _array(document: Mapping[str, Any], name: str, error: type[PoolDaemonError]) -> list[Any] | None:
    value = document.get(name)
    if value is None or isinstance(value, list):
        return value
    raise error(f"{name} {_describe(value)}, not an array")


def _describe(value: object) -> str:
    # Of a value of an unexpected type only the type is named: its text may be long, secret or endless.
    if value is _MISSING:
        return "is missing"
    if value is None:
        return "is null"
    return f"is {value}" if isinstance(value, float) else f"is of type {type(value).__name__}"
