"""A customer's order for capacity: ordered, signed and verified."""

import argparse
import asyncio
from typing import Final

from pool_daemon.commands import add_config_argument
from pool_daemon.commands.reservation_files import add_actions, order, sign, verify
from pool_daemon.errors import ExitCode

EXAMPLES = (
    "pool-daemon reservations new --customer 144 --node 2fi9ZZiB --cu 2x30d --su 1x30d > r.json",
    "pool-daemon reservations new --customer 144 --pool 17 --node 2fi9ZZiB --cu 0.5x7d --currency TFT",
    "pool-daemon reservations sign r.json --key-file ~/.keys/144",
    "pool-daemon reservations sign r.json --key-file ~/.keys/9 --as sponsor",
    "pool-daemon reservations verify r.json --public-key $KEY",
    "pool-daemon reservations verify 17 --json | jq .holds",
)

ON_DATABASE: Final = ("verify",)
"""The actions that read or write the database."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what there is to do with reservations."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    add_actions(actions)
    for name in ON_DATABASE:
        add_config_argument(actions.choices[name])


def run(arguments: argparse.Namespace) -> ExitCode:
    """Do one thing with a reservation."""
    match arguments.action:
        case "new":
            return order(arguments)
        case "sign":
            return sign(arguments)
        case _:
            return asyncio.run(verify(arguments))
