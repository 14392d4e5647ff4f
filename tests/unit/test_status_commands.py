"""The commands that ask a running daemon, as a shell runs them."""

import io
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest
from deadline import wait_until
from rich.console import Console
from telemetry_scene import at_once, gone, make_ready, new_observer, routes_of, running, served, upcoming
from virtual_clock import VirtualClock

from pool_daemon.commands.status import status_view
from pool_daemon.errors import ExitCode, StoreError
from pool_daemon.guards.leadership import Role
from pool_daemon.store.events import RecordedPool
from pool_daemon.telemetry.endpoint import Server
from pool_daemon.telemetry.endpoint.connection import Request, Response, refusal
from pool_daemon.telemetry.observer import Observer
from pool_daemon.views.texts import span


@pytest.fixture
def observer() -> Observer:
    observer = new_observer()
    make_ready(observer)
    return observer


@pytest.fixture
def server(observer: Observer) -> Iterator[Server]:
    with served(observer) as server:
        yield server


def environment(**settings: str) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("POOL_DAEMON_")}
    return (
        ours
        | {"COLUMNS": "120", "NO_COLOR": "1"}
        | {f"POOL_DAEMON_HTTP__{name}": value for name, value in settings.items()}
    )


def pool_daemon(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pool_daemon", *arguments]
    return subprocess.run(command, check=False, text=True, capture_output=True, timeout=60, env=environment(**settings))


def test_a_healthy_daemon_passes_its_healthcheck(server: Server) -> None:
    for question in ((), ("--live",), ("--ready",), ("--started",)):
        asked = pool_daemon("healthcheck", *question, PORT=str(server.port))
        assert (asked.returncode, asked.stderr) == (ExitCode.OK, "")


def test_a_daemon_that_is_alive_but_not_ready_fails_only_the_healthcheck_for_that(
    observer: Observer, server: Server
) -> None:
    observer.stopping(drain_seconds=60)
    assert pool_daemon("healthcheck", PORT=str(server.port)).returncode == ExitCode.OK
    asked = pool_daemon("healthcheck", "--ready", PORT=str(server.port))
    assert asked.returncode == ExitCode.FAILED
    assert asked.stdout.startswith("- running: is stopping\n")


def test_a_healthcheck_in_json_names_what_is_wrong(observer: Observer, server: Server) -> None:
    well = pool_daemon("healthcheck", "--json", PORT=str(server.port))
    assert (well.returncode, json.loads(well.stdout)) == (ExitCode.OK, {"ok": True, "problems": {}})
    observer.stopping(drain_seconds=60)
    asked = pool_daemon("healthcheck", "--ready", "--json", PORT=str(server.port))
    assert asked.returncode == ExitCode.FAILED
    assert json.loads(asked.stdout) == {"ok": False, "problems": {"running": "is stopping"}}


@pytest.mark.parametrize("command", ["healthcheck", "status"])
def test_a_daemon_that_is_not_there_fails(command: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
    asked = pool_daemon(command, PORT=port)
    assert (asked.returncode, asked.stdout) == (ExitCode.FAILED, "")
    assert asked.stderr == f"pool-daemon: no daemon answers at 127.0.0.1:{port}: [Errno 111] Connection refused\n"


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [({"PORT": "0"}, "http.port: 0 may be any port"), ({"ENABLED": "false"}, "http.enabled: false")],
)
def test_settings_that_name_no_address_are_a_matter_of_configuration(settings: dict[str, str], complaint: str) -> None:
    asked = pool_daemon("healthcheck", **settings)
    assert asked.returncode == ExitCode.CONFIGURATION
    assert complaint in asked.stderr


@pytest.mark.parametrize("command", ["healthcheck", "status"])
@pytest.mark.parametrize("status", [200, 404])
def test_another_program_at_that_address_is_not_taken_for_a_daemon(command: str, status: int) -> None:
    def respond(_: Request) -> Response:
        return refusal(HTTPStatus(status))

    server = Server(host="127.0.0.1", port=0, respond=respond)
    with running(server):
        asked = pool_daemon(command, PORT=str(server.port))
    if (command, status) != ("healthcheck", 200):  # a bare 200 is all that a probe can go by
        assert asked.returncode == ExitCode.FAILED
        assert "no pool-daemon" in asked.stderr


def test_a_daemon_that_listens_everywhere_is_asked_here(server: Server) -> None:
    assert pool_daemon("healthcheck", PORT=str(server.port), HOST="0.0.0.0").returncode == ExitCode.OK  # noqa: S104 - a setting


def test_a_healthcheck_loads_neither_driver_nor_terminal(server: Server) -> None:
    script = (
        "import sys; from pool_daemon.cli import main; main(['healthcheck']); "
        "print(*{'motor', 'pymongo', 'rich', 'prometheus_client'} & sys.modules.keys(), file=sys.stderr)"
    )
    asked = subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        text=True,
        capture_output=True,
        timeout=60,
        env=environment(PORT=str(server.port)),
    )
    assert asked.stderr == "\n"


