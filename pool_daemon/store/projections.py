"""What the server cuts documents down to, so that nothing of a customer's length is received."""

from collections.abc import Mapping
from typing import Any, Final

from pool_daemon.capacity.cloud_units import UNIT_FIELDS
from pool_daemon.capacity.pool import FIELDS

ARRAYS: Final = ("node_ids", "active_workload_ids")

NUMBERS: Final = tuple(name for name, _, _ in FIELDS if name not in ARRAYS)

IDS: Final = {"$cond": [{"$isArray": "$active_workload_ids"}, "$active_workload_ids", []]}
"""The ids of a pool's workloads; none where that is no array."""

SUBDOCUMENT_BYTES: Final = 1024
"""The longest sub-document that units are computed from; a sound one has a tenth of that."""


def number_only(name: str) -> dict[str, Any]:
    """Return the expression of a field that leaves the server only as a number; its type's name stands for all else.

    So nothing of any length is received, and what reads the field finds it missing or wrong as before.
    """
    kind = {"$type": f"${name}"}
    return {"$cond": [{"$isNumber": f"${name}"}, f"${name}", {"$cond": [{"$eq": [kind, "missing"]}, "$$REMOVE", kind]}]}


def _unless_array(name: str, array: Any) -> dict[str, Any]:
    """Return the expression of a field that is `array` where it is one, else what makes it missing, null or wrong."""
    kind = {"$type": f"${name}"}
    absent = {"$cond": [{"$in": [kind, ["missing", "null"]]}, f"${name}", kind]}
    return {"$cond": [{"$isArray": f"${name}"}, array, absent]}


def pool_fields(start: int, count: int) -> dict[str, Any]:
    """Return what is read of a pool: its numbers, so many of its workload ids, and how many it lists in all."""
    ids = {"$map": {"input": {"$slice": ["$active_workload_ids", start, count]}, "in": number_only("$this")}}
    return {name: number_only(name) for name in NUMBERS} | {
        "node_ids": _unless_array("node_ids", []),
        "active_workload_ids": _unless_array("active_workload_ids", ids),
        "listed": {"$size": IDS},
    }


def _unit_field(name: str) -> dict[str, Any]:
    if name not in ("capcity", "custom_size"):
        return number_only(name)
    is_small = {"$lte": [{"$bsonSize": {"value": f"${name}"}}, SUBDOCUMENT_BYTES]}
    return {"$cond": [is_small, f"${name}", "$$REMOVE"]}


WORKLOAD_FIELDS: Final[Mapping[str, Any]] = {
    "next_action": number_only("next_action"),
    **{name: _unit_field(name) for name in UNIT_FIELDS},
}
"""All that is read of a listed workload."""

OVERDUE_FIELDS: Final[Mapping[str, Any]] = {**WORKLOAD_FIELDS, "_id": 0, "pool_id": number_only("pool_id")}
