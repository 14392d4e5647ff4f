"""Pools as text for a person or JSON for a program."""

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any, Final

from pool_daemon.capacity.pool import NEVER, Pool
from pool_daemon.commands.connection import connection
from pool_daemon.commands.status_view import span
from pool_daemon.errors import ExitCode
from pool_daemon.plain_text import LAST_DATE, cut, date, escaped, shown_id
from pool_daemon.settings import Settings
from pool_daemon.store.excerpts import Excerpt, Excerpts
from pool_daemon.store.pools import PoolStore

LINE: Final = "{:>9} {:>8} {:>6} {:>6} {:>6} {:>6}  {}"
HEAD: Final = ("pool", "owner", "cu", "su", "ipv4u", "loads", "runs empty (UTC)")
"""Fits the 80 columns of the narrowest terminal in use."""

NAMED: Final = 10
"""Nodes and workloads of a pool that are shown to a person; a pool may have a million."""

LARGE: Final = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
"""The smallest amount of each unit."""


def show_pool(settings: Settings, pool_id: int, *, as_json: bool) -> ExitCode:
    """Print one pool: complete as JSON, with the first of its nodes and workloads as text.

    Raises PoolNotFoundError or UnreadableDocumentError.
    """
    with connection(settings) as database:
        if as_json:
            pool = asyncio.run(PoolStore(database=database).get_pool(pool_id))
            print(json.dumps(pool.to_json()))
            return ExitCode.OK
        excerpt = asyncio.run(Excerpts(database=database).first_of(pool_id, most=NAMED))
    for line in _lines(excerpt):
        print(line)
    return ExitCode.OK


def list_pools(settings: Settings, *, owner: int | None, as_json: bool) -> ExitCode:
    """Print every pool by id, or those of one owner; FAILED if one of them cannot be read."""
    with connection(settings) as database:
        return asyncio.run(_list(Excerpts(database=database), owner, as_json=as_json))


async def _list(excerpts: Excerpts, owner: int | None, *, as_json: bool) -> ExitCode:
    number = unreadable = 0
    async with aclosing(excerpts.all(owner)) as found:
        async for excerpt in found:
            if not number and not as_json:
                print(LINE.format(*HEAD))
            number += 1
            unreadable += excerpt.pool is None
            print(json.dumps(_json(excerpt)) if as_json else _row(excerpt))
    if not number and not as_json:
        print("there are no pools" if owner is None else f"customer {owner} has no pools")
    return ExitCode.FAILED if unreadable else ExitCode.OK


def _lines(excerpt: Excerpt) -> Iterator[str]:
    if excerpt.error is not None:
        raise excerpt.error
    for name, value in (excerpt.pool.to_json() if excerpt.pool else {}).items():
        yield f"{name:20} {_shown(name, value, excerpt)}"


def _shown(name: str, value: Any, excerpt: Excerpt) -> str:
    if name in {"empty_at", "last_updated"}:
        return _when(value)
    if isinstance(value, list):
        more = (excerpt.nodes if name == "node_ids" else excerpt.workloads) - len(value)
        named = ", ".join(str(shown_id(each)) for each in value)
        return f"{named} and {more:,} more" if more else named or "none"
    return "none" if value is None else str(value)


def _json(excerpt: Excerpt) -> dict[str, Any]:
    if excerpt.pool is None:
        return {"pool_id": _plain(excerpt.document_id), "error": str(excerpt.error)}
    pool = excerpt.pool.to_json()
    del pool["node_ids"], pool["active_workload_ids"]
    return pool | {"nodes": excerpt.nodes, "workloads": excerpt.workloads}


def _row(excerpt: Excerpt) -> str:
    pool = excerpt.pool
    if pool is None:
        return f"{shown_id(excerpt.document_id):>9} unreadable: {escaped(str(excerpt.error))}"
    left = (_amount(each) for each in _left_now(pool))
    return LINE.format(pool.pool_id, pool.customer_tid, *left, _amount(excerpt.workloads), _when(pool.empty_at))


def _left_now(pool: Pool) -> tuple[float, float, float]:
    pool.sync_current_capacity(int(time.time()))
    return pool.cus, pool.sus, pool.ipv4us


def _amount(number: float) -> str:
    """Format a number with three digits and a unit; JSON has all digits."""
    for least, unit in LARGE:
        if number >= least:
            return f"{number / least:,.3g}{unit}"
    return f"{number:.3g}"


def _when(at: int) -> str:
    """Show an instant (unix seconds) as a date, and how far away it is."""
    if at == NEVER:
        return "never"
    if not 0 <= at <= LAST_DATE:
        return str(at)
    away = at - time.time()
    shown = date(at).removesuffix(" UTC")
    return f"{shown}, in {span(away)}" if away > 0 else f"{shown}, {span(-away)} ago"


def _plain(document_id: Any) -> Any:
    """Return an id for JSON, which escapes it itself."""
    return document_id if isinstance(document_id, int | float) else cut(str(document_id))
