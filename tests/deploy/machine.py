"""A small Debian that boots in a container on this machine, in half a second, and is gone without a trace.

Unless it is `alone`, it shares this machine's network, so that a mongod of the tests is as near to it as to them. What
is written in it is kept in memory and lost at its end; the Debian itself is made by `.ci/tools`.
"""

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from deadline import wait_until
from deploy.files import CACHE, tool

ROOT = CACHE / "machine"
BOOT_SECONDS = 30
STOP_SECONDS = 30
COMMAND_SECONDS = 200


class Machine:
    """A booted container; a context manager that shuts it down.

    `shown` maps folders of this machine to where they are to be seen in there, read-only.
    """

    def __init__(self, *, shown: Mapping[Path, str], alone: bool = False) -> None:
        self._options = [f"--bind-ro={folder}:{where}" for folder, where in shown.items()]
        if alone:
            self._options.append("--private-network")
        self._container: subprocess.Popen[bytes] | None = None
        self._leader = 0

    def __enter__(self) -> Self:
        _require_container()
        self._container = subprocess.Popen(
            [*_container(), *self._options, "--boot"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_until(self._is_up, within_seconds=BOOT_SECONDS, what="a booted container")
        except BaseException:
            self._end(signal.SIGKILL)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(signal.SIGTERM)

    def run(self, *command: str, given: str = "") -> str:
        """Run a command that must succeed, with that on its standard input; return its standard output."""
        done = self.attempt(*command, given=given)
        assert done.returncode == 0, f"{' '.join(command)} -> {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def attempt(self, *command: str, given: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command, whatever becomes of it."""
        return subprocess.run(
            [
                tool("nsenter"),
                f"--target={self._leader}",
                "--all",
                "env",
                "--ignore-environment",
                *ENVIRONMENT,
                *command,
            ],
            input=given,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )

    def write(self, path: str, text: str, *, mode: str = "644") -> None:
        """Write a file, and the folders above it that are missing."""
        self.run("install", "-D", f"--mode={mode}", "/dev/stdin", path, given=text)

    def _is_up(self) -> bool:
        assert self._container is not None
        assert self._container.poll() is None, "systemd-nspawn ended while its container booted"
        children = Path(f"/proc/{self._container.pid}/task/{self._container.pid}/children").read_text().split()
        if not children:
            return False
        self._leader = int(children[-1])
        return self.attempt("systemctl", "is-system-running").stdout.strip() in ("running", "degraded")

    def _end(self, number: signal.Signals) -> None:
        assert self._container is not None
        self._container.send_signal(number)
        try:
            self._container.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._container.kill()
            self._container.wait()


ENVIRONMENT = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=/root")


def _require_container() -> None:
    """Fail, in the system's own words, if this machine can run no container: nothing would be tested."""
    assert os.geteuid() == 0, "a container is root's to boot: run these tests as root"
    assert ROOT.is_dir(), f"{ROOT} is missing: run .ci/tools as root"
    trial = subprocess.run(
        [*_container(), "true"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert trial.returncode == 0, f"no container can run here: {trial.stderr.strip()}"


def _container() -> list[str]:
    return [
        tool("systemd-nspawn"),
        "--quiet",
        f"--directory={ROOT.resolve()}",
        f"--machine=pool-daemon-{os.getpid()}",
        "--volatile=overlay",
        "--register=no",
        "--keep-unit",
        "--console=pipe",
        "--resolv-conf=off",
    ]
