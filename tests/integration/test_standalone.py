"""A server without transactions is refused at the start, and is an outage under a running daemon."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from daemon_process import Record, running_daemon
from deadline import wait_until
from explorer import CONTAINER, Explorer
from pymongo import MongoClient
from replica_set import EmbeddedReplicaSet

from pool_daemon.embedded import EmbeddedMongod
from pool_daemon.errors import ExitCode, StoreUnavailableError
from pool_daemon.harness import environment
from pool_daemon.store.client import connect


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def standalone_uri(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    async with EmbeddedMongod(folder=tmp_path_factory.mktemp("alone"), replica_set=None) as server:
        yield server.uri


@pytest.mark.parametrize("arguments", [(), ("--once",), ("--dry-run",), ("--once", "--dry-run")], ids=" ".join)
def test_a_standalone_server_is_refused_with_what_makes_it_a_replica_set(
    standalone_uri: str, arguments: tuple[str, ...]
) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "pool_daemon", "run", *arguments],
        env=environment(DATABASE__URI=standalone_uri),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert told.returncode == ExitCode.CONFIGURATION
    last = told.stderr.splitlines()[-1]
    assert "mongod --replSet rs0" in last
    assert "rs.initiate()" in last


class Server:
    """One folder and one port, served by a member of a replica set or by a standalone server in turn."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._runner = asyncio.Runner()
        self._port = 0
        self._mongod: EmbeddedMongod | None = None

    def serve(self, *, replica_set: str | None) -> str:
        """Serve as told from now on; return the address, which says nothing of replica sets."""
        self.stop()
        self._mongod = EmbeddedMongod(folder=self._folder, port=self._port, replica_set=replica_set)
        self._runner.run(self._mongod.start())
        self._port = self._mongod.port
        return self._mongod.uri

    def stop(self) -> None:
        if self._mongod is not None:
            self._runner.run(self._mongod.stop())

    def close(self) -> None:
        self.stop()
        self._runner.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.close()


def _lost_to_a_standalone(record: Record) -> bool:
    """Return whether the stream is refused by a server without one: the driver itself would never look again."""
    return record["event"] == "stream_lost" and "only supported on replica sets" in record["reason"]


def test_a_server_that_becomes_standalone_is_an_outage_and_its_return_ends_it(server: Server) -> None:
    uri = server.serve(replica_set="rs0")
    quick = {
        "STREAM__STALL_SECONDS": "1",
        "DATABASE__TIMEOUT_SECONDS": "2",
        "DATABASE__SERVER_SELECTION_SECONDS": "1",
    }
    with running_daemon(uri=uri.replace("replicaSet=rs0", ""), database_name="t", **quick) as daemon:
        daemon.wait_for_log(lambda record: record["event"] == "lease_acquired", within_seconds=30, what="a leader")
        server.serve(replica_set=None)
        daemon.wait_for_log(_lost_to_a_standalone, within_seconds=40, what="an outage")
        client: MongoClient[dict[str, Any]] = MongoClient(server.serve(replica_set="rs0"))
        with client:
            explorer = Explorer(database=client["t"])
            expired = explorer.buy_expired(CONTAINER)
            wait_until(
                lambda: explorer.next_actions(expired.workload_ids) == [4], within_seconds=40, what="the work to go on"
            )
        assert daemon.is_running


async def test_a_secondary_to_which_an_address_leads_directly_is_not_taken_for_a_primary(tmp_path: Path) -> None:
    async with EmbeddedReplicaSet(folder=tmp_path) as members:
        while True:
            primary = await members.primary()
            told = [(member is primary, await pinged(member.uri)) for member in members.members]
            if await members.primary() is primary:  # else there was an election meanwhile
                break
        for is_primary, reason in told:
            assert reason == "" if is_primary else "not primary" in reason


async def pinged(uri: str) -> str:
    """Return why the server at an address is not taken for a primary; nothing if it is."""
    database = connect(uri=uri, name="t")
    try:
        await database.ping()
    except StoreUnavailableError as error:
        return str(error)
    finally:
        database.close()
    return ""