def test_status_tells_a_person_what_the_daemon_does(observer: Observer, server: Server) -> None:
    now = int(time.time())
    observer.armed(now + 3600.5, pool_id=17)
    observer.upcoming_seen([upcoming(17, in_seconds=3600.5)])
    observer.expiring_counted({"1h": 1, "1d": 20, "7d": 3000})
    observer.batch_committed([gone(1, 16, empty_at=now)], pools=1, seconds=0.1, at=now + 0.012)
    shown = pool_daemon("status", PORT=str(server.port)).stdout
    assert shown.startswith("pool-daemon 1.2.3 on host-1:4711:a1b2c3, leader in term 7, up ")
    assert "pool 17 runs empty in 60 min" in shown
    assert "pool 16: cu ran out, 1 workload, 12 ms late" in shown
    assert "3,000 within 7d" in shown
    assert re.search(r"^database +answered .* ago *$", shown, re.MULTILINE)
    assert re.search(r"^brake +holds nothing *$", shown, re.MULTILINE)


def test_status_tells_what_is_wrong(observer: Observer, server: Server) -> None:
    observer.put_on_hold("brake", detail="[bold]too many[/bold] at once")
    observer.clocks_compared(-4.2, agree=False)
    observer.pass_failed(StoreError("not primary"), seconds=1, retry_seconds=1)
    for _ in range(3):
        observer.stream_lost("unavailable", reason="connection refused", retry_seconds=1)
    shown = pool_daemon("status", PORT=str(server.port)).stdout
    assert "brake: [bold]too many[/bold] at once" in shown
    assert "holds nothing" not in shown
    assert "this machine's clock and the database's are 4.200 s apart" in shown
    assert re.search(r"failed \d.* ago: not primary", shown)
    assert "unavailable: connection refused, 3 times" in shown


def test_status_says_first_what_is_not_done(observer: Observer, server: Server) -> None:
    observer.put_on_hold("brake", detail="a restored backup", pools=500)
    first = pool_daemon("status", PORT=str(server.port)).stdout.splitlines()[1]
    assert re.fullmatch(r"not done +500 pools held by the brake: a restored backup *", first)


def test_status_of_a_standby_says_who_leads(observer: Observer, server: Server) -> None:
    observer.role_seen(Role.STANDBY, leader="host-2:1:ff")
    shown = pool_daemon("status", PORT=str(server.port)).stdout
    assert re.search(r"^standby +host-2:1:ff leads, and does what is due", shown, re.MULTILINE)
    assert "backlog" not in shown


def test_status_gives_the_date_of_what_happened_on_another_day(observer: Observer, server: Server) -> None:
    observer.recorded_events_seen([RecordedPool(16, 1_700_000_000.0, ("cu",), 2)])
    assert "2023-11-14 22:13:20  decommissioned" in pool_daemon("status", PORT=str(server.port)).stdout


def test_a_row_is_broken_only_if_a_width_is_given(observer: Observer, server: Server) -> None:
    reason = "and another word " * 7
    observer.pass_failed(StoreError(reason), seconds=1, retry_seconds=1)
    unbound = environment(PORT=str(server.port))
    del unbound["COLUMNS"]
    for environ, whole in ((unbound, True), (unbound | {"COLUMNS": "80"}, False)):
        shown = subprocess.check_output([sys.executable, "-m", "pool_daemon", "status"], text=True, env=environ)
        assert (reason in shown) == whole


