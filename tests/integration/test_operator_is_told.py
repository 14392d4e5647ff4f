"""What the operator is told, and that telling it delays nothing: exit codes, last lines, a taken port, unread logs."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from arithmetic_model import Document, Rates
from bson import Int64
from daemon_process import DaemonProcess, running_daemon
from deadline import wait_until
from endpoint import Endpoint
from explorer import CONTAINER, YEAR_SECONDS, Explorer
from pymongo import MongoClient

from pool_daemon.errors import ExitCode
from pool_daemon.harness import environment

GONE_SECONDS = 20
STOP_SECONDS = 20


def once(uri: str, explorer: Explorer, *arguments: str, code: int = 1) -> DaemonProcess:
    """Make a single pass that must end with that exit code."""
    with DaemonProcess("--once", *arguments, uri=uri, database_name=explorer.database.name) as daemon:
        daemon.wait_for_exit(code=code)
    return daemon


def put_into_quarantine(explorer: Explorer, pool_id: int) -> None:
    now = datetime.now(UTC)
    explorer.database["pool-daemon-quarantine"].insert_one(
        {
            "_id": Int64(pool_id),
            "reason": "a test",
            "tries": 5,
            "first_failed_at": now,
            "next_try_at": now + timedelta(hours=1),
            "by": "a test",
        }
    )


def test_one_pass_names_the_pools_in_quarantine_that_it_left(explorer: Explorer, mongo_uri: str) -> None:
    for _ in range(3):
        put_into_quarantine(explorer, explorer.buy_expired(CONTAINER).pool_id)
    explorer.buy_expired(CONTAINER)
    [left] = once(mongo_uri, explorer).said("left_undone")
    assert (left["quarantined"], left["level"]) == (3, "error")
    assert explorer.running() == 3


def test_one_pass_names_the_documents_that_it_could_not_read(explorer: Explorer, mongo_uri: str) -> None:
    explorer.buy_expired(CONTAINER, cus="lots")
    [left] = once(mongo_uri, explorer).said("left_undone")
    assert left["unreadable"] == 1


def test_a_dry_pass_tells_what_is_in_quarantine_and_lets_it_be(explorer: Explorer, mongo_uri: str) -> None:
    put_into_quarantine(explorer, explorer.buy_expired(CONTAINER).pool_id)
    daemon = once(mongo_uri, explorer, "--dry-run")
    assert daemon.said("left_undone")[0]["quarantined"] == 1
    assert daemon.said("workload_would_be_decommissioned") == []


def test_one_pass_that_all_pools_failed_alike_names_the_cause(explorer: Explorer, mongo_uri: str) -> None:
    explorer.database.create_collection("workqueue", validator={"never": {"$exists": True}})
    for _ in range(3):
        explorer.buy_expired(CONTAINER)
    [left] = once(mongo_uri, explorer).said("left_undone")
    assert "Document failed validation" in left["failure"]


def test_one_pass_names_the_pools_that_another_transaction_has_locked(
    explorer: Explorer, mongo_uri: str, mongo: MongoClient[Document]
) -> None:
    locked, free = explorer.buy_expired(CONTAINER), explorer.buy_expired(CONTAINER)
    with mongo.start_session() as session, session.start_transaction():
        explorer.pools.update_one({"_id": locked.pool_id}, {"$set": {"x_note": 1}}, session=session)
        [left] = once(mongo_uri, explorer).said("left_undone")
        session.abort_transaction()
    assert left["locked"] == 1
    assert explorer.next_actions([*locked.workload_ids, *free.workload_ids]) == [3, 4]


def test_one_pass_that_leaves_nothing_ends_well(explorer: Explorer, mongo_uri: str) -> None:
    explorer.buy_expired(CONTAINER)
    assert once(mongo_uri, explorer, code=0).said("left_undone") == []


def test_one_pass_settles_many_overdue_pools_that_are_a_small_share(explorer: Explorer, mongo_uri: str) -> None:
    """The brake counts them twice before it lets them go."""
    explorer.create(
        [explorer.draft(Rates(cu=YEAR_SECONDS), [CONTAINER], customer_tid=Int64(owner)) for owner in range(1, 40)]
    )
    for owner in range(1, 5):
        explorer.buy_expired(CONTAINER, customer_tid=Int64(owner))
    settings = {"BRAKE__MIN_POOLS": "2", "BRAKE__PER_OWNER": "1"}
    with DaemonProcess("--once", uri=mongo_uri, database_name=explorer.database.name, **settings) as daemon:
        daemon.wait_for_exit(code=0)
    assert explorer.running() == 39


@pytest.mark.parametrize("arguments", [["--once"], ["--once", "--dry-run"]], ids=" ".join)
def test_one_pass_over_a_database_without_pools_says_that_its_name_is_wrong(
    arguments: list[str], mongo: MongoClient[Document], mongo_uri: str, database_name: str
) -> None:
    with DaemonProcess(*arguments, uri=mongo_uri, database_name=database_name) as daemon:
        daemon.wait_for_exit(code=ExitCode.CONFIGURATION)
    [fatal] = daemon.said("fatal")
    assert fatal["reason"].startswith(f"database.name: the database {database_name} has no collection capacity-pools")
    assert mongo[database_name].list_collection_names() == []


def test_a_daemon_on_a_database_without_pools_warns_and_goes_on(
    mongo: MongoClient[Document], mongo_uri: str, database_name: str
) -> None:
    with running_daemon(uri=mongo_uri, database_name=database_name) as daemon:
        daemon.wait_for_log(
            lambda record: record["event"] == "database_without_pools", within_seconds=20, what="a warning"
        )
        explorer = Explorer(database=mongo[database_name])
        explorer.wait_until_gone(explorer.buy_expired(CONTAINER).workload_ids, within_seconds=20)


@pytest.mark.parametrize("form", ["json", "console"])
def test_an_unexpected_error_in_the_settings_ends_in_one_line_and_its_exit_code(form: str) -> None:
    program = (
        "import sys; from pool_daemon.process import serve\n"
        "def load(): raise MemoryError('no room\\nfor a second line of mongodb://u:hunter2@db')\n"
        "sys.exit(serve(load))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env=environment() | {"POOL_DAEMON_LOG__FORMAT": form},
        text=True,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == ExitCode.INTERNAL
    [line] = ended.stderr.splitlines()
    assert "the settings could not be read: MemoryError: no room for a second line" in line
    assert "hunter2" not in line


def test_too_few_open_files_are_refused_with_the_number_that_is_needed() -> None:
    ended = run_with_files(soft=26, hard=26)
    assert ended.returncode == ExitCode.CONFIGURATION
    line = json.loads(ended.stderr.splitlines()[-1])
    assert line["event"] == "fatal"
    assert line["reason"].startswith("this process may open 26 files, and needs at least 64: raise LimitNOFILE=")


def test_a_limit_of_open_files_that_may_be_raised_is_raised(explorer: Explorer, mongo_uri: str) -> None:
    explorer.buy_expired(CONTAINER)
    settings = {"DATABASE__URI": mongo_uri, "DATABASE__NAME": explorer.database.name}
    ended = run_with_files("--once", soft=12, hard=1024, **settings)
    assert ended.returncode == ExitCode.OK, ended.stderr


def run_with_files(*arguments: str, soft: int, hard: int, **settings: str) -> subprocess.CompletedProcess[str]:
    command = ["prlimit", f"--nofile={soft}:{hard}", sys.executable, "-m", "pool_daemon", "run", *arguments]
    return subprocess.run(command, env=environment(**settings), text=True, capture_output=True, check=False, timeout=60)


def test_a_dry_pass_counts_nothing_as_decommissioned(explorer: Explorer, mongo_uri: str) -> None:
    explorer.buy_expired(CONTAINER, CONTAINER)
    [completed] = once(mongo_uri, explorer, "--dry-run", code=0).said("pass_completed")
    assert completed["would_decommission"] == 2
    assert "decommissioned" not in completed


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"DATABASE__URI": "nonsense"}, "database.uri"),
        ({"DATABASE__URI": "mongodb://127.0.0.1:9/", "EXPIRY__DRAIN_SECONDS": "long"}, "expiry.drain_seconds"),
    ],
)
def test_the_last_line_before_a_fatal_exit_is_json_and_has_its_priority(
    settings: dict[str, str], named: str, tmp_path: Path
) -> None:
    with (tmp_path / "journal").open("w+") as journal:
        status = os.fstat(journal.fileno())
        ended = subprocess.run(
            [sys.executable, "-m", "pool_daemon", "run"],
            env=environment(**settings) | {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"},
            stderr=journal,
            check=False,
            timeout=60,
        )
        journal.seek(0)
        last = journal.read().splitlines()[-1]
    assert ended.returncode == ExitCode.CONFIGURATION
    assert last.startswith("<2>{")
    line = json.loads(last.removeprefix("<2>"))
    assert (line["level"], line["event"], line["exit_code"]) == ("critical", "fatal", 78)
    assert named in line["reason"]


def test_a_port_that_is_taken_ends_nothing_and_is_used_once_it_is_free(explorer: Explorer, mongo_uri: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with running_daemon(uri=mongo_uri, database_name=explorer.database.name, HTTP__PORT=str(port)) as daemon:
            pool = explorer.buy(Rates(cu=2.5), [CONTAINER])
            explorer.wait_until_gone(pool.workload_ids, within_seconds=GONE_SECONDS)
            [told] = daemon.said("http_unavailable")
            assert told["reason"].startswith(f"http.port: {port} is in use on 127.0.0.1")
            taken.close()
            Endpoint(daemon).wait_for("/readyz", 200)


@pytest.fixture
def unread() -> Iterator[int]:
    """Give the writing end of a pipe that is full: nobody reads the other end."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b"\n" * 4096)
    except BlockingIOError:
        os.set_blocking(writer, True)
    yield writer
    os.close(reader)
    os.close(writer)


