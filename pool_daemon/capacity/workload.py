"""A workload: its type and its next action, and the units that are deducted from its pool every second.

The daemon reads of its document: `_id` and `pool_id`, `next_action` and `workload_type` as below, `node_id` for its
records, and the fields of its type from which `cloud_units` computes what it drains. A document states hardware
(cores, GiB); a pool holds cloud units. The tables and the rounding are those of the explorer service, which adds the
same units to the pool when the workload is deployed.
"""

import math
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any, Final, NamedTuple

from pool_daemon.capacity import fields
from pool_daemon.capacity.arithmetic import round_half_away
from pool_daemon.errors import UnitsError


class NextAction(IntEnum):
    """The pending action of a workload: the value of `next_action`."""

    CREATE = 0
    SIGN = 1
    PAY = 2
    DEPLOY = 3
    DELETE = 4
    INVALID = 5
    DELETED = 6
    MIGRATED = 7


class WorkloadType(IntEnum):
    """The type of a workload: the value of `workload_type`."""

    ZDB = 0
    CONTAINER = 1
    VOLUME = 2
    NETWORK = 3
    KUBERNETES = 4
    PROXY = 5
    REVERSE_PROXY = 6
    SUB_DOMAIN = 7
    DOMAIN_DELEGATE = 8
    GATEWAY4TO6 = 9
    NETWORK_RESOURCE = 10
    PUBLIC_IP = 11
    VIRTUAL_MACHINE = 12


CUSTOM_SIZE: Final = -1
"""The `size` of a virtual machine that states its hardware itself, in `custom_size`."""

CONTAINER_ROOT_GIB: Final = 50.0
"""The part of a container's disk, its root filesystem, that is not charged."""

HDD: Final = 0
SSD: Final = 1


class CloudUnits(NamedTuple):
    """Compute, storage and IPv4 units, which are deducted from a pool every second."""

    cu: float
    su: float
    ipv4u: float


class Hardware(NamedTuple):
    """What a workload takes of its node: cores, GiB of memory, GiB of hard disk and of SSD; and IPv4 addresses."""

    cru: float = 0
    mru: float = 0
    hru: float = 0
    sru: float = 0
    ipv4u: float = 0


MACHINE_SIZES: Final[Mapping[int, Hardware]] = {
    size: Hardware(cru=cru, mru=mru, sru=sru)
    for size, cru, mru, sru in (
        (1, 1, 2, 50),
        (2, 2, 4, 100),
        (3, 2, 8, 25),
        (4, 2, 5, 50),
        (5, 2, 8, 200),
        (6, 4, 16, 50),
        (7, 4, 16, 100),
        (8, 4, 16, 400),
        (9, 8, 32, 100),
        (10, 8, 32, 200),
        (11, 8, 32, 800),
        (12, 1, 64, 200),
        (13, 1, 64, 400),
        (14, 1, 64, 800),
        (15, 1, 2, 25),
        (16, 2, 4, 50),
        (17, 4, 8, 50),
        (18, 1, 1, 25),
    )
}
"""The hardware of each size of Kubernetes nodes and virtual machines."""


UNIT_FIELDS: Final = ("workload_type", "capcity", "size", "type", "disk_type", "custom_size")
"""The fields that a workload's units are computed from; the rest, mostly signatures and results, is not read."""


def cloud_units(document: Mapping[str, Any]) -> CloudUnits:
    """Compute what a workload drains from its document; a free one drains nothing.

    Whole numbers may be int32, int64 or a whole double; a negative one enters the formula unchanged, as in the
    explorer. Raises only UnitsError, with a reason of one line: the type or the size is unknown, or a field is missing,
    of another type, NaN or infinite.
    """
    if not isinstance(document, Mapping):
        raise UnitsError(f"a workload is a document, not {type(document).__name__}")
    workload_type = fields.whole(document, "workload_type", UnitsError)
    hardware_of = _HARDWARE.get(workload_type)
    if hardware_of is None:
        raise UnitsError(f"workload_type {workload_type} has no known units")
    cru, mru, hru, sru, ipv4u = hardware_of(document)
    cu = _rounded(min(mru / 4, cru / 2), 1000)
    su = _rounded(hru / 1200 + sru / 300, 1000)
    if not (math.isfinite(cu) and math.isfinite(su)):
        raise UnitsError("custom_size is too large")
    return CloudUnits(cu, su, float(ipv4u))


