"""Customers' orders for capacity: written, signed, verified, saved, credited, and shown."""

import argparse
import asyncio
from collections.abc import Mapping
from typing import Any, Final

from pool_daemon.commands import add_config_argument, reservation_files, reservations_list, reservations_write
from pool_daemon.commands.connection import connection
from pool_daemon.errors import ExitCode
from pool_daemon.settings import load_settings

EXAMPLES = (
    "pool-daemon reservations new --customer 144 --node 2fi9ZZiB --cu 2x30d --su 1x30d > r.json",
    "pool-daemon reservations new --customer 144 --pool 17 --node 2fi9ZZiB --cu 0.5x7d --currency TFT",
    "pool-daemon reservations sign r.json --key-file ~/.keys/144",
    "pool-daemon reservations sign r.json --key-file ~/.keys/9 --as sponsor",
    "pool-daemon reservations verify r.json --public-key $KEY",
    "pool-daemon reservations verify 17 --json | jq .holds",
    "pool-daemon reservations submit r.json --reason 'ticket 4711' --dry-run",
    "pool-daemon reservations apply 17 --reason 'ticket 4711' --dry-run",
    "pool-daemon reservations apply 17 --reason 'paid, and never credited' --although-escrow",
    "pool-daemon reservations list --owner 144 --unapplied",
    "pool-daemon reservations list --pool 17 --json | jq .state",
    "pool-daemon reservations show 17",
)

ON_DATABASE: Final[Mapping[str, Any]] = {
    "submit": reservations_write.submit,
    "apply": reservations_write.apply,
    "list": reservations_list.list_reservations,
    "show": reservations_list.show_reservation,
}
"""What always needs the database."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what there is to do with reservations."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for module in (reservation_files, reservations_write, reservations_list):
        module.add_actions(actions)
    for name in ("verify", *ON_DATABASE):
        add_config_argument(actions.choices[name])


def run(arguments: argparse.Namespace) -> ExitCode:
    """Do one thing with a reservation."""
    match arguments.action:
        case "new":
            return reservation_files.order(arguments)
        case "sign":
            return reservation_files.sign(arguments)
        case "verify":
            return asyncio.run(reservation_files.verify(arguments))
    with connection(load_settings(arguments.config)) as database:
        exit_code: ExitCode = asyncio.run(ON_DATABASE[arguments.action](database, arguments))
    return exit_code
