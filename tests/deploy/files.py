"""Where the shipped files are, and the tools that judge them."""

import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

PROJECT = Path(__file__).parents[2]
DEPLOY = PROJECT / "deploy"
README = PROJECT / "README.md"
RUNBOOK = DEPLOY / "RUNBOOK.md"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pool-daemon-ci"
"""Where `.ci/tools` puts what it installs apart from the system."""

PLACES = (CACHE / "tools/bin", CACHE / "kubectl")


def tool(name: str) -> str:
    """Find a program; a missing one is a failure, not a reason to test less."""
    path = shutil.which(name, path=os.pathsep.join([*map(str, PLACES), os.environ["PATH"]]))
    assert path is not None, f"{name} is missing: run .ci/tools"
    return path


def run(*command: str | Path, cwd: Path = PROJECT, given: str = "") -> str:
    """Run a program that must succeed, with that on its standard input; return what it said, errors included."""
    name, *arguments = map(str, command)
    done = subprocess.run(
        [tool(name), *arguments],
        cwd=cwd,
        env=os.environ | {"UV_SYSTEM_CERTS": "1"},  # uv else trusts its own list of authorities only
        input=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{name} {' '.join(arguments)} -> {done.returncode}\n{done.stdout}"
    return done.stdout


def section(heading: str, document: Path) -> str:
    """Read what stands below a heading, up to the next."""
    below = document.read_text(encoding="utf-8").partition(f"\n{heading}\n")[2]
    return re.split(r"^##+ ", below, maxsplit=1, flags=re.MULTILINE)[0]


def commands(heading: str, document: Path) -> list[str]:
    """Read the shell commands of the first code block below a heading, one a line."""
    block = re.search(r"^```sh\n(.*?)^```", section(heading, document), re.DOTALL | re.MULTILINE)
    assert block is not None, f"{document.name} has no commands under {heading!r}"
    return block[1].splitlines()


def free_port() -> int:
    """Find a port that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
