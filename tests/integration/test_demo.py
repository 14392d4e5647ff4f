"""The demo as a person runs it: real processes, a verdict, an exit code, and nothing left behind."""

import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import ioctl
from pathlib import Path

import pytest
from deadline import wait_until

from pool_daemon.demo.run import DemoRun
from pool_daemon.demo.scenario import BEFORE_THE_DAEMON, SCENARIO
from pool_daemon.demo.scene import Scene
from pool_daemon.errors import ExitCode

COMMAND = (sys.executable, "-m", "pool_daemon", "demo")
STOP_SECONDS = 30
SHORT = [plan for plan in SCENARIO if plan.appears == BEFORE_THE_DAEMON or plan.name == "container"]
"""What is there before the daemon, and one pool that ends at second 3."""


class Demo:
    """A demo in a process of its own, its output in a pipe, its temporary folder inside `folder`."""

    def __init__(self, *arguments: str, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.output = ""
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"TMPDIR": str(folder)} | environment,
        )

    def read_until(self, text: str) -> None:
        """Read the output until a line of it holds `text`."""
        assert self.process.stdout
        for line in self.process.stdout:
            self.output += line
            if text in line:
                return
        raise AssertionError(f"the demo ended without {text!r}:\n{self.output}")

    def read_to_the_end(self) -> int:
        """Read the rest of the output and return the exit code."""
        assert self.process.stdout
        self.output += self.process.stdout.read()
        return self.process.wait(STOP_SECONDS)

    def pid_of(self, words: str) -> int:
        """Return the process id that the output tells after `words`."""
        found = re.search(rf"{words}: process (\d+)", self.output)
        assert found, self.output
        return int(found[1])

    def wait_until_nothing_is_left(self) -> None:
        """Wait until mongod and the daemon are gone; the kernel takes a moment to bury them."""
        pids = [self.pid_of("mongod is up"), self.pid_of("the daemon starts")]
        wait_until(lambda: not any(map(is_alive, pids)), within_seconds=5, what="the end of both processes")


@contextmanager
def demo(*arguments: str, folder: Path, **environment: str) -> Iterator[Demo]:
    """Run a demo; what is left of it at the end is killed."""
    running = Demo(*arguments, folder=folder, **environment)
    with running.process:
        try:
            yield running
        finally:
            running.process.kill()


def is_alive(pid: int) -> bool:
    """Tell whether the process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_demo_holds_fits_a_page_and_leaves_nothing_behind(tmp_path: Path) -> None:
    elsewhere = {"POOL_DAEMON_DATABASE__URI": "mongodb://127.0.0.1:1", "POOL_DAEMON_LOG__FORMAT": "console"}
    with demo(folder=tmp_path, **elsewhere) as running:
        assert running.read_to_the_end() == ExitCode.OK, running.output
        lines = running.output.splitlines()
        assert max(map(len, lines)) <= 100
        verdict = [line.split("  ")[0] for line in lines if line.rstrip().endswith("✓")]
        assert verdict == [*(plan.name for plan in SCENARIO), "the daemon"]
        assert lines[-1].startswith("All 16 held")
        running.wait_until_nothing_is_left()
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_kept_on_request_and_its_path_printed(tmp_path: Path) -> None:
    with demo("--keep", folder=tmp_path) as running:
        running.read_until("stopped at once")
        running.process.send_signal(signal.SIGTERM)
        assert running.read_to_the_end() == ExitCode.FORCED
        [kept] = tmp_path.iterdir()
        assert f"Kept: {kept}" in running.output.splitlines()
        assert "database_reached" in (kept / "daemon.log").read_text()


@pytest.mark.parametrize("words", ["mongod is up", "the daemon starts", "stopped at once"])
def test_an_interruption_stops_everything_in_order_whenever_it_comes(tmp_path: Path, words: str) -> None:
    with demo(folder=tmp_path) as running:
        running.read_until(words)
        running.process.send_signal(signal.SIGINT)
        running.process.send_signal(signal.SIGINT)  # an impatient person
        assert running.read_to_the_end() == ExitCode.FORCED
        assert "Interrupted" in running.output
        assert "Traceback" not in running.output
        if "the daemon starts" in running.output:
            running.wait_until_nothing_is_left()
    assert list(tmp_path.iterdir()) == []


def test_a_daemon_that_dies_is_reported_and_fails_the_demo(tmp_path: Path) -> None:
    with demo(folder=tmp_path) as running:
        running.read_until("stopped at once")
        os.kill(running.pid_of("the daemon starts"), signal.SIGKILL)
        assert running.read_to_the_end() == ExitCode.FAILED
        assert "the daemon ended by itself with exit code -9" in running.output
        running.wait_until_nothing_is_left()
    assert list(tmp_path.iterdir()) == []


def test_a_demo_that_is_killed_leaves_no_process_behind(tmp_path: Path) -> None:
    with demo(folder=tmp_path) as running:
        running.read_until("stopped at once")
        running.process.kill()
        assert running.read_to_the_end() == -signal.SIGKILL
        running.wait_until_nothing_is_left()


class Nap:
    """A screen that stops the daemon's process shortly before a pool's end and lets it go on two seconds later."""

    def __init__(self, *, begins: float, ends: float) -> None:
        self.begins, self.ends = begins, ends

    def show(self, scene: Scene) -> None:
        pid = next((event.text.split()[-1] for event in scene.events if "daemon starts" in event.text), None)
        if pid and scene.second is not None:
            napping = self.begins < scene.second < self.ends
            os.kill(int(pid), signal.SIGSTOP if napping else signal.SIGCONT)


async def test_a_daemon_that_sleeps_through_an_end_does_not_pass(tmp_path: Path) -> None:
    performance = DemoRun(plans=SHORT, folder=tmp_path, screen=Nap(begins=2, ends=4.5))
    findings = {finding.name: finding for finding in await performance.run()}
    [fault] = findings.pop("container").faults
    assert re.fullmatch(r"stopped \d{4} ms late", fault)
    assert all(finding.held for finding in findings.values())


def test_on_a_terminal_a_table_is_drawn_and_ctrl_c_gives_the_terminal_back(tmp_path: Path) -> None:
    terminal, end = pty.openpty()
    ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        COMMAND,
        stdin=end,
        stdout=end,
        stderr=end,
        env=os.environ | {"TMPDIR": str(tmp_path), "TERM": "xterm"},
        start_new_session=True,
        preexec_fn=lambda: ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - so that ^C becomes a signal
    )
    os.close(end)
    seen = ""
    with process:
        try:
            while "✓" not in seen:
                seen += os.read(terminal, 65536).decode(errors="replace")
            os.write(terminal, b"\x03")
            while "Interrupted" not in seen:
                seen += os.read(terminal, 65536).decode(errors="replace")
            assert process.wait(STOP_SECONDS) == ExitCode.FORCED
        finally:
            process.kill()
            os.close(terminal)
    assert "what it shows" in seen
    assert seen.rindex("\x1b[?25h") > seen.rindex("\x1b[?25l"), "the cursor is still hidden"
    assert list(tmp_path.iterdir()) == []
