"""The running daemon's own status: what it does and waits for."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pool_daemon.commands import add_config_argument
from pool_daemon.commands.healthcheck import ask
from pool_daemon.errors import ExitCode, NoAnswerError
from pool_daemon.plain_text import date, escaped, escaped_lines
from pool_daemon.settings import Http, load_settings
from pool_daemon.views.texts import span

EXAMPLES = (
    "pool-daemon status --config /etc/pool-daemon/config.toml",
    "pool-daemon status --watch",
    "pool-daemon status --json | jq .next",
)

EVENTS: Final = 10
LONG_WAIT_SECONDS: Final = 3600.0
"""A delete order that has waited for longer is not carried out: its node is silent."""
UPCOMING: Final = 5
Status = dict[str, Any]
Line = tuple[str, Text]

UNBROKEN: Final = 200
"""Columns without a terminal: `grep` and `less` need each row on one line."""


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
        _console().print(status_view(_read(text)))
    return ExitCode.OK


def _watch(http: Http) -> ExitCode:
    """Show the status again every second; while no daemon answers, show the last one, marked as old."""
    status: dict[str, Any] = _read(ask(http, "/statusz").text)
    silent_since: float | None = None
    try:
        with _screen() as show:
            while True:
                silent_seconds = None if silent_since is None else time.monotonic() - silent_since
                show(status_view(status, silent_seconds=silent_seconds))
                time.sleep(1)
                try:
                    status, silent_since = _read(ask(http, "/statusz").text), None
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
    console = _console()

    def show(view: RenderableType) -> None:
        console.print(view)
        console.print()
        sys.stdout.flush()

    yield show


def _console() -> Console:
    """Return a console as wide as the terminal, or as $COLUMNS, or wide enough to break no row."""
    bounded = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if bounded else UNBROKEN)


def _read(text: str) -> dict[str, Any]:
    """Parse the answer; raise NoAnswerError if it is not that of a pool-daemon."""
    try:
        status = json.loads(text)
    except json.JSONDecodeError as error:
        raise NoAnswerError("what answers there is no pool-daemon") from error
    return dict(status)


def status_view(status: Status, *, silent_seconds: float | None = None) -> RenderableType:
    """Format the answer of `/statusz`; `silent_seconds` is how long the daemon has not answered since."""
    status = printable(status)
    parts: list[RenderableType] = [_head(status), _table(_lines(status))]
    if silent_seconds is not None:
        parts.insert(0, Text(f"no answer for {span(silent_seconds)}; this is its last status", "bold white on red"))
    if status["upcoming"]:
        parts += [Text("\nruns empty next", "bold"), _table(_upcoming(status))]
    if status["events"]:
        parts += [Text("\nevents", "bold"), _events(status["events"][:EVENTS], now=status["at"])]
    return Group(*parts)


def printable(status: Any) -> Any:
    """Return the status with every text in it escaped: some were chosen by customers."""
    if isinstance(status, dict):
        return {name: printable(value) for name, value in status.items()}
    if isinstance(status, list):
        return [printable(value) for value in status]
    return escaped(status) if isinstance(status, str) else status


def _head(status: Status) -> Text:
    ready = status["ready"]["ok"] and status["live"]["ok"]
    role = status["role"] if status["term"] is None else f"{status['role']} in term {status['term']}"
    return Text.assemble(
        ("pool-daemon ", "bold"),
        f"{status['version']} on {status['identity']}, {role}, up {span(status['uptime_seconds'])}: ",
        ("ready", "bold green") if ready else ("not ready", "bold red"),
    )


def _lines(status: Status) -> Iterator[Line]:
    for attention in status["attention"]:
        yield "not done", Text(f"{attention['short']}: {attention['detail']}", "bold yellow")
    if status["role"] == "standby":
        yield "standby", Text(f"{status['leader'] or 'no known daemon'} leads, and does what is due")
    for problem in dict.fromkeys([*status["live"]["problems"], *status["started"]["problems"]]):
        yield "problem", Text(problem, "red")
    for problem in status["ready"]["problems"]:
        yield "not ready", Text(problem, "red")
    yield "next", _next(status)
    yield "timers", _timers(status)
    yield "last pass", _last_pass(status)
    yield "stream", _stream(status["stream"])
    yield "database", _database(status["database"])
    for index, reason in status["indexes_missing"].items():
        yield "no index", Text(f"{index}: {reason}", "yellow")
    yield "clocks", _clocks(status["clocks"])
    if status["brake"] is None:
        yield "brake", Text("holds nothing")
    if status["role"] != "standby":
        yield from _leader_lines(status)
    yield (
        "run empty",
        _expiring(status["expiring"] or {}, status["expiring_age_seconds"]),
    )


def _leader_lines(status: Status) -> Iterator[Line]:
    """Yield what only a leader knows, such as which due pools it has settled."""
    yield "backlog", _count(status["backlog"], "due and not settled", age_seconds=status["backlog_age_seconds"])
    yield "orders", _orders(status["orders"])
    if (in_grace := status["grace"]["pools"]) is not None:
        yield "grace", Text(f"{_number(in_grace, 'pool')} in grace" if in_grace else "no pool is in grace")
    yield "quarantine", _count(status["quarantine"]["pools"], "in quarantine")
    for name, receiver in status["receivers"].items():
        yield name, _receiver(receiver)


def _next(status: Status) -> Text:
    at, pool_id = status["next"]["at"], status["next"]["pool_id"]
    if at is None:
        return Text(f"nothing {'else ' if status['attention'] else ''}is known to fall due")
    left = at - status["at"]
    what = "another check of a pool" if pool_id is None else f"pool {pool_id} runs empty"
    return Text(f"{what} {f'in {span(left)}' if left > 0 else 'now'} ({date(at)})", "bold")


def _timers(status: Status) -> Text:
    """Return when each job of the timer rings next, in order of time."""
    jobs = sorted((at, name) for name, at in status["timers"].items())
    return Text(", ".join(f"{name} in {span(max(0.0, at - status['at']))}" for at, name in jobs) or "none yet")


def _last_pass(status: Status) -> Text:
    last = status["last_pass"]
    if last is None:
        return Text("none yet")
    ago = span(max(0.0, status["at"] - last["ended_at"]))
    if last["outcome"] == "failed":
        return Text(f"failed {ago} ago: {last['reason']}", "red")
    if last["outcome"] == "held":
        return Text(f"held {ago} ago: {last['reason']}", "" if status["role"] == "standby" else "yellow")
    would = "would be " if status["dry_run"] else ""
    return Text(
        f"{last['outcome']} {ago} ago in {span(last['seconds'])}: {_number(last['settled'], 'pool')} {would}settled, "
        f"{_number(last['decommissioned'], 'workload')} {would}decommissioned"
    )


def _stream(stream: Status) -> Text:
    if stream["state"] == "open":
        return Text(f"open, its token moved {span(stream['token_age_seconds'])} ago")
    return Text(f"{stream['state']}: {stream['reason'] or 'not opened yet'}", "yellow")


def _clocks(clocks: Status | None) -> Text:
    if clocks is None:
        return Text("not compared yet")
    apart = f"{span(abs(clocks['difference_seconds']))} apart"
    return Text(f"agree, {apart}") if clocks["agree"] else Text(f"disagree, {apart}", "red")


def _database(database: Status) -> Text:
    age = database["answer_age_seconds"]
    return Text("has not answered yet", "yellow") if age is None else Text(f"answered {span(age)} ago")


def _count(pools: int | None, what: str, *, age_seconds: float | None = None) -> Text:
    if pools is None:
        return Text("not counted yet")
    counted = "" if age_seconds is None else f", counted {span(age_seconds)} ago"
    return Text(f"{_number(pools, 'pool')} {what}{counted}", "yellow") if pools else Text(f"none{counted}")


def _orders(orders: Status) -> Text:
    """Return how many delete orders wait; in yellow once the oldest has waited for longer than a node takes."""
    waiting, age_seconds = orders["waiting"], orders["oldest_age_seconds"]
    if waiting is None:
        return Text("not counted yet")
    if age_seconds is None:
        return Text("none waits for its node")
    oldest = f"{_number(waiting, 'delete order')} waiting, the oldest for {span(max(0.0, age_seconds))}"
    return Text(oldest, "yellow" if age_seconds > LONG_WAIT_SECONDS else "")


def _receiver(receiver: Status) -> Text:
    """Return what a receiver of notices has not got: in yellow if it is off, or events are dead."""
    if receiver["off"] is not None:
        return Text(f"off: {receiver['off']}; {_number(receiver['pending'], 'event')} waiting", "yellow")
    age_seconds = receiver["oldest_age_seconds"]
    oldest = "" if age_seconds is None else f", the oldest for {span(max(0.0, age_seconds))}"
    waiting = f"{_number(receiver['pending'], 'event')} waiting{oldest}"
    return Text(f"{waiting}, {receiver['dead']} dead", "yellow") if receiver["dead"] else Text(waiting)


def _expiring(expiring: Status, age_seconds: float | None) -> Text:
    if not expiring or age_seconds is None:
        return Text("not counted yet")
    counts = ", ".join(f"{number:,} within {name}" for name, number in expiring.items())
    return Text(f"{counts}, counted {span(age_seconds)} ago")


def _number(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _upcoming(status: Status) -> Iterator[Line]:
    for pool in status["upcoming"][:UPCOMING]:
        left = span(pool["empty_at"] - status["at"])
        yield f"pool {pool['pool_id']}", Text(f"in {left} ({date(pool['empty_at'])}), customer {pool['customer_tid']}")


def _events(events: list[Status], *, now: float) -> Table:
    table = Table.grid(padding=(0, 2))
    for event in events:
        pool = "" if event["pool_id"] is None else f"pool {event['pool_id']}: "
        times = f", {event['times']} times" if event["times"] > 1 else ""
        late = "" if event["lateness_seconds"] is None else f", {span(event['lateness_seconds'])} late"
        table.add_row(
            Text(_time(event["at"], now=now), "dim"), Text(event["kind"]), Text(f"{pool}{event['text']}{late}{times}")
        )
    return table


def _table(lines: Iterator[Line]) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, text in lines:
        table.add_row(Text(name, "dim"), text)
    return table


def _time(at: float, *, now: float) -> str:
    """Return the time of day, with its date unless that is today."""
    shown = date(at)
    return shown[11:19] if shown[:10] == date(now)[:10] else shown[:19]
