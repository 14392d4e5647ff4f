"""The pools that the brake holds: which and why, and the word that lets them go."""

import argparse
import asyncio
import json
import socket
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Final

from pool_daemon.commands import add_config_argument, int64
from pool_daemon.commands.connection import connection
from pool_daemon.errors import ExitCode
from pool_daemon.plain_text import escaped
from pool_daemon.settings import load_settings, sections
from pool_daemon.store.holds import Hold, HoldStore, State

EXAMPLES = (
    "pool-daemon brake status --config /etc/pool-daemon/config.toml",
    "pool-daemon brake status --json | jq .pool_id",
    "pool-daemon brake release 17 18",
    "pool-daemon brake release",
)

LINE: Final = "{:>12}  {:8}  {:23}  {:23}  {}"
LAST_DATE: Final = int(datetime.max.replace(tzinfo=UTC).timestamp())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `status` and `release`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    showing = actions.add_parser("status", help="every pool that is held", description="Print every pool that is held.")
    releasing = actions.add_parser(
        "release",
        help="let pools go",
        description="Let pools go: a running daemon stops what drains them within seconds. Top up first what is to "
        "be kept.",
    )
    releasing.add_argument("pool_ids", type=int64, nargs="*", metavar="ID", help="a pool's id; without any, all pools")
    for action in (showing, releasing):
        add_config_argument(action)
        action.add_argument("--json", action="store_true", help="print JSON; instants in unix seconds")


def run(arguments: argparse.Namespace) -> ExitCode:
    """Show what is held, or release it; FAILED if a pool that is to be released is not held."""
    settings = load_settings(arguments.config)
    with connection(settings) as database:
        holds = HoldStore(database=database, identity=socket.gethostname())
        if arguments.action == "release":
            return asyncio.run(_release(holds, arguments.pool_ids, as_json=arguments.json))
        return asyncio.run(_show(holds, settings.brake, as_json=arguments.json))


async def _show(holds: HoldStore, settings: sections.Brake, *, as_json: bool) -> ExitCode:
    if not as_json:
        await _show_summary(holds, settings)
    async for page in holds.all():
        for hold in page:
            print(json.dumps(asdict(hold)) if as_json else _line(hold))
    return ExitCode.OK


async def _show_summary(holds: HoldStore, settings: sections.Brake) -> None:
    held, released = await holds.count(State.HELD), await holds.count(State.RELEASED)
    if not settings.enabled:
        print("the brake is off: what is held below is settled all the same")
    if not held and not released:
        print("no pool is held")
        return
    print(f"{held} held, {released} released and not settled yet")
    print(LINE.format("pool", "state", "empty since", "held since", "reason"))


async def _release(holds: HoldStore, pool_ids: Sequence[int], *, as_json: bool) -> ExitCode:
    if pool_ids:
        released = await holds.release(pool_ids, at=time.time())
        number, not_held = len(released), sorted(set(pool_ids) - set(released))
    else:
        number, not_held = await _release_all(holds), []
    if as_json:
        print(json.dumps({"released": number, "not_held": not_held}))
    else:
        print(f"{number} {'pool' if number == 1 else 'pools'} released")
        for pool_id in not_held:
            print(f"pool {pool_id} is not held")
    return ExitCode.FAILED if not_held else ExitCode.OK


async def _release_all(holds: HoldStore) -> int:
    """Release page after page, so that many pools take no longer at once than the time-out of an operation."""
    number = 0
    async for page in holds.all(State.HELD):
        number += len(await holds.release([hold.pool_id for hold in page], at=time.time()))
    return number


def _line(hold: Hold) -> str:
    return LINE.format(hold.pool_id, hold.state, _instant(hold.empty_at), _instant(hold.held_at), escaped(hold.reason))


def _instant(at: int) -> str:
    if not 0 <= at <= LAST_DATE:
        return str(at)
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
