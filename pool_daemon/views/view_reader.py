"""What the page shows of one pool or one owner: plain values for JSON, of bounded length and read in bounded time."""

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from pool_daemon.errors import PoolNotFoundError, UnreadableDocumentError
from pool_daemon.plain_text import cut, date, escaped
from pool_daemon.store.client import Database
from pool_daemon.store.owned_pools import MOST_COUNTED, MOST_READ, OwnedPool, OwnedPoolStore, time_limit
from pool_daemon.store.records import Actor
from pool_daemon.views.explanation import KnownReader, explanation
from pool_daemon.views.grace_view import GraceViews
from pool_daemon.views.pool_view import (
    RESOURCE_COLUMNS,
    WORKLOAD_COLUMNS,
    Limits,
    PoolView,
    facts,
    purchase_head,
    purchase_rows,
    read_pool,
    resource_row,
    workload_row,
    workloads_head,
)
from pool_daemon.views.texts import when

LIMIT_SECONDS: Final = 3.0
"""Time for all reads of one view, with a second between two readings of what does not add up."""

LIMITS: Final = Limits(workloads=20, purchase_seconds=30 * 86_400, most_counted=10_000)

MOST_COMPARED: Final = 2000
"""A pool that lists more workloads is not compared with them: that keeps the event loop busy for a while."""

EVENTS: Final = 20

POOLS: Final = 50

CHARACTERS: Final = 300
"""The longest text in a view."""


class ViewReader:
    """Reads views of `pools` and of `owners`, with their grace if there is any; `actor` is the reader.

    Nothing is written.
    """

    def __init__(self, *, database: Database, actor: Actor, graces: GraceViews | None = None) -> None:
        self._database = database
        self._graces = graces
        self._known = KnownReader(
            database=database, actor=actor, limit=EVENTS, most_compared=MOST_COMPARED, graces=graces
        )
        self._owned = OwnedPoolStore(database=database)

    async def read(self, kind: str, number: int) -> dict[str, Any]:
        """Return the view of the pool of that id, or of the owner of that id.

        Raises PoolNotFoundError, StoreUnavailableError, or StoreRefusedError if the server's time was too short.
        """
        with time_limit(LIMIT_SECONDS):
            view = await (self._pool(number) if kind == "pools" else self._owner(number))
        bounded: dict[str, Any] = _bounded(view)
        return bounded

    async def _pool(self, pool_id: int) -> dict[str, Any]:
        try:
            pool = await read_pool(self._database, pool_id, limits=LIMITS, graces=self._graces)
        except (PoolNotFoundError, UnreadableDocumentError):
            pool = None  # its story says why
        explained = await explanation(lambda: self._known.pool(pool_id))
        story = [
            {"at": line.at, "date": "earlier" if line.at is None else date(line.at), "text": line.text}
            for line in explained.story
        ]
        is_compared = pool is None or pool.excerpt.workloads <= MOST_COMPARED
        return {
            "pool": str(pool_id),  # as text: JavaScript has no integers of 64 bits
            "owner": None if pool is None else str(pool.pool.customer_tid),
            "at": time.time(),
            "story": story,
            "problems": explained.problems,
            "is_compared": is_compared,
            **({} if pool is None else _standing(pool)),
        }

    async def _owner(self, owner: int) -> dict[str, Any]:
        found = await self._owned.of(owner, limit=POOLS)
        now = time.time()
        graces = {} if self._graces is None else await self._graces.running([each.pool_id for each in found.first])
        return {
            "owner": str(owner),
            "at": now,
            "pools": found.pools,
            "is_counted": found.pools < MOST_COUNTED,
            "is_sorted": found.pools <= MOST_READ,
            "first": [_owned(each, graces.get(each.pool_id), now=now) for each in found.first],
        }


def _standing(pool: PoolView) -> dict[str, Any]:
    """Return how a pool stands, in the texts of `pools show`."""
    return {
        "facts": list(facts(pool)),
        "resource_columns": RESOURCE_COLUMNS,
        "resources": [resource_row(each, now=pool.now) for each in pool.outlooks],
        "purchase_head": purchase_head(pool),
        "purchase": list(purchase_rows(pool)),
        "workloads_head": workloads_head(pool),
        "workload_columns": WORKLOAD_COLUMNS,
        "workloads": [workload_row(each) for each in pool.workloads],
        "more_workloads": max(0, pool.more_workloads),
    }


def _owned(pool: OwnedPool, grace_since: int | None, *, now: float) -> dict[str, Any]:
    ends = "unreadable" if pool.empty_at is None else when(pool.empty_at, now=now)
    if grace_since is not None and pool.empty_at is not None and pool.empty_at <= now:
        ends = f"in grace since {date(grace_since).removesuffix(' UTC')}"
    return asdict(pool) | {"pool_id": str(pool.pool_id), "ends": ends}


def _bounded(value: Any) -> Any:
    """Return plain values in which every text is escaped and of bounded length: customers choose some of them."""
    if isinstance(value, str):
        return cut(escaped(cut(value, CHARACTERS)), CHARACTERS)
    if isinstance(value, Mapping):
        return {name: _bounded(each) for name, each in value.items()}
    return [_bounded(each) for each in value] if isinstance(value, list | tuple) else value
