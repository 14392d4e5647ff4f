"""Reservations in the database: who ordered what for which pool, and what became of it."""

import argparse
import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import asdict
from typing import Any, Final

from pool_daemon.capacity.escrow import ReservationState
from pool_daemon.capacity.exhaustion import Resource
from pool_daemon.commands import int64
from pool_daemon.commands.arguments import add_limit_argument
from pool_daemon.commands.output import json_id
from pool_daemon.errors import ExitCode
from pool_daemon.plain_text import cut, date, escaped, shown_id
from pool_daemon.store.client import Database, ServerClock
from pool_daemon.store.reservations import ReservationRow, Reservations
from pool_daemon.views.texts import short, units_for

LINE: Final = "{:>9} {:>9} {:>9} {:>7} {:>7} {:>7} {:>6} {}"
NAME: Final = "{:13} {}"

UNCREDITED: Final = frozenset(ReservationState) - {ReservationState.APPLIED, ReservationState.PAID}
"""The states of reservations that neither an operator nor the explorer has credited."""


def add_actions(actions: "argparse._SubParsersAction[Any]") -> None:
    """Declare `list` and `show`."""
    listing = actions.add_parser(
        "list",
        help="the reservations, or some of them",
        description="Print reservations, one a line, the newest first, and what became of each: applied (by an "
        "operator), paid (credited by the explorer), waiting (for its payment), expired, canceled, or open (the "
        "explorer waits for no payment). No condition has an index: 100,000 reservations take about a second.",
    )
    listing.add_argument("--owner", type=int64, metavar="TID", help="only of this customer")
    listing.add_argument("--pool", type=int64, metavar="ID", help="only for this pool, the one that created it too")
    chosen = listing.add_mutually_exclusive_group()
    chosen.add_argument(
        "--state", choices=tuple(each.value for each in ReservationState), help="only those of which this became"
    )
    chosen.add_argument("--unapplied", action="store_true", help="only those that nobody has credited")
    add_limit_argument(listing, default=100, what="reservations")
    showing = actions.add_parser(
        "show",
        help="one of them",
        description="Print one reservation: what it buys, for whom, on which nodes, and what became of it.",
    )
    showing.add_argument("reservation_id", type=int64, metavar="ID", help="the reservation's id")
    for action, each in ((listing, ", one reservation a line"), (showing, "")):
        action.add_argument("--json", action="store_true", help=f"print JSON{each}; instants in unix seconds")


async def list_reservations(database: Database, arguments: argparse.Namespace) -> ExitCode:
    """Print reservations."""
    now = await ServerClock(database=database).now()
    printed = 0
    async with aclosing(_chosen(database, arguments, now)) as rows:
        async for row in rows:
            if printed == arguments.limit:
                _note(arguments, "there are more; --limit N shows more of them")
                break
            if not printed:
                _note(arguments, LINE.format("id", "customer", "pool", "CU s", "SU s", "IPv4U s", "nodes", "state"))
            print(json.dumps(_json(row, now)) if arguments.json else _line(row, now))
            printed += 1
    if not printed:
        _note(arguments, "none")
    return ExitCode.OK


async def _chosen(
    database: Database, arguments: argparse.Namespace, now: float
) -> AsyncGenerator[ReservationRow, None]:
    states = UNCREDITED if arguments.unapplied else {arguments.state} if arguments.state else set(ReservationState)
    pages = Reservations(database=database).pages(owner=arguments.owner, pool=arguments.pool)
    async with aclosing(pages):
        async for page in pages:
            for row in page:
                if row.state(now) in states:
                    yield row


def _note(arguments: argparse.Namespace, text: str) -> None:
    """Print what is no data: not for programs."""
    if not arguments.json:
        print(text)


async def show_reservation(database: Database, arguments: argparse.Namespace) -> ExitCode:
    """Print one reservation.

    Raises ReservationNotFoundError.
    """
    now = await ServerClock(database=database).now()
    row = await Reservations(database=database).row(arguments.reservation_id)
    for shown in [json.dumps(_json(row, now))] if arguments.json else _lines(row, now):
        print(shown)
    return ExitCode.OK


def what_became_of(row: ReservationRow, now: float) -> str:
    """Return a reservation's state in words."""
    if row.applied is not None:
        at = "" if row.applied.at is None else f" {date(row.applied.at)}"
        return f"applied{at} by {row.applied.by}: {row.applied.reason}"
    expiration = None if row.escrow is None else row.escrow.expiration
    until = "" if expiration is None else f" until {date(expiration)}"
    return {
        ReservationState.PAID: "paid: the explorer has credited it, or is about to",
        ReservationState.WAITING: f"waits for its payment{until}",
        ReservationState.EXPIRED: f"not paid{until}: nobody credits it",
        ReservationState.CANCELED: "its payment was canceled: nobody credits it",
    }.get(row.state(now), "not applied, and the explorer waits for no payment")


def _line(row: ReservationRow, now: float) -> str:
    return LINE.format(
        str(shown_id(row.reservation_id)),
        "?" if row.customer_tid is None else row.customer_tid,
        "new" if row.pool_id == 0 else str(shown_id(row.pool)),
        *map(short, row.amounts),
        row.nodes,
        row.state(now),
    )


def _lines(row: ReservationRow, now: float) -> Iterator[str]:
    yield NAME.format("reservation", row.reservation_id)
    sponsor = f"sponsor {row.sponsor_tid}" if row.sponsor_tid else "no sponsor"
    yield NAME.format("customer", f"{'?' if row.customer_tid is None else row.customer_tid}, {sponsor}")
    yield NAME.format("pool", f"{row.pool}, which it extends" if row.pool_id else f"{row.pool}, a new one")
    yield from _purchase(row)
    yield NAME.format("nodes", row.nodes or "none")
    for node in row.node_ids:
        yield NAME.format("", cut(str(shown_id(node)), 66))
    if row.nodes > len(row.node_ids):
        yield NAME.format("", f"and {row.nodes - len(row.node_ids):,} more")
    yield NAME.format("state", escaped(what_became_of(row, now)))
    if row.applied is not None and row.escrow is not None:
        yield NAME.format("escrow", f"{row.escrow.state(now)}, beside the credit of the operator")


def _purchase(row: ReservationRow) -> Iterator[str]:
    bought = [(each, amount) for each, amount in zip(Resource, row.amounts, strict=True) if amount]
    if not bought:
        yield NAME.format("buys", "no capacity")
    for number, (resource, amount) in enumerate(bought):
        what = f"{units_for(amount, 0, resource)} ({amount:,} unit seconds)"
        yield NAME.format("" if number else "buys", what)


def _json(row: ReservationRow, now: float) -> dict[str, Any]:
    written = asdict(row)
    shown = {"reservation_id": json_id(written.pop("reservation_id")), "state": row.state(now), **written}
    return shown if row.node_ids else {name: value for name, value in shown.items() if name != "node_ids"}
