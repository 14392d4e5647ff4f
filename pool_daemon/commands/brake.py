"""The pools that the brake holds: their owners and reasons, and their release."""

import argparse
import asyncio
import json
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from pool_daemon.clock import SystemClock
from pool_daemon.commands import int64
from pool_daemon.commands.arguments import add_config_and_json_arguments
from pool_daemon.commands.confirmation import agreed
from pool_daemon.commands.connection import connection, operator
from pool_daemon.errors import ExitCode
from pool_daemon.plain_text import date, escaped
from pool_daemon.settings import load_settings, sections
from pool_daemon.store.events import EventStore
from pool_daemon.store.holds import Hold, HoldState, HoldStore, OwnerHolds
from pool_daemon.store.journal import Journal
from pool_daemon.telemetry import logs

EXAMPLES = (
    "pool-daemon brake status --config /etc/pool-daemon/config.toml",
    "pool-daemon brake status --json | jq .pool_id",
    "pool-daemon brake release 17 18",
    "pool-daemon brake release --owner 7",
    "pool-daemon brake release --all --yes",
)

OWNER_LINE: Final = "{:>12}  {:8}  {:>9}  {:>9}"
LINE: Final = "{:>12}  {:>12}  {:8}  {:>9}  {:23}  {:23}  {}"
UNKNOWN: Final = "unknown"
SHOWN: Final = 20
"""Owners, and pools, that are listed for a person; `--json` lists every pool."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `status` and `release`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    showing = actions.add_parser(
        "status", help="what is held, by owner", description="Print who has pools that are held, and which."
    )
    releasing = actions.add_parser(
        "release",
        help="let pools go",
        description="Let pools go: a running daemon stops what drains them within seconds. Top up first what is to "
        "be kept.",
    )
    which = releasing.add_mutually_exclusive_group(required=True)
    which.add_argument("pool_ids", type=int64, nargs="*", default=[], metavar="ID", help="a pool's id")
    which.add_argument("--owner", type=int64, metavar="TID", help="all held pools of this owner (customer_tid)")
    which.add_argument("--all", action="store_true", help="all held pools")
    releasing.add_argument("--yes", action="store_true", help="do not ask before --owner or --all")
    for action in (showing, releasing):
        add_config_and_json_arguments(action)


def run(arguments: argparse.Namespace) -> ExitCode:
    """Show holds or release them; FAILED if a pool to be released is not held, or the release is not confirmed."""
    settings = load_settings(arguments.config)
    with connection(settings) as database:
        events = EventStore(database=database, actor=operator())
        journal = Journal(events=events, clock=SystemClock(), observer=logs)
        holds = HoldStore(database=database, identity=socket.gethostname(), record=journal.add)
        if arguments.action == "status":
            return asyncio.run(_show(holds, settings.brake, as_json=arguments.json))
        if arguments.pool_ids:
            return asyncio.run(_release(holds, journal, arguments.pool_ids, as_json=arguments.json))
        return asyncio.run(_release_many(holds, journal, arguments))


async def _show(holds: HoldStore, settings: sections.Brake, *, as_json: bool) -> ExitCode:
    if as_json:
        async for page in holds.all():
            for hold in page:
                print(json.dumps(asdict(hold)))
        return ExitCode.OK
    if not settings.enabled:
        print("the brake is off: what is held below is settled all the same")
    owners = await holds.by_owner()
    if not owners:
        print("no pool is held")
        return ExitCode.OK
    print(f"{_total(owners, HoldState.HELD)} held, {_total(owners, HoldState.RELEASED)} released and not settled yet")
    print(OWNER_LINE.format("owner", "state", "pools", "workloads"))
    for each in owners[:SHOWN]:
        print(OWNER_LINE.format(each.owner or UNKNOWN, each.state, each.pools, each.workloads))
    _print_rest(len(owners) - SHOWN, "owners")
    print(LINE.format("pool", "owner", "state", "workloads", "empty since", "held since", "reason"))
    for hold in await holds.page(limit=SHOWN):
        print(_line(hold))
    _print_rest(sum(each.pools for each in owners) - SHOWN, "pools; --json lists them all")
    return ExitCode.OK


def _total(owners: Sequence[OwnerHolds], state: HoldState) -> str:
    chosen = [each for each in owners if each.state is state]
    pools, workloads = sum(each.pools for each in chosen), sum(each.workloads for each in chosen)
    return f"{pools:,} pools with {workloads:,} workloads"


def _print_rest(number: int, what: str) -> None:
    if number > 0:
        print(f"and {number:,} more {what}")


async def _release(holds: HoldStore, journal: Journal, pool_ids: Sequence[int], *, as_json: bool) -> ExitCode:
    released = await holds.release(pool_ids, at=time.time())
    await journal.write()
    not_held = sorted(set(pool_ids) - set(released))
    _print_released(len(released), not_held, as_json=as_json)
    return ExitCode.FAILED if not_held else ExitCode.OK


async def _release_many(holds: HoldStore, journal: Journal, arguments: argparse.Namespace) -> ExitCode:
    """Release all pools, or all of one owner, after a person has confirmed the decommissions that follow."""
    held = [
        each
        for each in await holds.by_owner()
        if each.state is HoldState.HELD and arguments.owner in (None, each.owner)
    ]
    if held and not arguments.yes and not _agreed(held):
        print("nothing released; --yes does it without asking", file=sys.stderr)
        return ExitCode.FAILED
    number = 0
    # Page by page, so that no single operation exceeds its time-out, however many pools there are.
    async for page in holds.all(state=HoldState.HELD, owner=arguments.owner):
        number += len(await holds.release([hold.pool_id for hold in page], at=time.time()))
        await journal.write()
    _print_released(number, [], as_json=arguments.json)
    return ExitCode.OK


def _agreed(held: Sequence[OwnerHolds]) -> bool:
    """Show what a release decommissions, and ask for confirmation."""
    going = f"{_total(held, HoldState.HELD)} of {len(held):,} owners are going to be decommissioned"
    return agreed(going, "Release them?")


def _print_released(number: int, not_held: Sequence[int], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"released": number, "not_held": not_held}))
        return
    print(f"{number} {'pool' if number == 1 else 'pools'} released")
    for pool_id in not_held:
        print(f"pool {pool_id} is not held")


def _line(hold: Hold) -> str:
    return LINE.format(
        hold.pool_id,
        hold.owner or UNKNOWN,
        hold.state,
        hold.workloads,
        date(hold.empty_at),
        date(hold.held_at),
        escaped(hold.reason),
    )
