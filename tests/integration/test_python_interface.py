"""The interface for other programs: every name of the explorer's package, and the example, run as it stands."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from arithmetic_model import Rates
from explorer import CONTAINER, Explorer
from pymongo import MongoClient

from pool_daemon import capacity, store

MAP = Path(__file__).parents[2] / "pool_daemon/README.md"

FUNCTIONS = [
    "CapacityPoolCreate",
    "CapacityReservationCreate",
    "CapacityReservationGet",
    "GetExpiredPools",
    "GetNextExpiredPool",
    "GetPool",
    "GetPools",
    "GetPoolsByOwner",
    "Setup",
    "UpdatePool",
]
METHODS = {
    "Pool": ["AddCapacity", "AddWorkload", "AllowedInPool", "RemoveWorkload", "SyncCurrentCapacity"],
    "Reservation": ["Verify", "VerifyCustomerAndSponsor", "VerifySponsor"],
}
OTHERS = {
    "CapacityPoolCollection": (store, "CAPACITY_POOL_COLLECTION"),
    "CapacityReservationCollection": (store, "CAPACITY_RESERVATION_COLLECTION"),
    "ErrPoolNotFound": (store, "PoolNotFoundError"),
    "ErrReservationNotFound": (store, "ReservationNotFoundError"),
    "NewPool": (capacity, "new_pool"),
    "Pool": (capacity, "Pool"),
    "PoolResult": (store, "PoolResult"),
    "Reservation": (capacity, "Reservation"),
    "ReservationData": (capacity, "ReservationData"),
}


def snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def example() -> str:
    (program,) = re.findall(r"^```python\n(.*?)^```", MAP.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return str(program)


def test_every_function_has_its_name_in_the_store_and_takes_the_database_first() -> None:
    for name in FUNCTIONS:
        function: Any = getattr(store, snake(name))
        assert snake(name) in store.__all__
        assert function.__doc__
        assert next(iter(function.__annotations__)) == "database"


@pytest.mark.parametrize("type_name", METHODS)
def test_every_method_has_its_name_in_its_class(type_name: str) -> None:
    for name in METHODS[type_name]:
        assert getattr(getattr(capacity, type_name), snake(name)).__doc__


def test_every_type_constant_and_error_has_its_place() -> None:
    for module, name in OTHERS.values():
        assert name in module.__all__
        assert hasattr(module, name)
    assert store.CAPACITY_POOL_COLLECTION == "capacity-pools"
    assert store.CAPACITY_RESERVATION_COLLECTION == "capacity-reservations"


@pytest.mark.parametrize("module", [capacity, store])
def test_every_exported_name_is_there(module: Any) -> None:
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


def test_the_map_says_where_each_name_is() -> None:
    table = MAP.read_text(encoding="utf-8").partition("\n| there | here |\n")[2].partition("\n\n")[0]
    left, right = zip(*(row.strip("| ").split(" | ") for row in table.splitlines()[1:]), strict=True)
    there = re.findall(r"`(\w+)`", " ".join(left))
    here = {word.rpartition(".")[2] for word in re.findall(r"`([\w.]+)", " ".join(right))}
    methods = [name for names in METHODS.values() for name in names]
    assert sorted(there) == sorted([*FUNCTIONS, *methods, *OTHERS])
    assert here == {snake(name) for name in [*FUNCTIONS, *methods]} | {name for _, name in OTHERS.values()}


def test_the_example_runs_as_it_stands(mongo_uri: str, mongo: MongoClient[dict[str, Any]], database_name: str) -> None:
    explorer = Explorer(database=mongo[database_name])
    explorer.buy(Rates(cu=1e9), [CONTAINER])
    explorer.pools.insert_one({"_id": 3, "cus": "plenty"})
    program = example().replace('name="explorer"', f'name="{database_name}"')
    assert program != example()
    environment = os.environ | {"MONGODB_URI": mongo_uri}
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
    )
    assert run.returncode == 0, run.stderr
    pool = explorer.stored(explorer.pools, 1)
    assert pool["empty_at"] == pool["last_updated"] + 30 * 86_400
    lines = run.stdout.splitlines()
    assert lines[0].startswith("pool 1 lasts 2592")
    assert lines[1] == "1 2592000.0"
    assert lines[2].startswith("3 cus is ")
    assert lines[-2:] == ["next to run empty: 1", "another key: customer's signature does not hold"]
    assert explorer.database["capacity-reservations"].count_documents({}) == 1
    indexes = explorer.pools.index_information().values()
    assert {("customer_tid",), ("empty_at",)} <= {tuple(name for name, _ in each["key"]) for each in indexes}
