"""What these tests share: an outside writer, a ledger, one daemon for a module, commands, and a server on its own."""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from uuid import uuid4

import pytest
import pytest_asyncio
from arithmetic_model import Document
from daemon_process import DaemonProcess, running_daemon
from explorer import Explorer
from ledger import Ledger
from pymongo import MongoClient

from pool_daemon.cli import main
from pool_daemon.embedded import EmbeddedMongod
from pool_daemon.errors import ExitCode
from pool_daemon.harness import environment


@pytest.fixture(scope="module")
def explorer(mongo: MongoClient[Document]) -> Iterator[Explorer]:
    """Write to a fresh database as the explorer does."""
    name = f"black-box-{uuid4().hex[:8]}"
    yield Explorer(database=mongo[name])
    mongo.drop_database(name)


@pytest.fixture(scope="module")
def ledger(mongo: MongoClient[Document], explorer: Explorer) -> Ledger:
    """Judge what is committed to the explorer's database from now on."""
    return Ledger(client=mongo, explorer=explorer)


@pytest.fixture(scope="module")
def daemon_settings() -> dict[str, str]:
    """Set nothing; a module that means the daemon to run otherwise has a fixture of its own."""
    return {}


@pytest.fixture(scope="module")
def daemon(
    mongo_uri: str, explorer: Explorer, ledger: Ledger, daemon_settings: dict[str, str]
) -> Iterator[DaemonProcess]:
    """Run one daemon for the whole module; at its end no workload may be lost or gone too early."""
    with running_daemon(uri=mongo_uri, database_name=explorer.database.name, **daemon_settings) as daemon:
        ledger.settle()
        yield daemon
    assert ledger.violations_of_i1() == []
    assert ledger.violations_of_i2() == []


@pytest.fixture
def command_environment(mongo_uri: str, database_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lead the commands that run in this process to the test's database, with no setting but the default ones."""
    wanted = environment(DATABASE__URI=mongo_uri, DATABASE__NAME=database_name)
    for name in os.environ.keys() - wanted.keys():
        monkeypatch.delenv(name)
    for name, value in wanted.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def run_command(command_environment: None, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """Run a command in this process: check its exit code and its standard error, return the lines of its output."""
    del command_environment

    def run_command(*words: str, code: ExitCode = ExitCode.OK, error: str = "") -> list[str]:
        assert main(words) == code
        shown = capsys.readouterr()
        assert shown.err == error
        return shown.out.splitlines()

    return run_command


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def standalone(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedMongod]:
    """Run a server that is no member of a replica set: without transactions and change streams."""
    folder = tmp_path_factory.mktemp("standalone")
    options = ("--setParameter", "enableTestCommands=1")
    async with EmbeddedMongod(folder=folder, replica_set=None, options=options) as server:
        yield server


@pytest.fixture
def lone_client(standalone: EmbeddedMongod) -> Iterator[MongoClient[Document]]:
    """Connect to that server."""
    client: MongoClient[Document] = MongoClient(standalone.uri)
    with client:
        yield client


@pytest.fixture
def lone_explorer(lone_client: MongoClient[Document], database_name: str) -> Explorer:
    """Write to a fresh database there as the explorer does."""
    return Explorer(database=lone_client[database_name])
