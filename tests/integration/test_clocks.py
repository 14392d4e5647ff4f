"""This machine's clock and that of a real server."""

import json
import time

import pytest
from deadline import wait_until

from pool_daemon.cli import main
from pool_daemon.clock import SystemClock
from pool_daemon.errors import ExitCode, StoreUnavailableError
from pool_daemon.guards.clock_guard import compare
from pool_daemon.store.client import Database, ServerClock, connect


@pytest.fixture
def configured(command_environment: None, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    del command_environment
    return monkeypatch


async def test_a_server_on_this_machine_shows_this_machines_time(database: Database) -> None:
    comparison = await compare(ServerClock(database=database).now, SystemClock())
    # The server's answer has lost the fraction of its millisecond.
    assert abs(comparison.difference_seconds) <= comparison.uncertainty_seconds + 0.001


async def test_a_server_that_is_away_is_said_to_be() -> None:
    database = connect(uri="mongodb://127.0.0.1:9/", name="x", timeout_seconds=0.2)
    with pytest.raises(StoreUnavailableError, match="reading the server's clock"):
        await ServerClock(database=database).now()
    database.close()


def test_the_clock_that_never_steps_goes_as_fast_as_the_one_on_the_wall() -> None:
    clock = SystemClock()
    began_monotonic = clock.monotonic()
    before = clock.now() - began_monotonic
    wait_until(lambda: clock.monotonic() > began_monotonic + 0.05, within_seconds=5, what="some time to have passed")
    assert abs(clock.now() - clock.monotonic() - before) < 0.01


@pytest.mark.usefixtures("configured")
def test_the_command_shows_both_clocks_and_that_they_agree(capsys: pytest.CaptureFixture[str]) -> None:
    before = time.time()
    assert main(["clock"]) == ExitCode.OK
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["this machine", "database", "difference"]
    assert lines[2].endswith("at most 5 s is allowed: they agree")
    assert main(["clock", "--json"]) == ExitCode.OK
    told = json.loads(capsys.readouterr().out)
    assert told["verdict"] == "agree"
    assert abs(told["difference_seconds"]) < 1
    assert before - 1 < told["database_at"] < time.time() + 1


def test_the_command_fails_if_the_database_cannot_be_asked(configured: pytest.MonkeyPatch) -> None:
    configured.setenv("POOL_DAEMON_DATABASE__URI", "mongodb://127.0.0.1:9/")
    configured.setenv("POOL_DAEMON_DATABASE__TIMEOUT_SECONDS", "0.2")
    assert main(["clock"]) == ExitCode.UNAVAILABLE
