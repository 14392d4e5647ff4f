"""Units against the explorer's own results, and against documents that no explorer would write."""

import json
import math
from types import MappingProxyType
from typing import Any

import golden
import pytest
from bson import Decimal128, Int64, json_util
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_daemon.capacity.workload import MACHINE_SIZES, CloudUnits, WorkloadType, cloud_units
from pool_daemon.errors import UnitsError

FREE = (
    WorkloadType.PROXY,
    WorkloadType.REVERSE_PROXY,
    WorkloadType.SUB_DOMAIN,
    WorkloadType.DOMAIN_DELEGATE,
    WorkloadType.GATEWAY4TO6,
    WorkloadType.NETWORK_RESOURCE,
)
FIELDS = ["size", "type", "disk_type", "_id", "node_id"]
CAPACITY_FIELDS = ["cpu", "memory", "disk_size", "disk_type"]
CUSTOM_FIELDS = ["cru", "mru", "sru"]

CAPACITY = {"cpu": 2, "memory": 4096, "disk_size": 102400, "disk_type": 1}
CONTAINER = {"workload_type": 1, "capcity": CAPACITY}
VOLUME = {"workload_type": 2, "size": 300, "type": 1}
ZDB = {"workload_type": 0, "size": 1200, "disk_type": 0}
CUSTOM = {"workload_type": 12, "size": -1, "custom_size": {"cru": 4, "mru": 8.0, "sru": 150.5}}

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 20)
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.sampled_from([10**400, 2**63, -(2**63), 1e308, -0.0, Int64(1), Decimal128("1")])
)
values = st.integers(-1, 20) | st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=3), inner),
    max_leaves=12,
)


def objects(names: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=dict.fromkeys(names, values))


documents = st.builds(
    lambda fields, kind: fields | kind,
    objects(FIELDS),
    st.fixed_dictionaries(
        {"workload_type": st.integers(-1, 14) | values},
        optional={"capcity": objects(CAPACITY_FIELDS) | values, "custom_size": objects(CUSTOM_FIELDS) | values},
    ),
)


def units_or_reason(document: dict[str, Any]) -> CloudUnits | str:
    try:
        return cloud_units(document)
    except UnitsError as error:
        return str(error)


