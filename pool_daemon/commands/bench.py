"""Measures the daemon, compared with the method without it and with the server's limit."""

import argparse
import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from pool_daemon import __version__
from pool_daemon.bench.database import BenchDatabase
from pool_daemon.bench.report import as_json, as_markdown, report
from pool_daemon.bench.suite import full, quick, results
from pool_daemon.commands import add_config_argument
from pool_daemon.commands.connection import address
from pool_daemon.embedded import EmbeddedMongod
from pool_daemon.errors import ExitCode
from pool_daemon.generated_table import read_table, write_table
from pool_daemon.settings import load_settings

EXAMPLES: Final = (
    "pool-daemon bench --quick",
    "pool-daemon bench --only storm-pools --json",
    "POOL_DAEMON_DATABASE__URI='mongodb://db-1/?replicaSet=test' pool-daemon bench --database bench",
)

DATABASE: Final = "pool-daemon-bench"
PLAIN_COLUMNS: Final = 160

SERVER_OPTIONS: Final = (
    *("--wiredTigerCacheSizeGB=1.5", "--oplogSize=2048"),
    *("--setParameter", "disableLogicalSessionCacheRefresh=true"),
)
"""The bench's own server needs room for a million pools and for the history of their creation. Every five minutes it
would refresh its list of sessions, with commands that count like the daemon's."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `--quick`, `--only`, `--json`, `--markdown`, `--database`, `--mongod` and `--config`."""
    names = [row.name for row in full()]
    parser.add_argument("--quick", action="store_true", help="everything smaller: two minutes instead of twenty")
    parser.add_argument(
        "--only",
        action="append",
        choices=names,
        metavar="ROW",
        help=f"measure this row alone; may be given again. One of {', '.join(names)}",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--markdown",
        type=Path,
        metavar="FILE",
        help="write the rows into the table of this file, too; pool_daemon/bench/README.md is the published one",
    )
    parser.add_argument(
        "--database",
        metavar="NAME",
        help="an empty database, on the server of database.uri, to measure on and drop afterwards; "
        "without it a mongod is started for the purpose",
    )
    parser.add_argument("--mongod", type=Path, metavar="PATH", help="the mongod to start instead of the one it finds")
    add_config_argument(parser)


def run(arguments: argparse.Namespace) -> ExitCode:
    """Measure, print the table, and return OK only if every figure was reached."""
    if arguments.markdown is not None:  # an unwritable file is rejected before anything is measured
        write_table(arguments.markdown, read_table(arguments.markdown))
    rows = [row for row in (quick() if arguments.quick else full()) if row.name in (arguments.only or [row.name])]
    with (
        _ended_by_sigterm(),
        tempfile.TemporaryDirectory(prefix="pool-daemon-bench-") as folder,
        _server(arguments, Path(folder)) as (uri, database),
        _progress() as tell,
        BenchDatabase(uri=uri, name=database, folder=Path(folder), tell=tell) as stage,
    ):
        measured = list(results(rows, stage))
        circumstances = _circumstances(stage, quick=arguments.quick)
    if arguments.json:
        print(json.dumps(as_json(measured, circumstances=circumstances), indent=2, ensure_ascii=False))
    else:
        _console().print(report(measured))
    if arguments.markdown is not None:
        before = read_table(arguments.markdown)
        write_table(arguments.markdown, as_markdown(measured, circumstances=circumstances, before=before))
    return ExitCode.OK if all(result.reached for result in measured) else ExitCode.FAILED


@contextmanager
def _server(arguments: argparse.Namespace, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the address of the server to measure on, and the name of the database."""
    if arguments.database is not None:
        yield address(load_settings(arguments.config)), arguments.database
        return
    with asyncio.Runner() as runner:
        mongod = EmbeddedMongod(folder=folder / "mongod", mongod=arguments.mongod, options=SERVER_OPTIONS)
        runner.run(mongod.start())
        try:
            yield mongod.uri, DATABASE
        finally:
            runner.run(mongod.stop())


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Yield a function that shows progress: on one line of a terminal, or on a line each elsewhere."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal or console.is_dumb_terminal:
        yield lambda text: print(text, file=sys.stderr, flush=True)
        return
    with console.status("") as status:
        yield status.update


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Handle SIGTERM like Ctrl-C, so that everything that was started is stopped."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _circumstances(stage: BenchDatabase, *, quick: bool) -> dict[str, Any]:
    return {
        "version": __version__,
        "quick": quick,
        "cores": os.cpu_count(),
        "mongodb": stage.server_version(),
    }


def _console() -> Console:
    if sys.stdout.isatty():
        return Console(highlight=False)
    columns = shutil.get_terminal_size((PLAIN_COLUMNS, 0)).columns
    return Console(highlight=False, force_terminal=False, color_system=None, width=max(columns, PLAIN_COLUMNS))
