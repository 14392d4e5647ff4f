"""Shows the pools in the database, and changes single ones."""

import argparse
import asyncio

from pool_daemon.commands import add_config_argument, int64
from pool_daemon.commands.arguments import add_limit_argument, duration
from pool_daemon.commands.connection import connection
from pool_daemon.commands.pools_edit import add_actions, edit_pool
from pool_daemon.commands.pools_list import list_next, list_pools
from pool_daemon.commands.pools_show import show_pool
from pool_daemon.commands.pools_what_if import add_what_if, answer
from pool_daemon.errors import ExitCode
from pool_daemon.settings import load_settings

EXAMPLES = (
    "pool-daemon pools list --config /etc/pool-daemon/config.toml",
    "pool-daemon pools list --owner 144 --json | jq .empty_at",
    "pool-daemon pools list --within 1h --sort owner",
    "pool-daemon pools list --overdue",
    "pool-daemon pools next --limit 3",
    "pool-daemon pools show 17",
    "pool-daemon pools create --owner 144 --node 2fi9ZZiB --cu 2x30d --su 1x30d",
    "pool-daemon pools top-up 17 --cu 0.5x7d --reason 'ticket 4711' --dry-run",
    "pool-daemon pools show 17 --lasts 7d --json | jq .to_last.buy",
    "pool-daemon pools what-if 17 --add container:cpu=2,memory=4096 --lasts 120s",
    "pool-daemon pools what-if 17 --add public_ip --remove 501 --cu 1x7d --lasts 30d",
    "pool-daemon pools what-if 17 --node 2fi9ZZiB --owner 144",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what there is to do with pools."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="the pools, or some of them", description="Print pools, one a line.")
    _add_selection(listing)
    upcoming = actions.add_parser(
        "next",
        help="what the daemon takes next",
        description="Print the pools that the daemon takes next: those that should have lost workloads by now and are "
        "neither held nor in quarantine, then those that run empty next. A pool that has run out of one resource and "
        "still has workloads on another is not foreseen.",
    )
    add_limit_argument(upcoming, default=10, what="pools")
    showing = actions.add_parser(
        "show",
        help="one pool, whole",
        description="Print one pool: what is left and until when, what to buy, its workloads, and whether it is held.",
    )
    showing.add_argument("pool_id", type=int64, metavar="ID", help="the pool's id")
    showing.add_argument(
        "--lasts",
        type=duration,
        default="30d",
        metavar="DURATION",
        help="say what to buy for the pool to last so much longer (default: 30d)",
    )
    add_limit_argument(showing, default=20, what="workloads")
    add_actions(actions)
    what_if = add_what_if(actions)
    for action in (listing, upcoming, showing, what_if):
        add_config_argument(action)
        action.add_argument("--json", action="store_true", help="print JSON, one pool a line; instants in unix seconds")


def _add_selection(listing: argparse.ArgumentParser) -> None:
    listing.add_argument("--owner", type=int64, metavar="TID", help="only the pools of this customer")
    ends = listing.add_mutually_exclusive_group()
    ends.add_argument("--expired", action="store_true", help="only pools that have run empty")
    ends.add_argument("--within", type=duration, metavar="DURATION", help="only pools that run empty so soon, as in 1h")
    ends.add_argument(
        "--overdue", action="store_true", help="only pools that should have lost workloads by now, and how many"
    )
    listing.add_argument(
        "--sort",
        choices=("id", "end", "owner"),
        help="the order (default: end with --expired, --within and --overdue, else id)",
    )
    add_limit_argument(listing, default=None, what="pools")


def run(arguments: argparse.Namespace) -> ExitCode:
    """Print or change pools; one that cannot be read is shown as such, and makes the exit code 1."""
    settings = load_settings(arguments.config)
    reads = {"list": list_pools, "next": list_next, "show": show_pool, "what-if": answer}
    action = reads.get(arguments.action, edit_pool)
    with connection(settings) as database:
        return asyncio.run(action(database, settings, arguments))
