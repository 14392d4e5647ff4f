"""The README's tables of commands, exit codes and paths hold what the code has, and nothing else."""

import re
from pathlib import Path

from telemetry_scene import PATIENCE, new_observer
from virtual_clock import VirtualClock

from pool_daemon.commands import COMMANDS
from pool_daemon.errors import ExitCode
from pool_daemon.telemetry.endpoint.routes import Routes

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def first_column(heading: str) -> list[str]:
    """Read the first cell of every row of the table whose heading begins like that."""
    rows = README.partition(f"\n| {heading} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [row.split("|")[1].strip() for row in rows]


def test_every_command_is_in_the_table() -> None:
    named = [name for cell in first_column("command") for name in re.findall(r"`([a-z-]+)", cell)]
    assert set(named) == set(COMMANDS)


def test_every_exit_code_is_in_the_table() -> None:
    assert [int(cell) for cell in first_column("exit code")] == list(map(int, ExitCode))


def test_every_path_is_in_the_table() -> None:
    routes = Routes(observer=new_observer(), patience=PATIENCE, clock=VirtualClock(0))
    assert {cell.strip("`") for cell in first_column("path")} == set(routes._answers)
