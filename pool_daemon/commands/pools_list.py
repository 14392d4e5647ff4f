"""Lists of pools: some of them, those that are overdue, and those that the daemon takes next."""

import argparse
import json
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Final

from pool_daemon.capacity.pool import NEVER, Pool
from pool_daemon.commands.output import json_id
from pool_daemon.errors import ExitCode
from pool_daemon.plain_text import escaped, shown_id
from pool_daemon.settings import Settings
from pool_daemon.store.client import Database
from pool_daemon.store.excerpts import Excerpt, Excerpts, Selection, SortBy
from pool_daemon.store.holds import HoldState, HoldStore
from pool_daemon.store.impact import ImpactReader
from pool_daemon.store.pools import PoolStore
from pool_daemon.store.quarantine import QuarantineStore
from pool_daemon.store.workloads import WorkloadStore
from pool_daemon.views.grace_view import grace_views
from pool_daemon.views.texts import short, when

LINE: Final = "{:>9} {:>8} {:>6} {:>6} {:>6} {:>6}  {}"
HEAD: Final = ("pool", "owner", "cu", "su", "ipv4u", "loads", "runs empty (UTC)")
"""Fits the 80 columns of the narrowest terminal in use."""

ORDERS: Final = {"id": SortBy.ID, "end": SortBy.END, "owner": SortBy.OWNER}


@dataclass(frozen=True, slots=True)
class Row:
    """A pool in a list; `overdue` is how many workloads it should have lost by now, None if that was not asked."""

    excerpt: Excerpt
    overdue: int | None = None


async def list_pools(database: Database, settings: Settings, arguments: argparse.Namespace) -> ExitCode:
    """Print the pools that are asked for; FAILED if one of them cannot be read."""
    now = int(time.time())
    selection = _selection(arguments, now=now)
    impact = await _impact(database, settings)
    rows = _overdue(database, selection, impact, now=now) if arguments.overdue else _plain(database, selection)
    head = (*HEAD[:-2], "to go" if arguments.overdue else "loads", HEAD[-1])
    number = unreadable = 0
    async with aclosing(rows) as found:
        async for row in found:
            if number == arguments.limit:
                print(f"pool-daemon: there are more; --limit {number} ends the list", file=sys.stderr)
                break
            if not number:
                _print_text(arguments, [LINE.format(*head)])
            number += 1
            unreadable += row.excerpt.pool is None
            print(_json(row) if arguments.json else _line(row, now=now))
    if not number:
        _print_text(arguments, [_nothing(arguments)])
    return ExitCode.FAILED if unreadable else ExitCode.OK


async def list_next(database: Database, settings: Settings, arguments: argparse.Namespace) -> ExitCode:
    """Print the pools that the daemon takes next, and how many of those that are overdue it passes over."""
    now = int(time.time())
    passed_over: Counter[str] = Counter()
    rows: list[Row] = []
    overdue = Selection(until=now, order=SortBy.END)
    async with aclosing(_overdue_pages(database, overdue, await _impact(database, settings), now=now)) as pages:
        async for page in pages:
            rows += await _taken(database, settings, page, passed_over, now=now)
            if len(rows) >= arguments.limit:
                break
    rows = rows[: arguments.limit]
    rows += await _upcoming(database, most=arguments.limit - len(rows), now=now)
    _print_text(arguments, [LINE.format(*HEAD) if rows else "no pool is going to run empty"])
    for row in rows:
        print(_json(row) if arguments.json else _line(row, now=now))
    if passed_over:
        reasons = ", ".join(f"{number:,} {reason}" for reason, number in sorted(passed_over.items()))
        print(f"pool-daemon: overdue and passed over: {reasons}", file=sys.stderr)
    return ExitCode.OK


async def _upcoming(database: Database, *, most: int, now: int) -> list[Row]:
    """Return the readable pools that run empty next, `most` of them."""
    rows: list[Row] = []
    async with aclosing(_plain(database, Selection(after=now, until=NEVER - 1, order=SortBy.END))) as found:
        while len(rows) < most and (row := await anext(found, None)) is not None:
            rows += [row] if row.excerpt.pool is not None else []
    return rows


def _print_text(arguments: argparse.Namespace, lines: Iterable[str]) -> None:
    """Print lines that are no JSON, unless JSON is asked for."""
    for line in lines if not arguments.json else ():
        print(line)


