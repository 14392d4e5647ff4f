"""The log goes into a pipe that nobody reads while pools run empty: what is told must delay nothing."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from explorer import Explorer
from faults.daemons import STORM
from faults.figures import Figures
from faults.pools import ids_of, overdue
from ledger import Ledger

from pool_daemon.harness import environment

DONE_SECONDS = 120
STOP_SECONDS = 30


@contextmanager
def daemon_with_unread_log(uri: str, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a daemon whose standard streams end in a pipe that is open and never read."""
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "pool_daemon", "run"],
        env=environment(DATABASE__URI=uri, DATABASE__NAME=name, **STORM),
        stdout=writer,
        stderr=writer,
    )
    os.close(writer)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        os.close(reader)


@pytest.mark.parametrize("pools", [500, pytest.param(30_000, marks=pytest.mark.faults)])
def test_46_a_log_that_nobody_reads_delays_nothing(
    pools: int,
    explorer: Explorer,
    ledger: Ledger,
    mongo_uri: str,
    trials_of: Callable[[int], int],
    figures: Figures,
) -> None:
    bought = overdue(explorer, trials_of(pools))
    with daemon_with_unread_log(mongo_uri, explorer.database.name) as process:
        explorer.wait_until_gone(ids_of(bought), within_seconds=DONE_SECONDS)
        process.send_signal(signal.SIGTERM)
        code = process.wait(STOP_SECONDS)
    violations = ledger.violations()
    figures.record(
        46,
        "log into a pipe that nobody reads",
        trials=len(bought),
        violations=violations,
        figure=f"all gone; stopped with exit code {code}",
    )
    assert violations == []
    assert code == 0
