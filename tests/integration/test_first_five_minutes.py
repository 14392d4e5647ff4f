"""The README's first five minutes, as they stand: a daemon without settings, whose mongod every command finds."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon_process import DaemonProcess, running_daemon
from deploy.files import README, section

from pool_daemon.errors import ExitCode
from pool_daemon.harness import environment

POOL_SECONDS = 30


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have no settings, and a home that nobody has used."""
    for name in ("STATE_DIRECTORY", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def blocks() -> list[list[str]]:
    text = section("### The first five minutes", README)
    return [block.splitlines() for block in re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)]


@pytest.fixture
def daemon(home: Path) -> Iterator[DaemonProcess]:
    del home
    with running_daemon(uri=None, database_name="explorer") as daemon:
        daemon.wait_for_log(lambda record: record["event"] == "expiry_active", within_seconds=60, what="it to act")
        yield daemon


def typed(line: str, home: Path) -> str:
    """Type a line in another terminal; return what it prints."""
    program, *arguments = shlex.split(line)
    assert program == "pool-daemon"
    run = subprocess.run(
        [sys.executable, "-m", "pool_daemon", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=home,
        env=environment(),
    )
    assert run.returncode == ExitCode.OK, run.stderr
    return run.stdout


@pytest.mark.timeout(240)
def test_a_pool_is_created_a_workload_put_in_and_its_end_watched_and_explained(
    blocks: list[list[str]], daemon: DaemonProcess, home: Path
) -> None:
    (run,), (create, add, show, explain) = blocks
    assert run == "pool-daemon run"
    assert typed(create, home).startswith(f"pool 1: done; it has {POOL_SECONDS} CU seconds and never runs empty")
    assert typed(add, home).startswith("workload 1 drains pool 1\n")
    shown = typed(show, home)
    assert re.search(r"^runs empty .*: compute first$", shown, re.MULTILINE)
    assert re.search(r"^ +1 container +deploy +1 +0 +0$", shown, re.MULTILINE)
    daemon.wait_for_log(
        lambda record: record["event"] == "workload_decommissioned",
        within_seconds=POOL_SECONDS + 30,
        what="the workload to go",
    )
    story = re.sub(r"\s+", " ", typed(explain, home))
    for part in ("created 1 CU for 30 s, n1", "workload_added container 1", "workload 1 decommissioned", "it adds up"):
        assert part in story
    assert "out of compute" in story
    assert daemon.said("workload_decommissioned")[0]["lateness_ms"] >= 0
    assert "workload_added container 1" in typed("pool-daemon events list --workload 1", home)
    assert "workload_added container 1" in re.sub(r"\s+", " ", typed("pool-daemon explain workload 1", home))