def with_field(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return a copy of a document in which the field at a dotted path has another value."""
    name, _, rest = path.partition(".")
    return document | {name: with_field(document[name], rest, value) if rest else value}


def without_field(document: dict[str, Any], path: str) -> dict[str, Any]:
    name, _, rest = path.partition(".")
    if rest:
        return document | {name: without_field(document[name], rest)}
    return {key: value for key, value in document.items() if key != name}


def test_every_golden_workload_has_the_explorers_units_bit_for_bit() -> None:
    rows = golden.table("units")
    assert len(rows) == 471
    for row in rows:
        document = json_util.loads(json.dumps(row["document"]))
        if row["error"]:
            with pytest.raises(UnitsError):
                cloud_units(document)
        else:
            expected = [float(row[name]).hex() for name in ("cu", "su", "ipv4u")]
            assert [number.hex() for number in cloud_units(document)] == expected, document


def test_a_container_pays_for_its_scarcer_resource_and_for_disk_beyond_its_root() -> None:
    assert cloud_units(CONTAINER) == (1, 0.167, 0)
    assert cloud_units(with_field(CONTAINER, "capcity.disk_type", 0)) == (1, 0.042, 0)
    assert cloud_units(with_field(CONTAINER, "capcity.memory", 2048)) == (0.5, 0.167, 0)
    assert cloud_units(with_field(CONTAINER, "capcity.disk_size", 1024)) == (1, 0, 0)


@pytest.mark.parametrize("disk_type", [2, 255, -1, Int64(7), 3.0])
def test_a_container_on_a_disk_of_no_known_kind_pays_for_cores_and_memory_alone(disk_type: Any) -> None:
    assert cloud_units(with_field(CONTAINER, "capcity.disk_type", disk_type)) == (1, 0, 0)


def test_a_volume_and_a_zdb_pay_for_their_kind_of_disk() -> None:
    assert cloud_units(VOLUME) == cloud_units(ZDB) == (0, 1, 0)
    assert cloud_units(VOLUME | {"type": 0}) == (0, 0.25, 0)
    assert cloud_units(ZDB | {"disk_type": 1}) == (0, 4, 0)


def test_a_machine_of_a_custom_size_pays_for_what_it_states() -> None:
    assert cloud_units(CUSTOM) == (2, 0.502, 0)


@pytest.mark.parametrize("workload_type", [WorkloadType.KUBERNETES, WorkloadType.VIRTUAL_MACHINE])
def test_the_sizes_of_machines_run_from_1_to_18(workload_type: WorkloadType) -> None:
    assert sorted(MACHINE_SIZES) == list(range(1, 19))
    for size in MACHINE_SIZES:
        assert cloud_units({"workload_type": workload_type, "size": size}).cu > 0
    for size in (-2, 0, 19, 2**62):
        with pytest.raises(UnitsError, match=f"size {size} is unknown"):
            cloud_units({"workload_type": workload_type, "size": size})


@pytest.mark.parametrize("workload_type", FREE)
def test_a_free_workload_drains_nothing_whatever_else_it_says(workload_type: WorkloadType) -> None:
    assert cloud_units({"workload_type": workload_type, "size": "?"}) == (0, 0, 0)


def test_a_public_ip_drains_one_address() -> None:
    assert cloud_units({"workload_type": 11}) == CloudUnits(cu=0, su=0, ipv4u=1)


@pytest.mark.parametrize("workload_type", [WorkloadType.NETWORK, 13, -1, 2**40])
def test_a_type_without_known_units_is_refused(workload_type: int) -> None:
    with pytest.raises(UnitsError, match=f"workload_type {workload_type} has no known units"):
        cloud_units({"workload_type": workload_type})


@pytest.mark.parametrize("written", [int, Int64, float])
def test_a_whole_number_may_be_of_any_numeric_type(written: type[int] | type[float]) -> None:
    capacity = {name: written(value) for name, value in CAPACITY.items()}
    assert cloud_units({"workload_type": written(1), "capcity": capacity}) == cloud_units(CONTAINER)


def test_a_document_may_be_any_mapping() -> None:
    assert cloud_units(MappingProxyType(CONTAINER)) == cloud_units(CONTAINER)


@pytest.mark.parametrize(
    ("document", "path"),
    [
        (VOLUME, "workload_type"),
        (VOLUME, "size"),
        (VOLUME, "type"),
        (ZDB, "size"),
        (ZDB, "disk_type"),
        (CONTAINER, "capcity"),
        (CONTAINER, "capcity.cpu"),
        (CONTAINER, "capcity.memory"),
        (CONTAINER, "capcity.disk_size"),
        (CONTAINER, "capcity.disk_type"),
        (CUSTOM, "size"),
        (CUSTOM, "custom_size"),
        (CUSTOM, "custom_size.cru"),
        (CUSTOM, "custom_size.mru"),
        (CUSTOM, "custom_size.sru"),
    ],
)
def test_a_field_that_is_missing_or_no_number_is_refused_by_name(document: dict[str, Any], path: str) -> None:
    wrong = [None, True, "1", [1], b"1", math.nan, math.inf, -math.inf, 10**400, Decimal128("1")]
    damaged = [without_field(document, path), *(with_field(document, path, value) for value in wrong)]
    for damage in damaged:
        with pytest.raises(UnitsError, match=path.rpartition(".")[2]):
            cloud_units(damage)


@pytest.mark.parametrize(("document", "path"), [(VOLUME, "type"), (ZDB, "disk_type")])
def test_a_kind_of_disk_that_is_unknown_is_refused(document: dict[str, Any], path: str) -> None:
    with pytest.raises(UnitsError, match="type 2 is unknown"):
        cloud_units(with_field(document, path, 2))


def test_a_fraction_is_refused_where_a_whole_number_belongs_and_taken_where_it_does_not() -> None:
    with pytest.raises(UnitsError, match=r"size is 1\.5, not a whole number"):
        cloud_units(VOLUME | {"size": 1.5})
    with pytest.raises(UnitsError, match=r"cru is 1\.5, not a whole number"):
        cloud_units(with_field(CUSTOM, "custom_size.cru", 1.5))
    assert cloud_units(with_field(CUSTOM, "custom_size.mru", 2)) == (0.5, 0.502, 0)


def test_a_custom_size_too_large_for_a_double_is_refused() -> None:
    with pytest.raises(UnitsError, match="too large"):
        cloud_units(with_field(CUSTOM, "custom_size.sru", 1e308))


@pytest.mark.parametrize("document", [None, [], "text", 5])
def test_what_is_no_document_is_refused(document: Any) -> None:
    with pytest.raises(UnitsError):
        cloud_units(document)


@settings(max_examples=500)
@given(documents)
def test_whatever_a_document_holds_gives_finite_units_or_a_reason_of_one_line(document: dict[str, Any]) -> None:
    outcome = units_or_reason(document)
    if isinstance(outcome, str):
        assert outcome.isprintable()
        assert 0 < len(outcome) < 200
    else:
        assert {type(number) for number in outcome} == {float}
        assert all(map(math.isfinite, outcome))


def test_an_integer_too_long_to_be_printed_is_refused() -> None:
    with pytest.raises(UnitsError, match="size does not fit an int64"):
        cloud_units(VOLUME | {"size": 10**5000})


def test_a_deeply_nested_document_is_refused_without_a_crash() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(UnitsError, match="size is of type list"):
        cloud_units(VOLUME | {"size": nested})
