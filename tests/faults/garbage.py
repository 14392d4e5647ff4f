"""Documents that break the contract, made at random: what nobody should write, and somebody does."""

import random
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import reduce
from math import isfinite
from typing import Any

from arithmetic_model import Document
from bson import Binary, Code, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.datetime_ms import DatetimeMS
from explorer import CONTAINER, MISSING, VIRTUAL_MACHINE, VOLUME, ZDB, Kind

Makes = Callable[[random.Random], Any]
IsFit = Callable[[Any], bool]


def nested(depth: int) -> Document:
    """Return a document in a list in a document, so many times."""
    innermost: Document = {}
    return reduce(lambda inner, _: {"a": [inner]}, range(depth), innermost)


VALUES: Sequence[Makes] = (
    lambda _: None,
    lambda _: MISSING,
    lambda chance: chance.choice(["", "3", "0", "NaN", "-1", "\x00", "𝄞" * 9, "x" * chance.randrange(3_000)]),
    lambda chance: chance.random() < 0.5,
    lambda chance: chance.choice([0, 1, 3, -1, 99, 2**31, -(2**63)]),
    lambda chance: Int64(chance.randrange(-100, 100)),
    lambda chance: chance.choice([float("nan"), float("inf"), float("-inf"), 1e300, -0.0, 0.5, 3.0]),
    lambda chance: {"$numberLong": str(chance.randrange(100))},
    lambda chance: [chance.randrange(100) for _ in range(chance.randrange(4))],
    lambda chance: [[3], 3, "3", None][: chance.randrange(1, 5)],
    lambda chance: nested(chance.randrange(40)),
    lambda chance: Binary(chance.randbytes(chance.randrange(40)), chance.choice([0, 5, 128])),
    lambda chance: ObjectId(chance.randbytes(12)),
    lambda chance: datetime.fromtimestamp(chance.randrange(2**32), UTC),
    lambda chance: DatetimeMS(chance.choice([-(2**62), 2**60])),
    lambda chance: Decimal128(chance.choice(["3", "0", "NaN", "1E+6000", "-Infinity", "0.1"])),
    lambda _: Regex("^(a+)+$"),
    lambda _: Code("while (true) {}"),
    lambda chance: Timestamp(chance.randrange(2**31), 1),
    lambda _: MinKey(),
    lambda _: MaxKey(),
)
"""Everything that a field may hold in MongoDB, of which a field of the contract is fit for little."""

NO_IDS: Sequence[Makes] = (
    lambda chance: f"id {chance.randrange(2**40)}",
    lambda chance: ObjectId(chance.randbytes(12)),
    lambda chance: chance.randrange(2**20) + 0.5,
    lambda chance: datetime.fromtimestamp(chance.randrange(2**32), UTC),
)
"""What MongoDB takes for an id; the contract says that it is a whole number."""

LITTER_IDS: Sequence[Makes] = (*NO_IDS, lambda chance: Int64(chance.randrange(2**40)))

OWN_FIELDS = (
    *("state", "reason", "empty_at", "held_at", "by"),
    *("tries", "first_failed_at", "next_try_at"),
    *("holder", "term"),
)
"""Fields that the daemon's own documents have, some of them or others."""


def is_whole(value: Any) -> bool:
    """Tell whether a value is an int64, or passes for one."""
    if isinstance(value, float):
        return value.is_integer() and -(2.0**63) <= value < 2.0**63
    return isinstance(value, int) and not isinstance(value, bool)


def is_finite(value: Any) -> bool:
    """Tell whether a value is a double that can be reckoned with, or passes for one."""
    return is_whole(value) or (isinstance(value, float) and isfinite(value))


def is_array_of(is_fit: IsFit) -> IsFit:
    """Return what tells whether a value is an array of such values, or none."""
    return lambda value: value in (None, MISSING) or (isinstance(value, list) and all(map(is_fit, value)))


