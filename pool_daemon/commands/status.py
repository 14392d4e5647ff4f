"""The running daemon's own status: what it does and waits for."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from rich.console import RenderableType
from rich.live import Live

from pool_daemon.commands import add_config_argument
from pool_daemon.commands.healthcheck import ask
from pool_daemon.commands.paper import paper
from pool_daemon.commands.status_view import portrait
from pool_daemon.errors import ExitCode, NoAnswerError
from pool_daemon.plain_text import escaped_lines
from pool_daemon.settings import Http, load_settings

EXAMPLES = (
    "pool-daemon status --config /etc/pool-daemon/config.toml",
    "pool-daemon status --watch",
    "pool-daemon status --json | jq .next",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `--config`, `--json` and `--watch`."""
    add_config_argument(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print the answer as the daemon gave it")
    form.add_argument("--watch", action="store_true", help="go on, once a second, until interrupted")


def run(arguments: argparse.Namespace) -> ExitCode:
    """Print the daemon's own status; FAILED if no daemon answers."""
    http = load_settings(arguments.config).http
    if arguments.watch:
        return _watch(http)
    text = ask(http, "/statusz").text
    if arguments.json:
        print(escaped_lines(text), end="")
    else:
        paper().print(portrait(_read(text)))
    return ExitCode.OK


def _watch(http: Http) -> ExitCode:
    """Show the status again every second; while no daemon answers, show the last one, marked as old."""
    picture: dict[str, Any] = _read(ask(http, "/statusz").text)
    silent_since: float | None = None
    try:
        with _screen() as show:
            while True:
                silent_seconds = None if silent_since is None else time.monotonic() - silent_since
                show(portrait(picture, silent_seconds=silent_seconds))
                time.sleep(1)
                try:
                    picture, silent_since = _read(ask(http, "/statusz").text), None
                except NoAnswerError:
                    silent_since = silent_since or time.monotonic()
    except KeyboardInterrupt:
        return ExitCode.OK


@contextmanager
def _screen() -> Iterator[Callable[[RenderableType], None]]:
    """Yield a function that shows each status in place of the last, or, without a terminal, below it."""
    if sys.stdout.isatty():
        with Live(auto_refresh=False, screen=True) as live:
            yield partial(live.update, refresh=True)
        return
    console = paper()

    def show(picture: RenderableType) -> None:
        console.print(picture)
        console.print()
        sys.stdout.flush()

    yield show


def _read(text: str) -> dict[str, Any]:
    """Parse the answer; raise NoAnswerError if it is not that of a pool-daemon."""
    try:
        picture = json.loads(text)
    except json.JSONDecodeError as error:
        raise NoAnswerError("what answers there is no pool-daemon") from error
    return dict(picture)