def _container(document: Mapping[str, Any]) -> Hardware:
    # The field is spelt like this in the database; only JSON says "capacity".
    capacity = _subdocument(document, "capcity")
    cru = fields.whole(capacity, "cpu", UnitsError)
    mru = _gib(capacity, "memory")
    charged = max(0.0, _gib(capacity, "disk_size") - CONTAINER_ROOT_GIB)
    disk_type = fields.whole(capacity, "disk_type", UnitsError)
    # A customer may send any number as the disk type. The explorer then charges no disk, but cores and memory.
    hru, sru = charged * (disk_type == HDD), charged * (disk_type == SSD)
    return Hardware(cru=cru, mru=mru, hru=hru, sru=sru)


def _volume(document: Mapping[str, Any]) -> Hardware:
    hru, sru = _hdd_or_ssd(fields.whole(document, "size", UnitsError), document, "type")
    return Hardware(hru=hru, sru=sru)


def _zdb(document: Mapping[str, Any]) -> Hardware:
    hru, sru = _hdd_or_ssd(fields.whole(document, "size", UnitsError), document, "disk_type")
    return Hardware(hru=hru, sru=sru)


def _machine(document: Mapping[str, Any]) -> Hardware:
    size = fields.whole(document, "size", UnitsError)
    if size == CUSTOM_SIZE:
        return _custom_machine(_subdocument(document, "custom_size"))
    if size not in MACHINE_SIZES:
        raise UnitsError(f"size {size} is unknown")
    return MACHINE_SIZES[size]


def _custom_machine(custom: Mapping[str, Any]) -> Hardware:
    mru = fields.number(custom, "mru", UnitsError)
    sru = fields.number(custom, "sru", UnitsError)
    if not (math.isfinite(mru) and math.isfinite(sru)):
        raise UnitsError(f"custom_size must be finite, not mru {mru} and sru {sru}")
    return Hardware(cru=fields.whole(custom, "cru", UnitsError), mru=mru, sru=sru)


def _public_ip(_document: Mapping[str, Any]) -> Hardware:
    return Hardware(ipv4u=1)


def _free(_document: Mapping[str, Any]) -> Hardware:
    return Hardware()


_HARDWARE: Final[Mapping[int, Callable[[Mapping[str, Any]], Hardware]]] = {
    WorkloadType.ZDB: _zdb,
    WorkloadType.CONTAINER: _container,
    WorkloadType.VOLUME: _volume,
    WorkloadType.KUBERNETES: _machine,
    WorkloadType.PROXY: _free,
    WorkloadType.REVERSE_PROXY: _free,
    WorkloadType.SUB_DOMAIN: _free,
    WorkloadType.DOMAIN_DELEGATE: _free,
    WorkloadType.GATEWAY4TO6: _free,
    WorkloadType.NETWORK_RESOURCE: _free,
    WorkloadType.PUBLIC_IP: _public_ip,
    WorkloadType.VIRTUAL_MACHINE: _machine,
}


FREE_TYPES: Final = frozenset(int(kind) for kind, hardware_of in _HARDWARE.items() if hardware_of is _free)
"""The workload types that drain nothing, and so are never decommissioned."""


def _hdd_or_ssd(gib: float, document: Mapping[str, Any], type_name: str) -> tuple[float, float]:
    """Return the GiB of hard disk and of SSD: all of one kind, by the disk's type, and none of the other."""
    disk_type = fields.whole(document, type_name, UnitsError)
    if disk_type == HDD:
        return float(gib), 0.0
    if disk_type == SSD:
        return 0.0, float(gib)
    raise UnitsError(f"{type_name} {disk_type} is unknown")


def _subdocument(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = document.get(name)
    if not isinstance(value, Mapping):
        raise UnitsError(f"{name} is missing or no document")
    return value


def _gib(document: Mapping[str, Any], name: str) -> float:
    return _rounded(fields.whole(document, name, UnitsError) / 1024, 10_000)


def _rounded(number: float, parts: int) -> float:
    """Round to a whole number of `parts` of one, halves away from zero."""
    return round_half_away(number * parts) / parts