def _selection(arguments: argparse.Namespace, *, now: int) -> Selection:
    by_end = arguments.expired or arguments.overdue or arguments.within is not None
    order = ORDERS[arguments.sort or ("end" if by_end else "id")]
    selection = Selection(owner=arguments.owner, order=order)
    if arguments.within is not None:
        return replace(selection, after=now, until=now + arguments.within)
    return replace(selection, until=now) if by_end else selection


async def _plain(database: Database, selection: Selection) -> AsyncGenerator[Row, None]:
    async with aclosing(Excerpts(database=database).pages(selection)) as pages:
        async for page in pages:
            for excerpt in page:
                yield Row(excerpt)


async def _impact(database: Database, settings: Settings) -> ImpactReader:
    """Return what tells which pools lose a workload; what is in grace does not count."""
    graces = grace_views(database, settings.grace)
    return ImpactReader(database=database, grace=None if graces is None else await graces.reader())


async def _overdue(
    database: Database, selection: Selection, impact: ImpactReader, *, now: int
) -> AsyncGenerator[Row, None]:
    async with aclosing(_overdue_pages(database, selection, impact, now=now)) as pages:
        async for page in pages:
            for row in page:
                yield row


async def _overdue_pages(
    database: Database, selection: Selection, impact: ImpactReader, *, now: int
) -> AsyncGenerator[list[Row], None]:
    """Stream the pools that would lose a workload if they were settled now, and those that cannot be read."""
    workloads = WorkloadStore(database=database)
    async with aclosing(Excerpts(database=database).pages(selection)) as pages:
        async for page in pages:
            deploying = await workloads.deploying([each.pool.pool_id for each in page if each.pool is not None])
            affected = await impact.of(sorted(deploying), now=now)
            rows = []
            for excerpt in page:
                if excerpt.pool is None:
                    rows.append(Row(excerpt))
                elif excerpt.pool.pool_id in affected:
                    rows.append(Row(excerpt, affected[excerpt.pool.pool_id]))
            yield rows


async def _taken(
    database: Database, settings: Settings, rows: Iterable[Row], passed_over: Counter[str], *, now: int
) -> list[Row]:
    """Return those of some overdue pools that no guard keeps from being settled, and count the others by guard."""
    by_id = {row.excerpt.pool.pool_id: row for row in rows if row.excerpt.pool is not None}
    due = await PoolStore(database=database).due_among(by_id, until=now)
    holds = await HoldStore(database=database, identity=socket.gethostname()).of(due)
    held = {pool_id for pool_id, hold in holds.items() if settings.brake.enabled and hold.state is HoldState.HELD}
    resting = await QuarantineStore(database=database).among(by_id)
    waiting = {pool_id for pool_id, each in resting.items() if each.next_try_at > now} - held
    if held:
        passed_over["held by the brake"] += len(held)
    if waiting:
        passed_over["in quarantine"] += len(waiting)
    return [row for pool_id, row in by_id.items() if pool_id not in held | waiting]


def _nothing(arguments: argparse.Namespace) -> str:
    whose = "there are no pools" if arguments.owner is None else f"customer {arguments.owner} has no pools"
    if arguments.overdue:
        return f"{whose} that are overdue"
    if arguments.expired:
        return f"{whose} that have run empty"
    return whose if arguments.within is None else f"{whose} that run empty so soon"


def _json(row: Row) -> str:
    excerpt = row.excerpt
    if excerpt.pool is None:
        return json.dumps({"pool_id": json_id(excerpt.document_id), "error": str(excerpt.error)})
    pool = excerpt.pool.to_json()
    del pool["node_ids"], pool["active_workload_ids"]
    more: dict[str, Any] = {"nodes": excerpt.nodes, "workloads": excerpt.workloads}
    return json.dumps(pool | more | ({} if row.overdue is None else {"overdue_workloads": row.overdue}))


def _line(row: Row, *, now: int) -> str:
    excerpt = row.excerpt
    if excerpt.pool is None:
        return f"{shown_id(excerpt.document_id):>9} unreadable: {escaped(str(excerpt.error))}"
    left = (short(each) for each in _left_at(excerpt.pool, now))
    loads = excerpt.workloads if row.overdue is None else row.overdue
    at = when(excerpt.pool.empty_at, now=now)
    return LINE.format(excerpt.pool.pool_id, excerpt.pool.customer_tid, *left, short(loads), at)


def _left_at(pool: Pool, now: int) -> Sequence[float]:
    synced = replace(pool)
    synced.sync_current_capacity(now)
    return synced.cus, synced.sus, synced.ipv4us
