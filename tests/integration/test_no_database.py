"""Commands whose database does not answer: each says so in time, whichever way the database is away."""

import re
import shlex
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from pool_daemon.cli import main
from pool_daemon.commands import COMMANDS
from pool_daemon.embedded.folder import claim
from pool_daemon.errors import ExitCode
from pool_daemon.harness import environment

LONGEST_SECONDS = 6
STAYING = {"run", "demo", "bench"}
"""Those that wait for their database, or bring it along."""

WITHOUT = {"status", "healthcheck", "check-config", "version", "completion"}
"""Those that need none."""


@contextmanager
def refusing() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    yield f"127.0.0.1:{port}"


@contextmanager
def silent() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def examples(command: str) -> list[str]:
    """Return an example of each action of a command as it is typed, without what the shell does with its output."""
    pattern = re.compile(rf"pool-daemon ({command}.*?)( [|>] |  |\)|$)")
    found = [pattern.search(each) for each in COMMANDS[command].load().EXAMPLES]
    lines = [re.sub(r" --config \S+", "", each[1]) for each in found if each is not None]
    return list({tuple(line.split()[:2]): line for line in lines if "--watch" not in line}.values())


def answered(line: str) -> tuple[str, int, float]:
    began = time.monotonic()
    code = main(shlex.split(line))
    return line, code, time.monotonic() - began


@pytest.mark.parametrize("away", [refusing, silent])
@pytest.mark.usefixtures("capfd")
def test_every_command_answers_within_six_seconds(
    away: Callable[[], AbstractContextManager[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [line for command in COMMANDS if command not in STAYING for line in examples(command)]
    with away() as address, ThreadPoolExecutor(len(lines)) as threads:
        settings = environment(DATABASE__URI=f"mongodb://{address}/?replicaSet=explorer", HTTP__PORT="1")
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        told = list(threads.map(answered, lines))
    assert [each for each in told if each[2] > LONGEST_SECONDS] == []
    unavailable = {line.split()[0] for line, code, _ in told if code == ExitCode.UNAVAILABLE}
    assert unavailable == set(COMMANDS) - STAYING - WITHOUT


def test_the_mongod_of_a_daemon_that_was_killed_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with refusing() as address:
        claim(tmp_path).publish(int(address.rpartition(":")[2]))
    for name, value in environment(EMBEDDED__FOLDER=str(tmp_path)).items():
        monkeypatch.setenv(name, value)
    assert main(["pools", "list"]) == ExitCode.UNAVAILABLE
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.endswith(": the daemon with this mongod was killed; start it again")
