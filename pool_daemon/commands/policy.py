"""Grace by owner: what an operator has agreed with single customers, each with a reason."""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

from pool_daemon.commands import add_config_argument, int64
from pool_daemon.commands.arguments import duration_or_none, line
from pool_daemon.commands.connection import connection, operator
from pool_daemon.commands.output import warn_without_grace
from pool_daemon.durations import as_written
from pool_daemon.errors import ExitCode
from pool_daemon.plain_text import date, escaped
from pool_daemon.settings import load_settings
from pool_daemon.settings.grace import LONGEST_SECONDS
from pool_daemon.store.policies import GRACE_TYPES, OwnerPolicy, PolicyStore

EXAMPLES = (
    "pool-daemon policy set 144 --container 2h --volume 7d --budget 10d --reason 'contract 12'",
    "pool-daemon policy set 144 --volume 0 --reason 'does not pay' --dry-run",
    "pool-daemon policy list --config /etc/pool-daemon/config.toml",
    "pool-daemon policy list --json | jq .grace.volume",
    "pool-daemon policy unset 144 --reason 'contract 12 has ended'",
)

LINE: Final = "{:>12}  {:23}  {:20}  {}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `list`, `set` and `unset`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser(
        "list", help="every owner's", description="Print the owners with a grace of their own."
    )
    setting = actions.add_parser(
        "set",
        help="agree a grace with an owner",
        description="Give an owner a grace of his own, in place of the one that he had: for how long workloads of each "
        "type stay after what they use has run out, and for how long his pools may be in grace within 30 days. What is "
        "not named has the default of the settings. A running daemon heeds it within seconds, for pools that are in "
        "grace already, too.",
    )
    unsetting = actions.add_parser(
        "unset",
        help="back to the default",
        description="Remove an owner's own grace: the default of the settings holds again, within seconds.",
    )
    for action in (setting, unsetting):
        action.add_argument("owner", type=int64, metavar="OWNER", help="the customer (customer_tid)")
    for name in GRACE_TYPES:
        setting.add_argument(
            _option(name), type=_seconds, dest=name, metavar="DURATION", help="such as 7d, or 0 for none"
        )
    setting.add_argument(
        "--budget", type=_seconds, metavar="DURATION", help="grace of a pool within 30 days, such as 10d"
    )
    setting.add_argument("--reason", type=line, required=True, metavar="TEXT", help="why, for the record")
    unsetting.add_argument("--reason", type=line, metavar="TEXT", help="why, for the record")
    for action in (setting, unsetting):
        action.add_argument("--dry-run", action="store_true", help="print what would be written, and do not write")
    for action in (listing, setting, unsetting):
        action.add_argument("--json", action="store_true", help="print JSON, one owner a line; durations in seconds")
        add_config_argument(action)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _seconds(text: str) -> int:
    seconds = duration_or_none(text)
    if seconds > LONGEST_SECONDS:
        raise argparse.ArgumentTypeError(f"must be at most {as_written(LONGEST_SECONDS)}")
    return seconds


def run(arguments: argparse.Namespace) -> ExitCode:
    """List, set or unset; FAILED if a listed policy is malformed, or the owner has none that could be unset."""
    chosen = _chosen(arguments) if arguments.action == "set" else None
    if arguments.action == "set" and chosen is None:
        options = ", ".join(map(_option, GRACE_TYPES))
        print(f"pool-daemon policy set: error: name what the owner gets: {options} or --budget", file=sys.stderr)
        return ExitCode.USAGE
    settings = load_settings(arguments.config)
    with connection(settings) as database:
        store = PolicyStore(database=database)
        if arguments.action != "unset":
            warn_without_grace(settings)
        if chosen is not None:
            return asyncio.run(_set(store, chosen, arguments))
        return asyncio.run((_unset if arguments.action == "unset" else _list)(store, arguments))


def _chosen(arguments: argparse.Namespace) -> OwnerPolicy | None:
    """Return the policy that is asked for, None if nothing is named that it would change."""
    named = {kind: getattr(arguments, name) for name, kind in GRACE_TYPES.items()}
    grace = {kind: seconds for kind, seconds in named.items() if seconds is not None}
    if not grace and arguments.budget is None:
        return None
    by, at = operator().identity, int(time.time())
    return OwnerPolicy(arguments.owner, grace, arguments.budget, arguments.reason, by, at)


async def _set(store: PolicyStore, policy: OwnerPolicy, arguments: argparse.Namespace) -> ExitCode:
    writes = await store.set(policy, actor=operator(), dry_run=arguments.dry_run)
    if arguments.json:
        print(json.dumps(_as_json(policy) | {"writes": [json.loads(write.to_json()) for write in writes]}))
    elif arguments.dry_run:
        print("would write, in one transaction:", *(write.to_json() for write in writes), sep="\n")
    else:
        print(f"customer {policy.owner}: {_grace(policy)}; the rest is the default")
    return ExitCode.OK


async def _unset(store: PolicyStore, arguments: argparse.Namespace) -> ExitCode:
    reason, at = arguments.reason or "", int(time.time())
    found = await store.unset(arguments.owner, actor=operator(), reason=reason, at=at, dry_run=arguments.dry_run)
    if arguments.json:
        print(json.dumps({"owner": arguments.owner, "unset": found and not arguments.dry_run}))
    elif found:
        print(f"customer {arguments.owner} {'would have' if arguments.dry_run else 'has'} the default again")
    else:
        print(f"customer {arguments.owner} has no grace of his own")
    return ExitCode.OK if found else ExitCode.FAILED


async def _list(store: PolicyStore, arguments: argparse.Namespace) -> ExitCode:
    policies = await store.read_all()
    if arguments.json:
        for policy in policies.by_owner.values():
            print(json.dumps(_as_json(policy)))
        for owner, problem in policies.malformed.items():
            print(json.dumps({"owner": owner, "problem": problem}))
    elif policies.by_owner or policies.malformed:
        print(LINE.format("owner", "set at", "by", "grace and reason"))
        for policy in policies.by_owner.values():
            print(_line(policy))
        for owner, problem in policies.malformed.items():
            print(LINE.format(str(owner), "", "", f"malformed, so the default: {escaped(problem)}"))
    else:
        print("no owner has a grace of his own")
    return ExitCode.FAILED if policies.malformed else ExitCode.OK


def _line(policy: OwnerPolicy) -> str:
    text = f"{_grace(policy)}: {escaped(policy.reason)}"
    return LINE.format(policy.owner, date(policy.at), escaped(policy.by), text)


def _grace(policy: OwnerPolicy) -> str:
    durations: Mapping[str, Any] = policy.grace_by_name | {"budget": policy.budget_seconds}
    return ", ".join(f"{name} {as_written(seconds)}" for name, seconds in durations.items() if seconds is not None)


def _as_json(policy: OwnerPolicy) -> dict[str, Any]:
    return {
        "owner": policy.owner,
        "grace": policy.grace_by_name,
        "budget": policy.budget_seconds,
        "reason": policy.reason,
        "by": policy.by,
        "at": policy.at,
    }
