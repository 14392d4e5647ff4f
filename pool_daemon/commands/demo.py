"""Half a minute with a real MongoDB and the real daemon, and a verdict on the daemon."""

import argparse
import asyncio
import io
import shutil
import signal
import sys
import tempfile
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from rich.console import Console

from pool_daemon.demo.run import DemoRun
from pool_daemon.demo.scenario import SCENARIO
from pool_daemon.demo.screen import screen_on
from pool_daemon.demo.verdict import Finding, exit_code, report
from pool_daemon.embedded.process import find_mongod
from pool_daemon.errors import EmbeddedError, ExitCode

T = TypeVar("T")

EXAMPLES: Final = (
    "pool-daemon demo",
    "pool-daemon demo --plain | tee demo.txt",
    "pool-daemon demo --keep",
)

PLAIN_COLUMNS: Final = 100
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `--plain`, `--keep` and `--mongod`."""
    parser.add_argument("--plain", action="store_true", help="print plain lines, even on a terminal")
    parser.add_argument("--keep", action="store_true", help="keep the temporary folder and print its path")
    parser.add_argument("--mongod", type=Path, metavar="PATH", help="the mongod to start instead of the one it finds")


def run(arguments: argparse.Namespace) -> ExitCode:
    """Run the demo, print its verdict, and return OK only if every expectation held.

    A signal stops everything that was started, in order; then FORCED is returned.
    """
    if arguments.mongod is not None:
        _check(arguments.mongod)
    plain = arguments.plain or not sys.stdout.isatty() or Console().is_dumb_terminal
    console = _console(plain=plain)
    performance = _perform(console, plain=plain, keep=arguments.keep, mongod=arguments.mongod)
    findings = asyncio.run(_interruptible(performance))
    if findings is None:
        console.print("Interrupted; the daemon and mongod are stopped.")
        return ExitCode.FORCED
    console.print(report(findings))
    return exit_code(findings)


def _check(mongod: Path) -> None:
    """Raise EmbeddedError, naming the option, if the program cannot be executed."""
    try:
        find_mongod(mongod)
    except EmbeddedError as error:
        raise EmbeddedError(str(error).replace("embedded.mongod", "--mongod")) from error


def _console(*, plain: bool) -> Console:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without ✓ shows ? instead
    if not plain:
        return Console(highlight=False)
    columns = shutil.get_terminal_size((PLAIN_COLUMNS, 0)).columns
    return Console(highlight=False, force_terminal=False, color_system=None, width=min(columns, PLAIN_COLUMNS))


async def _perform(console: Console, *, plain: bool, keep: bool, mongod: Path | None) -> list[Finding]:
    with _temporary_folder(console, keep=keep) as folder, screen_on(console, plain=plain) as screen:
        return await DemoRun(plans=SCENARIO, folder=folder, screen=screen, mongod=mongod).run()


@contextmanager
def _temporary_folder(console: Console, *, keep: bool) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="pool-daemon-demo-"))
    try:
        yield folder
    finally:
        if keep:
            console.print(f"Kept: {folder}", soft_wrap=True)
        else:
            shutil.rmtree(folder)


async def _interruptible(work: Coroutine[Any, Any, T]) -> T | None:
    """Return what `work` returns, or None after a signal: `work` is cancelled once and may clean up."""
    task = asyncio.create_task(work, name="demo")
    interrupted = asyncio.Event()

    def interrupt() -> None:
        if not interrupted.is_set():
            interrupted.set()
            task.cancel()

    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, interrupt)
    try:
        return await task
    except asyncio.CancelledError:
        if interrupted.is_set():
            return None
        raise
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
