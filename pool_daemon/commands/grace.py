"""The pools in grace: since when and until when at most, and an operator's word on the end of one."""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, Final

from pool_daemon.commands import add_config_argument, int64
from pool_daemon.commands.arguments import add_limit_argument, duration, line
from pool_daemon.commands.connection import connection, operator
from pool_daemon.commands.output import warn_without_grace
from pool_daemon.commands.pools_edit import declined
from pool_daemon.errors import ExitCode
from pool_daemon.plain_text import date, escaped
from pool_daemon.settings import Settings, load_settings
from pool_daemon.store.client import Database
from pool_daemon.store.grace import GraceRecord, GraceStore
from pool_daemon.store.policies import default_policy
from pool_daemon.views.grace_view import GraceViews, latest_end, since
from pool_daemon.views.texts import NAMES, when

EXAMPLES = (
    "pool-daemon grace list --config /etc/pool-daemon/config.toml",
    "pool-daemon grace list --json | jq .pool_id",
    "pool-daemon grace extend 17 --by 2d --reason 'ticket 4711'",
    "pool-daemon grace end 17 --reason 'has moved away' --dry-run",
)

LINE: Final = "{:>12}  {:>12}  {:19}  {:28}  {:19}  {}"

SHOWN: Final = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `list`, `extend` and `end`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser(
        "list",
        help="the pools in grace",
        description="Print the pools in grace, with the second at which the last workload goes at the latest.",
    )
    add_limit_argument(listing, default=SHOWN, what="pools")
    extending = actions.add_parser(
        "extend",
        help="more time",
        description="Let the workloads of a pool in grace stay longer: all types, whatever the budget says, until the "
        "same second. A resource that runs out later has the usual grace.",
    )
    ending = actions.add_parser(
        "end",
        help="no more time",
        description="End the grace of a pool now: a running daemon stops within seconds what uses an exhausted "
        "resource.",
    )
    for action in (extending, ending):
        action.add_argument("pool_id", type=int64, metavar="POOL", help="the pool's id")
    extending.add_argument(
        "--by", type=duration, required=True, metavar="DURATION", help="how much longer than now foreseen, such as 2d"
    )
    ending.add_argument("--yes", action="store_true", help="do not ask for the id again")
    for action in (extending, ending):
        action.add_argument("--reason", type=line, required=True, metavar="TEXT", help="why, for the record")
        action.add_argument("--dry-run", action="store_true", help="print what would be written, and do not write")
    for action in (listing, extending, ending):
        action.add_argument("--json", action="store_true", help="print JSON, one pool a line; instants in unix seconds")
        add_config_argument(action)


def run(arguments: argparse.Namespace) -> ExitCode:
    """List, extend or end; FAILED if the pool is not in grace, or a person does not want it."""
    settings = load_settings(arguments.config)
    if arguments.action == "end" and declined(arguments, workloads="Workloads"):
        return ExitCode.FAILED
    with connection(settings) as database:
        if arguments.action != "end":
            warn_without_grace(settings)
        return asyncio.run((_list if arguments.action == "list" else _change)(database, settings, arguments))


async def _list(database: Database, settings: Settings, arguments: argparse.Namespace) -> ExitCode:
    store, end_of = GraceStore(database=database), await _ends(database, settings)
    records = await _first(store, arguments.limit)
    if arguments.json:
        for record in records:
            print(json.dumps(_as_json(record, ends_at=end_of(record))))
        return ExitCode.OK
    if not records:
        print("no pool is in grace")
        return ExitCode.OK
    print(LINE.format("pool", "owner", "in grace since", "out of", "until at most", "by"))
    for record in records:
        print(_line(record, ends_at=end_of(record)).rstrip())
    if (more := await store.count() - len(records)) > 0:
        print(f"and {more:,} more pools; --limit N shows more of them")
    return ExitCode.OK


async def _first(store: GraceStore, number: int) -> list[GraceRecord]:
    found: list[GraceRecord] = []
    async with aclosing(store.list()) as pages:
        async for page in pages:
            found += page
            if len(found) >= number:
                break
    return found[:number]


async def _change(database: Database, settings: Settings, arguments: argparse.Namespace) -> ExitCode:
    store, pool_id, at = GraceStore(database=database), arguments.pool_id, int(time.time())
    end_of = await _ends(database, settings)
    known = (await store.of([pool_id])).get(pool_id)
    if known is None or not known.grace.running:
        print(f"pool {pool_id} is not in grace", file=sys.stderr)
        return ExitCode.FAILED
    before = end_of(known)
    until = at if arguments.action == "end" else max(at, before) + arguments.by
    if not arguments.dry_run:
        await store.set_end(pool_id, until, at=at, actor=operator(), reason=arguments.reason)
    if arguments.json:
        print(json.dumps({"pool_id": pool_id, "until": until, "before": before, "changed": not arguments.dry_run}))
    else:
        would = "would be" if arguments.dry_run else "is"
        print(f"pool {pool_id} {would} in grace until {when(until, now=at)}")
        print(f"before, it was until {when(before, now=at)}")
    return ExitCode.OK


async def _ends(database: Database, settings: Settings) -> Callable[[GraceRecord], int]:
    """Return the function that tells when the grace of a pool ends at the latest, by its owner's policy."""
    now = int(time.time())
    policy_of = await GraceViews(database=database, default=default_policy(settings.grace)).policies()
    return lambda record: latest_end(policy_of(record.customer_tid), record.grace, now=now)


def _line(record: GraceRecord, *, ends_at: int) -> str:
    grace = record.grace
    resources = ", ".join(NAMES[each] for each in grace.running)
    is_operated = grace.operator_until is not None
    by = f"{escaped(record.operator_by)}: {escaped(record.operator_reason)}" if is_operated else ""
    began, ends = (date(each).removesuffix(" UTC") for each in (since(grace) or 0, ends_at))
    return LINE.format(record.pool_id, record.customer_tid, began, resources, ends, by)


def _as_json(record: GraceRecord, *, ends_at: int) -> dict[str, Any]:
    grace = record.grace
    operator_json = {"until": grace.operator_until, "by": record.operator_by, "reason": record.operator_reason}
    return {
        "pool_id": record.pool_id,
        "customer_tid": record.customer_tid,
        "since": {each: grace.since[each] for each in grace.running},
        "ends_at": ends_at,
        "operator": None if grace.operator_until is None else operator_json,
    }
