"""What the tests of faults share: a database of their own, the ledger that judges it, the network, and the figures.

How a fault is tested. The test writes to the database as the explorer does (`explorer`), runs the daemon as a
process on it (`daemon_process.running_daemon`, through `network` if the network is to suffer), injects the fault,
and lets the `ledger` count the violations from the server's own log of commits. It records its row (`figures`)
before it judges it:

    @pytest.mark.parametrize("pools", [100, pytest.param(20_000, marks=pytest.mark.faults)])
    def test_something_happens(pools, explorer, ledger, network, figures): ...
        violations = ledger.violations()
        figures.record(1, "something happens", trials=pools, violations=violations, figure="late by at most 12 ms")
        assert violations == []

What is marked `faults` runs with `pytest -m faults` only; plain `pytest` runs the small parametrisations, which are
not marked. With `--short` a small one is left out where a full one is selected, and `trials_of` cuts the longest of
these. Where the fault is a fail point of the server, see `fail_point`; where it is a member of a set of three,
see the fixture `three`.
"""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from arithmetic_model import Document
from explorer import Explorer
from faults.figures import Figures
from faults.proxy import Proxy
from faults.three_members import ThreeMembers
from faults.wall_clock import WallClock, compiled
from ledger import Ledger
from pymongo import MongoClient

from pool_daemon.embedded import EmbeddedMongod


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With `--short`, leave out the small sizes of tests of which `-m` has selected a full one, too."""
    if not config.getoption("--short"):
        return
    full = {function_of(item) for item in items if item.get_closest_marker("faults")}
    small = [item for item in items if not item.get_closest_marker("faults") and function_of(item) in full]
    config.hook.pytest_deselected(items=small)
    items[:] = [item for item in items if item not in small]


def function_of(item: pytest.Item) -> tuple[Path, str]:
    """Return the file and the name of a test, whatever its parameters."""
    return item.path, getattr(item, "originalname", item.name)


@pytest.fixture
def trials_of(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> Callable[[int], int]:
    """Cut a full number of trials to a quarter with `--short`; a small one is what it is."""
    is_cut = pytestconfig.getoption("--short") and request.node.get_closest_marker("faults")
    return lambda trials: trials // 4 if is_cut else trials


@pytest.fixture
def figures(record_property: Callable[[str, object], None]) -> Figures:
    """Record rows of the table that is printed at the end."""
    return Figures(record_property=record_property)


@pytest.fixture
def explorer(mongo: MongoClient[Document]) -> Iterator[Explorer]:
    """Write to a fresh database as the explorer does; it has the explorer's own indexes."""
    name = f"faults-{uuid4().hex[:8]}"
    explorer = Explorer(database=mongo[name])
    for field in ("pool_id", "next_action"):
        explorer.workloads.create_index(field)
    yield explorer
    mongo.drop_database(name)


@pytest.fixture
def ledger(mongo: MongoClient[Document], explorer: Explorer) -> Ledger:
    """Judge what is committed to the explorer's database from now on."""
    return Ledger(client=mongo, explorer=explorer)


@pytest.fixture
def chance(pytestconfig: pytest.Config) -> random.Random:
    """Draw at random, the same again with the `--randomly-seed` that pytest prints in its first lines."""
    return random.Random(pytestconfig.getoption("randomly_seed"))  # noqa: S311  # it aims, it keeps no secret


@pytest.fixture
def network(mongod: EmbeddedMongod) -> Iterator[Proxy]:
    """Stand between the daemon and the mongod."""
    with Proxy(uri=mongod.uri) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThreeMembers]:
    """Run a replica set of three."""
    with ThreeMembers(folder=tmp_path_factory.mktemp("three")) as members:
        yield members


@pytest.fixture
def wall_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WallClock:
    """Let the test's daemons see a wall clock of their own, which the test sets."""
    wall_clock = WallClock(folder=tmp_path, library=compiled(tmp_path))
    for name, value in wall_clock.environment.items():
        monkeypatch.setenv(name, value)
    return wall_clock
