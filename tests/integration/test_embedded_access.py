"""Who may use the embedded mongod: its owner, by a password that nobody else sees, from its first moment on."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from addresses import as_stranger
from daemon_process import running_daemon
from endpoint import Endpoint
from explorer import CONTAINER, Explorer
from pymongo import AsyncMongoClient, MongoClient
from pymongo.errors import OperationFailure

from pool_daemon.embedded import EmbeddedMongod, address_of_running, find_mongod
from pool_daemon.embedded.folder import KEY_FILE, PASSWORD_FILE, PORT_FILE, claim
from pool_daemon.embedded.process import MongodProcess
from pool_daemon.embedded.server import become_primary
from pool_daemon.errors import EmbeddedError, ExitCode
from pool_daemon.harness import environment

SECRETS = (PASSWORD_FILE, KEY_FILE)
UNAUTHORIZED = 13
PATHS = ("/", "/livez", "/metrics", "/readyz", "/startupz", "/statusz")

FIRST_USER = {"createUser": "first", "pwd": "mine", "roles": ["root"]}
COMMANDS: list[dict[str, Any]] = [
    FIRST_USER,
    *({name: 1} for name in ("getCmdLineOpts", "listDatabases", "replSetGetStatus", "serverStatus", "shutdown")),
    {"find": "capacity-pools"},
    {"insert": "workload", "documents": [{"_id": 1}]},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@asynccontextmanager
async def launched(folder: Path, *options: str) -> AsyncIterator[MongodProcess]:
    """Run a mongod on the folder as it is, with no user made; it is killed at the end."""
    server = EmbeddedMongod(folder=folder)
    port = server._ports()[0]
    options = ("--replSet=pool-daemon", *options)
    process = await MongodProcess.launch(binary=find_mongod(), folder=folder, port=port, options=options)
    try:
        await process.until(process.listening)
        yield process
    finally:
        await process.kill()


async def make_without_password(folder: Path) -> None:
    """Make a folder as it was made before there were passwords, with a pool in it."""
    await asyncio.to_thread(folder.mkdir, mode=0o755)
    async with launched(folder) as process:
        host = f"127.0.0.1:{process.port}"
        async with AsyncMongoClient[dict[str, Any]](host, directConnection=True) as client:

            async def primary() -> bool:
                return await become_primary(client, host=host, replica_set="pool-daemon")

            await process.until(primary)
            await client["explorer"]["capacity-pools"].insert_one({"_id": 7})


def pools_in(uri: str) -> list[int]:
    with MongoClient[dict[str, Any]](uri) as client:
        return [pool["_id"] for pool in client["explorer"]["capacity-pools"].find()]


def assert_closed(uri: str, *commands: dict[str, Any]) -> None:
    """See that somebody without the password is told hello, and refused everything else."""
    with MongoClient[dict[str, Any]](as_stranger(uri), directConnection=True) as stranger:
        assert stranger.admin.command("hello")["ok"] == 1
        for command in commands or COMMANDS:
            with pytest.raises(OperationFailure) as refused:
                stranger.admin.command(command)
            assert refused.value.code == UNAUTHORIZED


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: next(iter(command)))
def test_a_stranger_is_told_hello_and_nothing_else(mongo_uri: str, command: dict[str, Any]) -> None:
    assert_closed(mongo_uri, command)


@pytest.mark.parametrize("replica_set", ["pool-daemon", None])
async def test_a_server_that_stands_alone_asks_for_the_password_too(folder: Path, replica_set: str | None) -> None:
    async with EmbeddedMongod(folder=folder, replica_set=replica_set) as server:
        assert_closed(server.uri)
        assert pools_in(server.uri) == []


async def test_nobody_becomes_the_first_user_before_its_owner_does(folder: Path) -> None:
    access = claim(folder)
    async with launched(folder, *access.options) as process:
        assert_closed(f"mongodb://127.0.0.1:{process.port}", FIRST_USER)


async def test_what_holds_a_secret_is_for_its_owner_alone_even_if_it_was_not(folder: Path) -> None:
    async with EmbeddedMongod(folder=folder) as server:
        uri = server.uri
    secrets = [folder / name for name in SECRETS]
    before = [path.read_bytes() for path in secrets]
    await asyncio.to_thread(folder.chmod, 0o755)
    for path in secrets:
        await asyncio.to_thread(path.chmod, 0o644)
    async with EmbeddedMongod(folder=folder, port=server.port) as server:
        assert server.uri == uri
        assert mode(folder) == 0o700
        assert [mode(path) for path in (*secrets, folder / PORT_FILE)] == [0o600] * 3
    assert [path.read_bytes() for path in secrets] == before


async def test_two_folders_have_different_secrets(tmp_path: Path) -> None:
    first, second = (claim(tmp_path / name) for name in ("first", "second"))
    assert len({first.password, first.key, second.password, second.key}) == 4


async def test_a_folder_made_without_a_password_keeps_its_data_and_asks_for_one(folder: Path) -> None:
    await make_without_password(folder)
    async with EmbeddedMongod(folder=folder) as server:
        assert pools_in(server.uri) == [7]
        assert_closed(server.uri)
        assert mode(folder) == 0o700


def _launched(folder: Path) -> bool:
    return (folder / "mongod.lock").stat().st_size > 0


def _listening(folder: Path) -> bool:
    return b"aiting for connections" in (folder / "mongod.log").read_bytes()


def _user_made(folder: Path) -> bool:
    return b"createUser" in (folder / "mongod.log").read_bytes()


@pytest.mark.parametrize("reached", [_launched, _listening, _user_made])
async def test_an_upgrade_that_is_killed_is_finished_by_the_next_start(
    folder: Path, reached: Callable[[Path], bool]
) -> None:
    await make_without_password(folder)
    for name in ("mongod.lock", "mongod.log"):
        (folder / name).write_bytes(b"")  # of the process before
    server = EmbeddedMongod(folder=folder, options=["--slowms=0"])  # each command is logged
    start = asyncio.create_task(server.start())
    async with asyncio.timeout(30):
        while not (_launched(folder) and reached(folder)):  # noqa: ASYNC110 - another process sets no event
            await asyncio.sleep(0.002)
    os.kill(int((folder / "mongod.lock").read_text()), signal.SIGKILL)
    with suppress(EmbeddedError):  # it had just started, or not
        await start
        await server.wait()
    async with EmbeddedMongod(folder=folder) as server:
        assert pools_in(server.uri) == [7]
        assert_closed(server.uri)


async def test_a_password_that_was_lost_is_replaced(folder: Path) -> None:
    async with EmbeddedMongod(folder=folder) as server:
        lost = server.uri
        with MongoClient[dict[str, Any]](server.uri) as client:
            client["explorer"]["capacity-pools"].insert_one({"_id": 7})
    for name in SECRETS:
        (folder / name).unlink()
    async with EmbeddedMongod(folder=folder, port=server.port) as server:
        assert pools_in(server.uri) == [7]
        with pytest.raises(OperationFailure, match="Authentication failed"):
            pools_in(lost)


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("left", [None, b"", b"torn off", b"\xff\xfe\n"], ids=["missing", "empty", "torn", "garbage"])
def test_a_secret_that_a_crash_has_spoilt_is_made_anew_and_the_other_kept(
    folder: Path, name: str, left: bytes | None
) -> None:
    before = claim(folder)
    (folder / name).unlink()
    (folder / f"{name}.new").write_bytes(b"half of")
    if left is not None:
        (folder / name).write_bytes(left)
    access = claim(folder)
    assert (access.password == before.password, access.key == before.key) == (name == KEY_FILE, name == PASSWORD_FILE)
    assert (folder / name).read_text() in (access.password, access.key)
    assert (folder / name).read_bytes() != left
    assert mode(folder / name) == 0o600


def test_a_password_written_by_hand_may_end_its_line(folder: Path) -> None:
    before = claim(folder)
    (folder / PASSWORD_FILE).write_text(f"{before.password}\n")
    assert claim(folder) == before


async def test_commands_find_a_server_while_it_runs(folder: Path) -> None:
    assert address_of_running(folder) is None
    async with EmbeddedMongod(folder=folder) as server:
        found = address_of_running(folder)
        assert found is not None
        assert pools_in(found) == pools_in(server.uri) == []
    assert address_of_running(folder) is None


def test_a_daemon_on_its_own_mongod_keeps_the_password_to_itself_and_its_commands(folder: Path) -> None:
    settings = {"EMBEDDED__FOLDER": str(folder), "LOG__LEVEL": "debug"}

    def ask(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pool_daemon", *words]
        environ = environment(**settings)
        return subprocess.run(command, env=environ, text=True, capture_output=True, check=False, timeout=60)

    with running_daemon(uri=None, database_name="explorer", **settings) as daemon:
        endpoint = Endpoint(daemon)
        endpoint.wait_for("/readyz", 200)
        uri = address_of_running(folder)
        assert uri is not None
        with MongoClient[dict[str, Any]](uri) as client:
            explorer = Explorer(database=client["explorer"])
            pool = explorer.buy_expired(CONTAINER)
            explorer.wait_until_gone(pool.workload_ids, within_seconds=10)
        listed = ask("pools", "list", "--json")
        assert json.loads(listed.stdout.splitlines()[0])["pool_id"] == pool.pool_id
        asked = [ask("brake", "status"), ask("quarantine", "list"), ask("clock"), ask("check-config")]
        assert [each.returncode for each in (listed, *asked)] == [ExitCode.OK] * 5, asked
        told = [*(endpoint.ask(path)[1] for path in PATHS), *(each.stdout + each.stderr for each in asked)]
        told += [command_line.read_text() for command_line in _command_lines()]
    told += [(folder / name).read_text() for name in ("mongod.log",)] + daemon.log_lines()
    for secret in SECRETS:
        assert not any((folder / secret).read_text() in text for text in told)
    nobody = ask("pools", "list")
    assert nobody.returncode == ExitCode.CONFIGURATION
    assert f"no daemon runs a mongod of its own in {folder}" in nobody.stderr


def _command_lines() -> list[Path]:
    return [path for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]


def test_a_folder_that_cannot_be_read_is_said_with_the_remedy(folder: Path) -> None:
    folder.write_text("no folder at all")
    command = [sys.executable, "-m", "pool_daemon", "pools", "list"]
    asked = subprocess.run(
        command, env=environment(EMBEDDED__FOLDER=str(folder)), text=True, capture_output=True, check=False
    )
    assert asked.returncode == ExitCode.CONFIGURATION
    assert "embedded.folder: " in asked.stderr
    assert "as the user that the daemon runs as" in asked.stderr


def test_no_option_of_the_server_holds_a_secret(folder: Path) -> None:
    access = claim(folder)
    assert not any(secret in option for option in access.options for secret in (access.password, access.key))
