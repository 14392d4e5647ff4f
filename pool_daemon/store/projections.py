"""Projections that cut documents down on the server, so that no field of a customer's length is received."""

from collections.abc import Mapping
from typing import Any, Final

from pool_daemon.capacity.cloud_units import UNIT_FIELDS
from pool_daemon.capacity.pool import FIELDS

ARRAYS: Final = ("node_ids", "active_workload_ids")

NUMBERS: Final = tuple(name for name, _, _ in FIELDS if name not in ARRAYS)

IDS: Final = {"$cond": [{"$isArray": "$active_workload_ids"}, "$active_workload_ids", []]}
"""The ids of a pool's workloads; none if the field is no array."""

SUBDOCUMENT_BYTES: Final = 1024
"""The longest sub-document that units are computed from; a valid one has a tenth of that."""


def number_only(name: str) -> dict[str, Any]:
    """Return the expression of a field that is sent only if it is a number; otherwise the name of its type is sent.

    So nothing of any length is received, and a reader finds the field missing or wrong as before.
    """
    kind = {"$type": f"${name}"}
    return {"$cond": [{"$isNumber": f"${name}"}, f"${name}", {"$cond": [{"$eq": [kind, "missing"]}, "$$REMOVE", kind]}]}


def _unless_array(name: str, array: Any) -> dict[str, Any]:
    """Return the expression of a field that is `array` where it is an array, else missing, null or wrong as before."""
    kind = {"$type": f"${name}"}
    absent = {"$cond": [{"$in": [kind, ["missing", "null"]]}, f"${name}", kind]}
    return {"$cond": [{"$isArray": f"${name}"}, array, absent]}


def pool_fields(start: int, count: int) -> dict[str, Any]:
    """Return the projection of a pool: its numbers, some of its workload ids, and the length of their list."""
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
"""The fields of a listed workload that are read."""

OVERDUE_FIELDS: Final[Mapping[str, Any]] = {**WORKLOAD_FIELDS, "_id": 0, "pool_id": number_only("pool_id")}
