"""The record of what the daemon and operators did; never writes."""

import argparse
import asyncio
import json
import sys
from contextlib import aclosing
from dataclasses import asdict
from typing import Final

from pool_daemon.capacity.workload import WorkloadType
from pool_daemon.commands import add_config_argument, int64
from pool_daemon.commands.arguments import add_limit_argument, instant
from pool_daemon.commands.connection import connection
from pool_daemon.errors import ExitCode, StoreUnavailableError
from pool_daemon.plain_text import cut, date, escaped, shown_id
from pool_daemon.settings import load_settings
from pool_daemon.store.client import Database
from pool_daemon.store.event_history import EventFilter, EventHistory, Record
from pool_daemon.store.event_stream import EventStream
from pool_daemon.store.records import EventKind
from pool_daemon.views.story import change
from pool_daemon.views.texts import span, type_name

EXAMPLES = (
    "pool-daemon events list --config /etc/pool-daemon/config.toml",
    "pool-daemon events list --pool 17 --since 7d",
    "pool-daemon events list --owner 144 --type container --since 2026-11-30 --until 2026-12-01T12:00",
    "pool-daemon events list --kind held --follow",
    "pool-daemon events export --since 1h > events.jsonl",
)

LINE: Final = "{:19} {:>9} {:>12} {:15} {:11} {:>8}"
HEADING: Final = LINE.format("at (UTC)", "pool", "workload", "type", "ran out of", "after")
CHANGE: Final = "{:19} {:>9} {}"
CHANGE_CHARACTERS: Final = 50
"""What of a change fits into the 80 columns of a line; JSON has all of it."""

TYPES: Final = {each.name.lower(): each for each in WorkloadType}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `list` and `export`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser(
        "list",
        help="the last events",
        description="Print the last events, oldest first: of a decommission when, which workload, what its pool had "
        "run out of, and how long after the pool ran empty; of anything else what, by whom and why. "
        "--pool, --owner and --workload have an index; give --since beside other conditions if there are millions.",
    )
    add_limit_argument(listing, default=100, what="events, the last ones")
    listing.add_argument(
        "--follow", action="store_true", help="go on with each event as it comes, until it is interrupted"
    )
    exporting = actions.add_parser(
        "export",
        help="all events since an instant, as JSON",
        description="Print all events since an instant as JSON, one a line, oldest first.",
    )
    for action in (listing, exporting):
        _add_conditions(action, since_required=action is exporting)
        add_config_argument(action)
        about = "print JSON, one event a line; instants in unix seconds"
        if action is listing:
            action.add_argument("--json", action="store_true", help=about)
        else:
            action.add_argument("--json", action="store_true", default=True, help=f"{about} (always)")


def _add_conditions(action: argparse.ArgumentParser, *, since_required: bool) -> None:
    action.add_argument("--pool", type=int64, metavar="ID", help="only of this pool")
    action.add_argument("--owner", type=int64, metavar="TID", help="only of this customer's pools")
    action.add_argument("--workload", type=int64, metavar="ID", help="only of this workload, in the pool it is in now")
    action.add_argument("--node", metavar="NODE", help="only on this node")
    action.add_argument("--kind", choices=tuple(EventKind), metavar="KIND", help="only of this kind, such as held")
    action.add_argument("--type", choices=tuple(TYPES), metavar="TYPE", help="only of this type, such as container")
    form = "a date such as 2026-11-30 or 2026-11-30T12:00 (UTC), or how long ago, such as 1h"
    action.add_argument(
        "--since", type=instant, required=since_required, metavar="WHEN", help=f"only from then on: {form}"
    )
    action.add_argument("--until", type=instant, metavar="WHEN", help="only before then")


def run(arguments: argparse.Namespace) -> ExitCode:
    """Print events."""
    settings = load_settings(arguments.config)
    wanted = EventFilter(
        pool=arguments.pool,
        owner=arguments.owner,
        workload=arguments.workload,
        node=arguments.node,
        workload_type=TYPES.get(arguments.type),
        since=arguments.since,
        until=arguments.until,
        kind=None if arguments.kind is None else EventKind(arguments.kind),
    )
    if arguments.action == "list" and arguments.follow and arguments.until is not None:
        print("pool-daemon events list: error: --until would end --follow: leave one of them out", file=sys.stderr)
        return ExitCode.USAGE
    with connection(settings) as database:
        history = EventHistory(database=database)
        if arguments.action == "export":
            return asyncio.run(_export(history, wanted))
        if arguments.follow:
            return asyncio.run(_follow(database, wanted, limit=arguments.limit, as_json=arguments.json))
        return asyncio.run(_list(history, wanted, limit=arguments.limit, as_json=arguments.json))


async def _list(history: EventHistory, wanted: EventFilter, *, limit: int, as_json: bool) -> ExitCode:
    events = await history.last(wanted, limit=limit)
    if not as_json:
        print(HEADING if events else "none")
    for event in events:
        print(json.dumps(asdict(event)) if as_json else _line(event))
    return ExitCode.OK


async def _follow(database: Database, wanted: EventFilter, *, limit: int, as_json: bool) -> ExitCode:
    """Print events until the command is interrupted; each at once, for whatever reads them."""
    if not as_json:
        print(HEADING, flush=True)
    stream = EventStream(database=database, on_wait=_say_that_it_waits)
    async with aclosing(stream.follow(wanted, limit=limit)) as events:
        async for event in events:
            print(json.dumps(asdict(event)) if as_json else _line(event), flush=True)
    return ExitCode.OK


def _say_that_it_waits(error: StoreUnavailableError) -> None:
    print(f"pool-daemon: {escaped(str(error))}; goes on by itself", file=sys.stderr, flush=True)


async def _export(history: EventHistory, wanted: EventFilter) -> ExitCode:
    async with aclosing(history.all(wanted)) as events:
        async for event in events:
            print(json.dumps(asdict(event)))
    return ExitCode.OK


def _line(event: Record) -> str:
    at = "?" if event.at is None else date(event.at).removesuffix(" UTC")
    pool_id = "?" if event.pool_id is None else event.pool_id
    if event.kind != "decommissioned":
        return CHANGE.format(at, pool_id, cut(escaped(change(event)), CHANGE_CHARACTERS)).rstrip()
    late = "?" if event.at is None or event.empty_at is None else span(max(0.0, event.at - event.empty_at))
    resources = escaped(",".join(event.resources))
    return LINE.format(at, pool_id, str(shown_id(event.workload_id)), type_name(event.workload_type), resources, late)
