"""A workload as it is typed: what it drains, and what is refused with the form that is understood."""

import argparse
from typing import Any

import pytest
from bson import Int64

from pool_daemon.capacity.pool import new_pool
from pool_daemon.capacity.workload import FREE_TYPES, WorkloadType, cloud_units
from pool_daemon.cli import main
from pool_daemon.commands.workloads import FORMS, workload
from pool_daemon.errors import ExitCode
from pool_daemon.store.codec import workload_to_document


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("container:cpu=2,memory=4096", (1, 0, 0)),
        ("container:memory=8192,cpu=4,disk=153600", (2, 0.333, 0)),
        ("container:cpu=4,memory=8192,disk=112640,disk_type=hdd", (2, 0.05, 0)),
        ("volume:size=300", (0, 1, 0)),
        ("volume:size=1200,disk_type=hdd", (0, 1, 0)),
        ("zdb:size=600,disk_type=ssd", (0, 2, 0)),
        ("kubernetes:size=2", (1, 0.333, 0)),
        ("virtual_machine:size=18", (0.25, 0.083, 0)),
        ("virtual_machine:cru=8,mru=8,sru=30", (2, 0.1, 0)),
        ("public_ip", (0, 0, 1)),
        ("proxy", (0, 0, 0)),
    ],
)
def test_a_workload_drains_what_its_type_and_sizes_say(text: str, units: tuple[float, float, float]) -> None:
    assert tuple(cloud_units(workload(text))) == units


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "must be one of container, volume, zdb,"),
        ("containers:cpu=2,memory=4096", "must be one of "),
        ("network", "must be one of "),
        ("container", r"must be container:cpu=CORES,memory=MIB\[,disk=MIB\]\[,disk_type=ssd\|hdd\]"),
        ("container:cpu=2", "must be container:"),
        ("container:cpu=2,memory=4GiB", "must be container:"),
        ("container:cpu=2,memory=-1", "must be container:"),
        ("container:cpu=2,memory=4096,size=7", "must be container:"),
        ("container:cpu=2,memory=4096,disk_type=tape", "must be container:"),
        ("volume:size=100,", "must be volume:"),
        ("virtual_machine:size=19", "size 19 is unknown"),
        ("virtual_machine:cru=2", "must be virtual_machine:cru=CORES,mru=GIB,sru=GIB"),
        ("kubernetes", "must be kubernetes:size=1..18 or kubernetes:cru=CORES,mru=GIB,sru=GIB"),
        ("public_ip:size=1", "must be public_ip$"),
    ],
)
def test_anything_else_is_refused_with_the_form_that_is_understood(text: str, reason: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=reason):
        workload(text)


def test_every_type_that_has_units_can_be_typed() -> None:
    free = {WorkloadType(kind) for kind in FREE_TYPES}
    assert set(FORMS) == set(WorkloadType) - {WorkloadType.NETWORK}
    assert free < set(FORMS)


def test_a_document_has_the_explorer_s_types() -> None:
    pool = new_pool(17, 7, 0, ["n1"], now=0)
    document = workload_to_document(5, pool, "n1", workload("container:cpu=2,memory=4096"))
    types: dict[str, Any] = {name: type(value) for name, value in document.items()}
    assert types == {
        "_id": Int64,
        "workload_id": Int64,
        "node_id": str,
        "pool_id": Int64,
        "customer_tid": Int64,
        "next_action": int,
        "workload_type": int,
        "capcity": dict,
    }
    assert {name: type(value) for name, value in document["capcity"].items()} == {
        "cpu": Int64,
        "memory": Int64,
        "disk_size": Int64,
        "disk_type": int,
    }


def test_a_database_that_may_be_an_explorer_s_is_not_written_to(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POOL_DAEMON_DATABASE__URI", "mongodb://127.0.0.1:1/?replicaSet=explorer")
    assert main(["workloads", "add", "--pool", "17", "public_ip"]) == ExitCode.FAILED
    assert "workloads come from there" in capsys.readouterr().err
