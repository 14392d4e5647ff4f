"""Shows the pools in the database; never writes."""

import argparse

from pool_daemon.commands import add_config_argument, int64
from pool_daemon.commands.output import list_pools, show_pool
from pool_daemon.errors import ExitCode
from pool_daemon.settings import load_settings

EXAMPLES = (
    "pool-daemon pools list --config /etc/pool-daemon/config.toml",
    "pool-daemon pools list --owner 144 --json | jq .empty_at",
    "pool-daemon pools show 17",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `list` and `show`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="every pool, by id", description="Print every pool, by id.")
    listing.add_argument("--owner", type=int64, metavar="TID", help="only the pools of this customer")
    showing = actions.add_parser("show", help="one pool, whole", description="Print one pool, whole.")
    showing.add_argument("pool_id", type=int64, metavar="ID", help="the pool's id")
    for action in (listing, showing):
        add_config_argument(action)
        action.add_argument("--json", action="store_true", help="print JSON, one pool a line")


def run(arguments: argparse.Namespace) -> ExitCode:
    """Print pools; one that cannot be read is shown as such, and makes the exit code 1."""
    settings = load_settings(arguments.config)
    if arguments.action == "show":
        return show_pool(settings, arguments.pool_id, as_json=arguments.json)
    return list_pools(settings, owner=arguments.owner, as_json=arguments.json)
