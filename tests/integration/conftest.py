"""What these tests share: an outside writer, the daemon's own connection, commands, and a server on its own."""

import os
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import pytest_asyncio
from arithmetic_model import Document
from explorer import Explorer
from pymongo import MongoClient

from pool_daemon.cli import main
from pool_daemon.embedded import EmbeddedMongod
from pool_daemon.errors import ExitCode
from pool_daemon.harness import environment
from pool_daemon.store.client import Database, connect


@pytest.fixture
def explorer(mongo: MongoClient[Document], database_name: str) -> Explorer:
    """Write to a fresh database as the explorer does."""
    return Explorer(database=mongo[database_name])


@pytest_asyncio.fixture
async def database(mongo_uri: str, database_name: str) -> AsyncIterator[Database]:
    """Connect to the same database as the daemon does."""
    database = connect(uri=mongo_uri, name=database_name)
    yield database
    database.close()


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
