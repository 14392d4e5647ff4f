"""The completions in the shells themselves, installed as the command's help says."""

import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import pytest
from deadline import wait_until
from deploy.files import PROJECT, tool

PROMPT = "ready> "
STARTS = {
    "bash": ["--norc", "--noprofile", "-i"],
    "zsh": ["-f", "-i"],
}
INSTALLS = {
    "bash": "source ./_pool-daemon",
    "zsh": "fpath=($PWD $fpath); autoload -U compinit; compinit -u -D",
}


class Terminal:
    """A shell with somebody at its keyboard."""

    def __init__(self, shell: str, *, folder: Path) -> None:
        self._keyboard, inside = pty.openpty()
        environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "TERM": "dumb", "PS1": PROMPT}
        self.process = subprocess.Popen(
            [tool(shell), *STARTS[shell]],
            stdin=inside,
            stdout=inside,
            stderr=inside,
            cwd=folder,
            env=environ,
            start_new_session=True,
        )
        os.close(inside)
        self._shown = b""

    def type(self, keys: str) -> None:
        """Type what is seen to arrive; a shell drops what is typed before its prompt stands."""
        self._shown = b""
        os.write(self._keyboard, keys.encode())

    def wait_for(self, text: str) -> None:
        """Wait until that is shown since the last keys."""
        wait_until(lambda: text in self._screen(), within_seconds=15, what=f"{text!r} on the terminal")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._keyboard)

    def _screen(self) -> str:
        while select.select([self._keyboard], [], [], 0)[0]:
            self._shown += os.read(self._keyboard, 4096)
        return self._shown.decode(errors="replace")


@pytest.mark.parametrize("shell", STARTS)
@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("pool-daemon quar", "pool-daemon quarantine"),
        ("pool-daemon quarantine rel", "quarantine release"),
        ("pool-daemon quarantine release --js", "release --json"),
        ("pool-daemon run --config sett", "--config settings.toml"),
    ],
)
def test_the_shell_completes(shell: str, typed: str, completed: str, tmp_path: Path) -> None:
    script = subprocess.check_output([sys.executable, "-m", "pool_daemon", "completion", shell], cwd=PROJECT)
    (tmp_path / "_pool-daemon").write_bytes(script)
    (tmp_path / "settings.toml").touch()
    terminal = Terminal(shell, folder=tmp_path)
    try:
        terminal.wait_for(PROMPT)
        terminal.type(f"{INSTALLS[shell]}; echo installed-$?\n")
        terminal.wait_for("installed-0")
        terminal.wait_for(PROMPT)
        terminal.type(f"{typed}\t")
        terminal.wait_for(completed)
    finally:
        terminal.close()