@pytest.mark.parametrize("arguments", [["status"], ["status", "--json"]])
def test_a_reader_who_leaves_early_ends_it_well_and_without_a_word(server: Server, arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        told = subprocess.run(
            [sys.executable, "-m", "pool_daemon", *arguments],
            check=False,
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            env=environment(PORT=str(server.port)),
        )
    assert (told.returncode, told.stderr) == (ExitCode.OK, "")


@pytest.mark.parametrize("arguments", [["status"], ["status", "--json"]])
def test_output_that_no_disk_has_room_for_is_one_line_and_no_traceback(server: Server, arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        told = subprocess.run(
            [sys.executable, "-m", "pool_daemon", *arguments],
            check=False,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            env=environment(PORT=str(server.port)),
        )
    assert told.returncode == ExitCode.FAILED
    assert len(told.stderr.splitlines()) == 1
    assert "no space left" in told.stderr


def test_status_in_json_is_what_the_daemon_said(server: Server) -> None:
    told = json.loads(pool_daemon("status", "--json", PORT=str(server.port)).stdout)
    assert told["identity"] == "host-1:4711:a1b2c3"


def test_status_of_a_daemon_that_knows_nothing_yet() -> None:
    with served(new_observer()) as server:
        shown = pool_daemon("status", PORT=str(server.port))
    assert shown.returncode == ExitCode.OK
    assert "waits for MongoDB" in shown.stdout


class Terminal:
    """A command on a terminal, and all that it has shown."""

    def __init__(self, *arguments: str, **settings: str) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pool_daemon", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment(**settings) | {"TERM": "xterm", "LINES": "50"},
        )
        os.close(theirs)
        os.set_blocking(self._ours, False)
        self._shown = ""

    def shows(self, text: str) -> bool:
        """Tell whether a text has come since it was asked for last."""
        try:
            self._shown += os.read(self._ours, 1 << 20).decode(errors="replace")
        except BlockingIOError:
            return False
        before, found, after = self._shown.partition(text)
        self._shown = after if found else before
        return bool(found)

    def close(self) -> None:
        """End the command if it has not ended itself."""
        self.process.kill()
        self.process.wait()
        os.close(self._ours)


def test_watching_goes_on_until_it_is_interrupted_whatever_the_daemon_does(observer: Observer) -> None:
    with served(observer) as server:
        terminal = Terminal("status", "--watch", PORT=str(server.port))
        try:
            wait_until(lambda: terminal.shows("nothing is known to fall due"), within_seconds=10, what="a first look")
            observer.armed(time.time() + 7200, pool_id=17)
            wait_until(lambda: terminal.shows("pool 17 runs empty"), within_seconds=5, what="news")
            server.stop()
            wait_until(lambda: terminal.shows("no answer for"), within_seconds=5, what="word of the silence")
            terminal.process.send_signal(signal.SIGINT)
            assert terminal.process.wait(10) == ExitCode.OK
        finally:
            terminal.close()


def test_watching_through_a_pipe_shows_one_picture_after_the_other(server: Server) -> None:
    command = [sys.executable, "-m", "pool_daemon", "status", "--watch"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment(PORT=str(server.port))
    ) as watching:
        assert watching.stdout is not None
        pictures = 0
        for line in watching.stdout:
            pictures += line.startswith("pool-daemon 1.2.3 on host-1")
            if pictures == 2:
                break
        watching.send_signal(signal.SIGINT)
        assert watching.wait(10) == ExitCode.OK


def test_status_shows_the_date_of_what_is_not_of_today_and_text_as_text() -> None:
    clock = VirtualClock(1_700_000_000)
    observer = new_observer(clock)
    observer.unreadable("pool", document_id="\x1b[2J[/nope]", reason="\nFORGED")
    clock.pass_time(86_400)
    observer.stream_opened(resumed=False)
    shown = json.loads(at_once(routes_of(observer, clock=clock).respond(Request("GET", "/statusz"))).body)
    written = io.StringIO()
    Console(file=written, width=120).print(status_view(shown))
    lines = written.getvalue().splitlines()
    assert any(line.startswith("22:13:20  ") and "change stream is open" in line for line in lines)
    assert any(line.startswith("2023-11-14 22:13:20  unreadable  pool \\x1b[2J[/nope]: \\nFORGED") for line in lines)


@pytest.mark.parametrize(
    ("pools", "line"),
    [(None, None), (0, "no pool is in grace"), (1, "1 pool in grace"), (1234, "1,234 pools in grace")],
)
def test_status_has_a_line_on_grace_where_there_is_any(observer: Observer, pools: int | None, line: str | None) -> None:
    observer.in_grace_counted(pools)
    shown = json.loads(at_once(routes_of(observer).respond(Request("GET", "/statusz"))).body)
    written = io.StringIO()
    Console(file=written, width=120).print(status_view(shown))
    lines = [each.removeprefix("grace").strip() for each in written.getvalue().splitlines() if each.startswith("grace")]
    assert lines == ([] if line is None else [line])


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.0123, "12 ms"), (1.25, "1.2 s"), (45, "45 s"), (150, "2 min"), (10_000, "3 h"), (10_000_000, "116 d")],
)
def test_a_span_is_said_as_roughly_as_aloud(seconds: float, said: str) -> None:
    assert span(seconds) == said
