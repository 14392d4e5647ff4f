"""The pools in quarantine: which, why, and when each is tried again."""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from pool_daemon.commands import int64
from pool_daemon.commands.arguments import add_config_and_json_arguments
from pool_daemon.commands.confirmation import agreed
from pool_daemon.commands.connection import connection, operator
from pool_daemon.errors import ExitCode
from pool_daemon.plain_text import date, escaped
from pool_daemon.settings import load_settings
from pool_daemon.store.events import EventStore
from pool_daemon.store.quarantine import Quarantined, QuarantineStore
from pool_daemon.store.records import EventKind, Subject, Why, envelope

EXAMPLES = (
    "pool-daemon quarantine list --config /etc/pool-daemon/config.toml",
    "pool-daemon quarantine list --json | jq .reason",
    "pool-daemon quarantine release 17",
    "pool-daemon quarantine release --all --yes",
)

LINE: Final = "{:>12}  {:>5}  {:23}  {:23}  {}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `list` and `release`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="every pool in quarantine", description="Print every pool in quarantine.")
    releasing = actions.add_parser(
        "release",
        help="let pools out",
        description="Let a pool out of quarantine, or all; a running daemon tries them again within seconds.",
    )
    which = releasing.add_mutually_exclusive_group(required=True)
    which.add_argument("pool_id", type=int64, nargs="?", metavar="ID", help="the pool's id")
    which.add_argument("--all", action="store_true", help="all pools in quarantine")
    releasing.add_argument("--yes", action="store_true", help="do not ask for confirmation of --all")
    for action in (listing, releasing):
        add_config_and_json_arguments(action)


def run(arguments: argparse.Namespace) -> ExitCode:
    """List the pools in quarantine, or release some; FAILED if a named one is not in quarantine, or nobody confirms."""
    settings = load_settings(arguments.config)
    with connection(settings) as database:
        store = QuarantineStore(database=database)
        if arguments.action == "release":
            events = EventStore(database=database, actor=operator())
            if arguments.all:
                return asyncio.run(_release_all(store, events, arguments))
            return asyncio.run(_release(store, events, arguments.pool_id, as_json=arguments.json))
        return asyncio.run(_list(store, as_json=arguments.json))


async def _list(store: QuarantineStore, *, as_json: bool) -> ExitCode:
    empty = True
    async for quarantined in store.all():
        if not as_json and empty:
            print(LINE.format("pool", "tries", "failing since", "next try", "reason"))
        empty = False
        print(json.dumps(asdict(quarantined)) if as_json else _line(quarantined))
    if empty and not as_json:
        print("no pool is in quarantine")
    return ExitCode.OK


async def _release(store: QuarantineStore, events: EventStore, pool_id: int, *, as_json: bool) -> ExitCode:
    known = (await store.among([pool_id])).get(pool_id)
    released = await _remove(store, events, pool_id, None if known is None else known.owner)
    if as_json:
        print(json.dumps({"pool_id": pool_id, "released": released}))
    else:
        print(f"pool {pool_id} is {'released' if released else 'not in quarantine'}")
    return ExitCode.OK if released else ExitCode.FAILED


async def _release_all(store: QuarantineStore, events: EventStore, arguments: argparse.Namespace) -> ExitCode:
    """Release every pool, after a person has confirmed that all are tried again at once."""
    pools = [(each.pool_id, each.owner) async for each in store.all()]
    if pools and not arguments.yes and not agreed(f"{_number(pools)} are going to be tried again", "Release them?"):
        print("nothing released; --yes does it without asking", file=sys.stderr)
        return ExitCode.FAILED
    released = [pool for pool in pools if await _remove(store, events, *pool)]
    print(json.dumps({"released": len(released)}) if arguments.json else f"{_number(released)} released")
    return ExitCode.OK


def _number(pools: Sequence[object]) -> str:
    return f"{len(pools):,} {'pool' if len(pools) == 1 else 'pools'}"


async def _remove(store: QuarantineStore, events: EventStore, pool_id: int, owner: int | None) -> bool:
    """Remove a pool from quarantine, and record who did it; False if it was not in quarantine."""
    if not await store.remove(pool_id):
        return False
    subject, why = Subject(pool_id, owner), Why("quarantine")
    record = envelope(EventKind.RELEASED, at=time.time(), actor=events.actor, subject=subject, why=why)
    await events.add([record])
    return True


def _line(quarantined: Quarantined) -> str:
    return LINE.format(
        quarantined.pool_id,
        quarantined.tries,
        date(quarantined.first_failed_at),
        date(quarantined.next_try_at),
        escaped(quarantined.reason),
    )
