"""One real mongod for the whole run, and a database of its own for every test that asks for one."""

import math
import os
import signal
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from faults.figures import PROPERTY, Figure, table_of, write_rows
from pymongo import MongoClient

from pool_daemon.embedded import EmbeddedMongod

# Started in the background, as CI may start them, the tests ignore SIGINT, and so would every process they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The processes that tests start run this folder's package, not an installed copy that an edit has not reached; for the
# tests themselves `pythonpath` in pyproject.toml sees to that.
FOLDER = str(Path(__file__).parent.parent)
os.environ["PYTHONPATH"] = os.pathsep.join(
    dict.fromkeys([FOLDER, *os.environ.get("PYTHONPATH", FOLDER).split(os.pathsep)])
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take the options of the fault suite: only here, above its folder, does pytest hear of them in time."""
    faults = parser.getgroup("faults", "the fault suite, see tests/faults/conftest.py")
    faults.addoption("--soak-seconds", type=int, default=600, help="how long soaks last (default: 600)")
    faults.addoption(
        "--short",
        action="store_true",
        help="leave out small sizes where the full one is selected, and cut the longest of those to a quarter",
    )
    parser.addoption(
        "--mongod", type=Path, metavar="PROGRAM", help="run on this mongod (default: the installed wheel's)"
    )
    faults.addoption(
        "--faults-table",
        type=Path,
        metavar="FILE",
        help="write the rows into the table of this Markdown file, too; tests/faults/README.md is the published one",
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put first the files whose tests may take longest, by their time-outs, and last the unit tests.

    A worker takes file by file, so what is long at the end keeps the others waiting.
    """
    longest: defaultdict[Path, float] = defaultdict(float)
    for item in items:
        for marker in item.iter_markers("timeout"):
            longest[item.path] = max(longest[item.path], marker.args[0] or math.inf)
    items.sort(key=lambda item: ("unit" in item.path.parts, -longest[item.path]))


def pytest_configure(config: pytest.Config) -> None:
    """Keep the published table to full sizes."""
    if config.getoption("--short") and config.getoption("--faults-table"):
        raise pytest.UsageError("--faults-table publishes full sizes: leave --short out")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def mongod(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> AsyncIterator[EmbeddedMongod]:
    # Test commands give fail points to the tests of faults. The loop of this fixture rests while tests run on theirs.
    # Every five minutes the server would write down its sessions: `writes` in test_dry_run counts every write there is.
    options = ["--setParameter=enableTestCommands=1", "--setParameter=disableLogicalSessionCacheRefresh=1"]
    folder, program = tmp_path_factory.mktemp("mongod"), pytestconfig.getoption("--mongod")
    async with EmbeddedMongod(folder=folder, mongod=program, options=options) as server:
        yield server


@pytest.fixture(scope="session")
def mongo_uri(mongod: EmbeddedMongod) -> str:
    return mongod.uri


@pytest.fixture(scope="session")
def mongo(mongo_uri: str) -> Iterator[MongoClient[dict[str, Any]]]:
    """Connect from outside the daemon, as the explorer and the nodes do."""
    client: MongoClient[dict[str, Any]] = MongoClient(mongo_uri)
    with client:
        yield client


@pytest.fixture
def database_name(mongo: MongoClient[dict[str, Any]]) -> Iterator[str]:
    name = f"test-{uuid.uuid4().hex[:12]}"
    yield name
    mongo.drop_database(name)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the figures that tests have recorded, whichever process they ran in, and the table of the faults."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    recorded = [each for report in reports for each in report.user_properties]
    figures = [each for each in recorded if each[0] != PROPERTY]
    if figures:
        terminalreporter.section("figures")
    for name, figure in figures:
        terminalreporter.write_line(f"{name}: {figure}")
    if faults := [Figure(*row) for name, row in recorded if name == PROPERTY]:
        terminalreporter.section("faults")
        terminalreporter.write_line(table_of(faults))
        if path := config.getoption("--faults-table"):
            write_rows(path, faults)