def is_one_of(*fit: int) -> IsFit:
    """Return what tells whether a value is one of these numbers."""
    return lambda value: is_whole(value) and value in fit


def or_missing(is_fit: IsFit) -> IsFit:
    """Return what tells whether a value is fit, or its field missing, which counts as 0."""
    return lambda value: value is MISSING or is_fit(value)


POOL_FIELDS: Mapping[str, IsFit] = {
    "empty_at": is_whole,
    **dict.fromkeys(("last_updated", "customer_tid", "sponsor_tid"), or_missing(is_whole)),
    **dict.fromkeys(("cus", "sus", "ipv4us", "active_cu", "active_su", "active_ipv4"), or_missing(is_finite)),
    "node_ids": is_array_of(lambda value: isinstance(value, str)),
    "active_workload_ids": is_array_of(is_whole),
}
"""The fields of a pool, and what each is fit for."""

CAPACITY_FIELDS: Mapping[str, IsFit] = {
    **dict.fromkeys(("cpu", "memory", "disk_size", "disk_type"), is_whole),
}
"""The same of what a container calls its capacity."""

ANY_WORKLOAD: Mapping[str, IsFit] = {
    "workload_type": is_one_of(0, 1, 2, *range(4, 13)),
    "next_action": is_one_of(3, 4),
    "pool_id": is_whole,
}
KINDS: Sequence[tuple[Kind, Mapping[str, IsFit]]] = (
    (CONTAINER, {"capcity": lambda _: False, **CAPACITY_FIELDS}),
    (VOLUME, {"size": is_whole, "type": is_one_of(0, 1)}),
    (ZDB, {"size": is_whole, "disk_type": is_one_of(0, 1)}),
    (VIRTUAL_MACHINE, {"size": is_one_of(*range(1, 19))}),
)
"""Kinds of workloads, and the fields from which their units are computed."""

NOBODYS_BUSINESS = ("metadata", "result", "signatures_provision", "epoch", "reference", "extra")
"""Fields of a workload that the daemon has no use for, whatever they hold."""


def broken_pool(pool: Document, chance: random.Random) -> Document:
    """Return a pool's document of which one to three fields hold what they are not fit for."""
    names = chance.sample(list(POOL_FIELDS), chance.randrange(1, 4))
    return with_fields(pool, {name: unfit(POOL_FIELDS[name], chance) for name in names})


def broken_workload(workload: Document, kind_fields: Mapping[str, IsFit], chance: random.Random) -> Document:
    """Return a workload's document that cannot be understood: its units, its pool, or what is to be done with it."""
    name, is_fit = chance.choice([*ANY_WORKLOAD.items(), *kind_fields.items()])
    if "capcity" in kind_fields and name in CAPACITY_FIELDS:
        return workload | {"capcity": with_fields(workload["capcity"], {name: unfit(is_fit, chance)})}
    return with_fields(workload, {name: unfit(is_fit, chance)})


def without_id(document: Document, chance: random.Random) -> Document:
    """Return a document whose id is none."""
    return document | {"_id": chance.choice(NO_IDS)(chance)}


def odd_workload(workload: Document, chance: random.Random) -> Document:
    """Return a workload's document that is odd, and yet says all that has to be known of it."""
    return with_fields(workload, {name: chance.choice(VALUES)(chance) for name in NOBODYS_BUSINESS})


def litter(chance: random.Random) -> Document:
    """Return a document of the daemon's own that makes no sense."""
    fields = {name: chance.choice(VALUES)(chance) for name in OWN_FIELDS}
    return with_fields({"_id": chance.choice(LITTER_IDS)(chance)}, fields)


def with_fields(document: Document, fields: Document) -> Document:
    """Return a document with other fields, or without some."""
    return {name: value for name, value in (document | fields).items() if value is not MISSING}


def unfit(is_fit: IsFit, chance: random.Random) -> Any:
    """Draw a value that a field is not fit for."""
    while is_fit(value := chance.choice(VALUES)(chance)):
        pass
    return value
