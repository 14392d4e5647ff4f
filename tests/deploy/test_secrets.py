"""The address of MongoDB holds a password: the daemon keeps it to itself, whatever it is asked and however it ends."""

import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from addresses import as_user
from arithmetic_model import Document
from daemon_process import DaemonProcess
from explorer import CONTAINER, Explorer
from pymongo import MongoClient

from pool_daemon.harness import environment

PASSWORD = "correct-horse-battery"  # noqa: S105 - it is what must not be seen
PATHS = ("/", "/livez", "/metrics", "/readyz", "/startupz", "/statusz")
TALKATIVE = {"LOG__LEVEL": "debug", "HTTP__PORT": "0", "DATABASE__SERVER_SELECTION_SECONDS": "0.5"}
START_SECONDS = 15


@pytest.fixture
def uri(mongo_uri: str, mongo: MongoClient[Document], explorer: Explorer) -> Iterator[str]:
    """Where the daemon finds MongoDB, as a user of its own with that password."""
    name = explorer.database.name
    mongo[name].command("createUser", "teller", pwd=PASSWORD, roles=["readWrite"])
    yield as_user(mongo_uri, "teller", PASSWORD, database=name)
    mongo[name].command("dropUser", "teller")


def test_a_daemon_at_work_never_tells_and_neither_does_its_stack(
    uri: str, explorer: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONFAULTHANDLER", "1")
    pool = explorer.buy_expired(CONTAINER)
    with DaemonProcess(uri=uri, database_name=explorer.database.name, **TALKATIVE) as daemon:
        explorer.wait_until_gone(pool.workload_ids, within_seconds=START_SECONDS)
        answers = _answers(daemon)
        daemon.process.send_signal(signal.SIGABRT)
        daemon.wait_for_exit(code=-signal.SIGABRT)

    assert any("Fatal Python error" in line for line in daemon.unreadable_lines)
    _assert_untold(*answers, *daemon.log_lines())


def test_a_daemon_that_is_refused_never_tells(uri: str, explorer: Explorer) -> None:
    wrong = uri.replace(PASSWORD, f"{PASSWORD}-2")
    with DaemonProcess(uri=wrong, database_name=explorer.database.name, **TALKATIVE) as daemon:
        daemon.wait_for_exit(code=77)

    assert "uthentication failed" in "".join(daemon.log_lines())
    _assert_untold(*daemon.log_lines())


def test_a_daemon_that_finds_nobody_never_tells() -> None:
    nobody = f"mongodb://teller:{PASSWORD}@127.0.0.1:9/"
    with DaemonProcess(uri=nobody, database_name="explorer", **TALKATIVE) as daemon:
        daemon.wait_for_log(
            lambda record: record["event"] == "database_unavailable", within_seconds=START_SECONDS, what="an outage"
        )
        answers = _answers(daemon)

    _assert_untold(*answers, *daemon.log_lines())


@pytest.mark.parametrize(
    "uri",
    [
        f"mongodb://teller:{PASSWORD}@db:port/",
        f"mongodb://teller:{PASSWORD}@127.0.0.1/?tlsCAFile=/nowhere",
        f"mongodb://teller:a/{PASSWORD}@127.0.0.1/",
        f"mongodb://teller:a@{PASSWORD}@127.0.0.1/",
        f"mongodb+srv://teller:{PASSWORD}@127.0.0.1/",
        f"postgres://teller:{PASSWORD}@127.0.0.1/",
        f"teller:{PASSWORD}@127.0.0.1",
    ],
)
def test_an_address_that_makes_no_sense_is_refused_without_being_told(uri: str) -> None:
    with DaemonProcess(uri=uri, database_name="explorer", **TALKATIVE) as daemon:
        daemon.wait_for_exit(code=78)

    assert "database.uri" in "".join(daemon.log_lines())
    _assert_untold(*daemon.log_lines())


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_the_settings_are_shown_without_it(options: list[str]) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "pool_daemon", "check-config", *options],
        env=environment(DATABASE__URI=f"mongodb://teller:{PASSWORD}@db/"),
        capture_output=True,
        text=True,
        check=True,
    )

    assert "**" in shown.stdout
    _assert_untold(shown.stdout, shown.stderr)


def _answers(daemon: DaemonProcess) -> list[str]:
    """Ask the daemon for everything that it answers over HTTP."""
    (port,) = (record["port"] for record in daemon.records if record["event"] == "http_listening")
    return [_answer(f"http://127.0.0.1:{port}{path}") for path in PATHS]


def _answer(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - the daemon of this test
            return str(response.read(), "utf-8")
    except urllib.error.HTTPError as refusal:  # not ready: that has a text too
        with refusal:
            return refusal.read().decode()


def _assert_untold(*texts: str) -> None:
    told = [text for text in texts if PASSWORD in text or "teller:" in text]
    assert told == []
