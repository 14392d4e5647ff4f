"""The delete orders that no node has carried out; never writes."""

import argparse
import asyncio
import heapq
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import asdict
from typing import Final

from pool_daemon.commands.arguments import add_config_and_json_arguments, add_limit_argument, duration
from pool_daemon.commands.connection import connection
from pool_daemon.errors import ExitCode
from pool_daemon.plain_text import cut, shown_id
from pool_daemon.settings import load_settings
from pool_daemon.store.waiting_orders import WaitingOrder, WaitingOrders
from pool_daemon.views.texts import span

EXAMPLES = (
    "pool-daemon orders list --config /etc/pool-daemon/config.toml",
    "pool-daemon orders list --older-than 1h",
    "pool-daemon orders list --node 2fi9ZZiB --json | jq .workload_id",
)

LINE: Final = "{:>8} {:>9} {:>12} {}"
NODE_CHARACTERS: Final = 48
"""What of a node's id fits into the 80 columns of a line; an id of the grid has 44."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `list`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser(
        "list",
        help="the orders that wait, the oldest first",
        description="Print the delete orders that wait for their nodes, the oldest first: a node that is silent leaves "
        "the workload running. Since when an order waits is known if the daemon gave it; those that the explorer gave "
        "come last.",
    )
    listing.add_argument(
        "--older-than", type=duration, metavar="DURATION", help="only orders that have waited so long, as in 1h"
    )
    listing.add_argument("--node", metavar="NODE", help="only orders of this node")
    add_limit_argument(listing, default=100, what="orders")
    add_config_and_json_arguments(listing, each="order")


def run(arguments: argparse.Namespace) -> ExitCode:
    """Print the orders that wait."""
    settings = load_settings(arguments.config)
    with connection(settings) as database:
        return asyncio.run(_list(WaitingOrders(database=database), arguments))


async def _list(orders: WaitingOrders, arguments: argparse.Namespace) -> ExitCode:
    now = time.time()
    number = undated = 0
    oldest: list[WaitingOrder] = []
    async with aclosing(orders.pages(node=arguments.node)) as pages:
        async for page in pages:
            chosen = [each for each in page if _is_older(each, arguments.older_than, now=now)]
            number += len(chosen)
            undated += sum(each.ordered_at is None for each in chosen)
            oldest = heapq.nsmallest(arguments.limit, [*oldest, *chosen], key=_age)
    for line in map(_json, oldest) if arguments.json else _text(oldest, number, undated, now=now):
        print(line)
    return ExitCode.OK


def _json(order: WaitingOrder) -> str:
    return json.dumps(asdict(order))


def _text(oldest: Sequence[WaitingOrder], number: int, undated: int, *, now: float) -> Iterator[str]:
    """Yield the lines that say how many orders wait, `undated` of them since when nobody knows, and the oldest."""
    since = "" if not oldest or oldest[0].ordered_at is None else f", the oldest for {span(now - oldest[0].ordered_at)}"
    unknown = f", {undated:,} of them not given by the daemon" if undated else ""
    yield f"{number:,} delete {'order waits' if number == 1 else 'orders wait'}{since}{unknown}"
    if oldest:
        yield LINE.format("for", "pool", "workload", "node")
    yield from (_line(order, now=now) for order in oldest)
    if number > len(oldest):
        yield f"and {number - len(oldest):,} more; --limit N shows more of them"


def _is_older(order: WaitingOrder, seconds: int | None, *, now: float) -> bool:
    return seconds is None or (order.ordered_at is not None and order.ordered_at <= now - seconds)


def _age(order: WaitingOrder) -> tuple[bool, float]:
    """Return the key that puts the oldest order first, and those of unknown age last."""
    return order.ordered_at is None, order.ordered_at or 0.0


def _line(order: WaitingOrder, *, now: float) -> str:
    return LINE.format(
        "?" if order.ordered_at is None else span(max(0.0, now - order.ordered_at)),
        "?" if order.pool_id is None else order.pool_id,
        str(shown_id(order.workload_id)),
        cut(str(shown_id(order.node_id)), NODE_CHARACTERS),
    )