def run_with(settings: dict[str, str], **streams: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "pool_daemon", "run"], env=environment(**settings), **streams)


def ends_well(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        assert process.wait(STOP_SECONDS) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("how", ["full", "left", "closed"])
def test_a_log_that_nobody_reads_delays_nothing_and_changes_no_exit_code(
    how: str, explorer: Explorer, mongo_uri: str, unread: int
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {
        "DATABASE__URI": mongo_uri,
        "DATABASE__NAME": explorer.database.name,
        "HTTP__PORT": str(port),
        "LOG__LEVEL": "debug",
    }
    explorer.buy(Rates(cu=YEAR_SECONDS), [CONTAINER])
    pool = explorer.buy(Rates(cu=5), [CONTAINER])
    if how == "full":
        process = run_with(settings, stdout=unread, stderr=unread)
    elif how == "left":
        reader, writer = os.pipe()
        process = run_with(settings, stdout=writer, stderr=writer)
        os.close(writer)
        os.close(reader)
    else:
        process = subprocess.Popen(
            ["/bin/sh", "-c", f"exec {sys.executable} -m pool_daemon run <&- >&- 2>&-"], env=environment(**settings)
        )
    try:
        explorer.wait_until_gone(pool.workload_ids, within_seconds=GONE_SECONDS)
        endpoint = Endpoint.at(port)
        endpoint.wait_for("/readyz", 200)
        if how != "full":  # what waits in front of a full pipe is not lost yet
            wait_until(lambda: endpoint.sample("log_lines_dropped_total"), within_seconds=5, what="lines counted")
    finally:
        ends_well(process)
