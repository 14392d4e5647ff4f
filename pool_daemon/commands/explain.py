"""The story of a pool or a workload, from all that the database holds; never writes."""

import argparse
import asyncio
import json
import textwrap
from dataclasses import asdict
from typing import Final

from pool_daemon.commands import int64
from pool_daemon.commands.arguments import add_config_and_json_arguments, add_limit_argument
from pool_daemon.commands.connection import connection, operator
from pool_daemon.errors import ExitCode
from pool_daemon.plain_text import date, escaped
from pool_daemon.settings import load_settings
from pool_daemon.views.explanation import Explanation, KnownReader, explanation
from pool_daemon.views.grace_view import grace_views

EXAMPLES = (
    "pool-daemon explain pool 17 --config /etc/pool-daemon/config.toml",
    "pool-daemon explain workload 501",
    "pool-daemon explain workload 501 --json | jq .problems",
)

WIDTH: Final = 80
INDENT: Final = " " * 21
"""As wide as an instant and two spaces."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `pool` and `workload`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for action, what in (("pool", "a pool"), ("workload", "a workload")):
        explaining = actions.add_parser(
            action,
            help=f"what happened to {what}, and where it stands",
            description=f"Print what happened to {what} and where it stands: purchase, changes by operators, "
            "decommissions, guards, orders. The exit code is 1 if something does not add up.",
        )
        explaining.add_argument("id", type=int64, metavar="ID", help=f"the {action}'s id")
        add_limit_argument(explaining, default=20, what="events, the last ones, and workloads")
        add_config_and_json_arguments(explaining)


def run(arguments: argparse.Namespace) -> ExitCode:
    """Print the story; FAILED if something in it does not add up."""
    settings = load_settings(arguments.config)
    with connection(settings) as database:
        graces = grace_views(database, settings.grace)
        reader = KnownReader(database=database, limit=arguments.limit, actor=operator(), graces=graces)
        read = reader.pool if arguments.action == "pool" else reader.workload
        explained = asyncio.run(explanation(lambda: read(arguments.id)))
    if arguments.json:
        print(json.dumps(asdict(explained)))
    else:
        _print(explained)
    return ExitCode.FAILED if explained.problems else ExitCode.OK


def _print(explained: Explanation) -> None:
    for line in explained.story:
        at = "earlier" if line.at is None else date(line.at).removesuffix(" UTC")
        for row in textwrap.wrap(f"{at:19}  {escaped(line.text)}", WIDTH, subsequent_indent=INDENT):
            print(row)
    print("this does not add up:" if explained.problems else "it adds up")
    for problem in explained.problems:
        for row in textwrap.wrap(f"- {escaped(problem)}", WIDTH, subsequent_indent="  "):
            print(row)
