"""Pools as a person or a program wants to read them."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from rich.table import Table

from pool_daemon.capacity.pool import NEVER, Pool
from pool_daemon.commands.connection import connection
from pool_daemon.commands.paper import paper
from pool_daemon.errors import ExitCode
from pool_daemon.settings import Settings
from pool_daemon.store.pools import PoolResult, PoolStore

LAST_DATE: Final = int(datetime.max.replace(tzinfo=UTC).timestamp())


def show_pool(settings: Settings, pool_id: int, *, as_json: bool) -> ExitCode:
    """Print one pool, whole.

    Raises PoolNotFoundError or UnreadableDocumentError.
    """
    with connection(settings) as database:
        return asyncio.run(_show(PoolStore(database=database), pool_id, as_json=as_json))


def list_pools(settings: Settings, *, owner: int | None, as_json: bool) -> ExitCode:
    """Print every pool by id, or those of one owner; FAILED if one of them cannot be read."""
    with connection(settings) as database:
        return asyncio.run(_list(PoolStore(database=database), owner, as_json=as_json))


async def _show(store: PoolStore, pool_id: int, *, as_json: bool) -> ExitCode:
    pool = await store.get_pool(pool_id)
    if as_json:
        print(json.dumps(pool.to_json()))
        return ExitCode.OK
    table = Table(show_header=False, box=None)
    for name, value in pool.to_json().items():
        table.add_row(name, _when(value) if name in {"empty_at", "last_updated"} else str(value))
    paper().print(table)
    return ExitCode.OK


async def _list(store: PoolStore, owner: int | None, *, as_json: bool) -> ExitCode:
    unreadable = 0
    table = _Listing(as_json=as_json)
    async with aclosing(_results(store, owner)) as results:
        async for result in results:
            unreadable += result.pool is None
            table.add(result)
    table.end()
    return ExitCode.FAILED if unreadable else ExitCode.OK


async def _results(store: PoolStore, owner: int | None) -> AsyncGenerator[PoolResult, None]:
    if owner is None:
        async for result in store.get_pools():
            yield result
    else:
        for pool in await store.get_pools_by_owner(owner):
            yield PoolResult(pool.pool_id, pool=pool)


class _Listing:
    """Prints pools as they come, as JSON lines or, page by page, as a table."""

    PAGE: Final = 1000

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._console = paper()
        self._table = self._page()

    def add(self, result: PoolResult) -> None:
        if self._as_json:
            print(json.dumps(_json(result)))
            return
        self._table.add_row(*_row(result))
        if self._table.row_count >= self.PAGE:
            self.end()
            self._table = self._page()

    def end(self) -> None:
        if not self._as_json and self._table.row_count:
            self._console.print(self._table)

    def _page(self) -> Table:
        table = Table(box=None, header_style="bold")
        for name in ("pool", "owner", "cu left", "su left", "ipv4u left", "workloads"):
            table.add_column(name, justify="right")
        table.add_column("runs empty")
        return table


def _json(result: PoolResult) -> dict[str, Any]:
    if result.pool is None:
        return {"pool_id": _plain(result.document_id), "error": str(result.error)}
    return result.pool.to_json()


def _row(result: PoolResult) -> tuple[str, ...]:
    pool = result.pool
    if pool is None:
        return (str(result.document_id), "", "", "", "", "", f"unreadable: {result.error}")
    return (
        str(pool.pool_id),
        str(pool.customer_tid),
        *(f"{left:,.0f}" for left in _left_now(pool)),
        str(len(pool.active_workload_ids or ())),
        _when(pool.empty_at),
    )


def _left_now(pool: Pool) -> tuple[float, float, float]:
    pool.sync_current_capacity(int(time.time()))
    return pool.cus, pool.sus, pool.ipv4us


def _when(at: int) -> str:
    """Show an instant (unix seconds) as a date, and how far away it is."""
    if at == NEVER:
        return "never"
    if not 0 <= at <= LAST_DATE:
        return str(at)
    date = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    away = timedelta(seconds=abs(at - int(time.time())))
    return f"{date}, {f'in {away}' if at > time.time() else f'{away} ago'}"


def _plain(document_id: Any) -> Any:
    return document_id if isinstance(document_id, int | str) else repr(document_id)
