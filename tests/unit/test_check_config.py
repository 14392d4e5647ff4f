"""What `check-config` refuses: all that would end `run` before it connects; and the unit's reload, which asks it."""

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from pool_daemon.cli import main
from pool_daemon.errors import ExitCode
from pool_daemon.notices import http

UNIT = Path(__file__).parents[2] / "deploy/systemd/pool-daemon.service"
KEY = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
DATABASE = "[database]\nuri = 'mongodb://db/'\n"
TELLING = f"{DATABASE}[notices]\nbefore = ['1d']\n"
WEBHOOK = f"{TELLING}[webhook]\nurl = 'https://hooks.example/'\n"
UNTIL_TOLD = "[grace]\nvolume = '1d'\nuntil_told = true\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (WEBHOOK, r"webhook\.keys: missing"),
        (TELLING + UNTIL_TOLD, r"grace\.until_told: needs a receiver .*: set webhook\.url or alertmanager\.url"),
    ],
)
@pytest.mark.parametrize("command", ["check-config", "run"])
def test_a_receiver_that_cannot_be_used_is_refused_by_both(config: Path, command: str, text: str, told: str) -> None:
    config.write_text(text)
    asked = subprocess.run(
        [sys.executable, "-m", "pool_daemon", command, "--config", config],
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.returncode == ExitCode.CONFIGURATION, asked.stderr
    assert re.search(told, asked.stderr.splitlines()[-1])


@pytest.mark.parametrize(
    "text",
    [
        DATABASE + "[webhook]\nurl = 'https://hooks.example/'\n",
        f"{WEBHOOK}keys = '{KEY}'\n{UNTIL_TOLD}",
        f"{TELLING}[alertmanager]\nurl = 'http://alerts.example/'\n{UNTIL_TOLD}",
    ],
)
def test_receivers_that_can_be_used_and_those_that_are_not_are_accepted(config: Path, text: str) -> None:
    config.write_text(text)
    assert main(["check-config", "--config", str(config)]) == ExitCode.OK


def test_a_missing_library_of_a_receiver_is_refused(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(name: str) -> Any:
        if name == "httpx2":
            raise ImportError(name)
        return import_module(name)

    monkeypatch.setattr(http, "import_module", missing)
    config.write_text(f"{WEBHOOK}keys = '{KEY}'\n")
    assert main(["check-config", "--config", str(config)]) == ExitCode.CONFIGURATION
    assert "install the extra `webhooks`" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "accepted"), [(WEBHOOK, True), (TELLING + UNTIL_TOLD, False)])
def test_the_reload_of_the_unit_asks_it_without_the_credentials(config: Path, text: str, *, accepted: bool) -> None:
    config.write_text(text.removeprefix(DATABASE))  # the address and the key are credentials
    (script,) = re.findall(r"^ExecReload=/bin/sh -c '(.*)'$", UNIT.read_text(encoding="utf-8"), re.MULTILINE)
    script = script.replace("/opt/pool-daemon/bin/pool-daemon", f"{sys.executable} -m pool_daemon")
    script = script.replace("/etc/pool-daemon/config.toml", str(config)).replace("kill -HUP $MAINPID", "echo reloaded")
    asked = subprocess.run(
        ["/bin/sh", "-c", script],
        env={"CREDENTIALS_DIRECTORY": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.stdout == ("reloaded\n" if accepted else ""), asked.stderr
