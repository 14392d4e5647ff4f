"""Pools that should have lost a workload by now, for the reconciliation, and its pauses."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final, TypeVar

from bson import Int64
from bson.raw_bson import RawBSONDocument

from pool_daemon.capacity import fields
from pool_daemon.capacity.pool import Pool
from pool_daemon.capacity.workload import FREE_TYPES
from pool_daemon.errors import NotFiniteError, UnreadableDocumentError
from pool_daemon.store.client import PAGE, Database, pages
from pool_daemon.store.codec import RAW, decoded
from pool_daemon.store.excerpts import OVERDUE_FIELDS
from pool_daemon.store.grace_decisions import GraceReader, Graces, evaluated
from pool_daemon.store.workloads import DEPLOYED, WORKLOADS

SLICE: Final = 200
"""Documents processed without a pause: about two milliseconds."""

PAUSE_SECONDS: Final = 0.0005
"""Pause between two slices. Yielding to the loop alone is not enough. Each answer of the database comes through another
thread, which gets its turn within 5 ms while this thread computes, and at once while it sleeps. Ten queries in a row,
as in a pass, take 17 ms beside a scan with this pause, and 50 ms without."""

T = TypeVar("T")


class OverduePools:
    """Finds pools whose workloads should have gone; where there is `grace`, what is in grace should not."""

    def __init__(self, *, database: Database, grace: GraceReader | None = None) -> None:
        self._workloads = database.collection(WORKLOADS, RAW)
        self._grace = grace

    async def among(self, pools: Iterable[Pool], *, now: int) -> list[int]:
        """Return the ids of those pools whose deployed workloads, listed or not, must go at the unix second `now`.

        Reading stops once all are known to be overdue; free workloads are not read at all.
        """
        waiting = {pool.pool_id: pool for pool in pools if pool.empty_at <= now and _synced(pool, now)}
        if not waiting:
            return []
        graces = None if self._grace is None else await self._grace.of(list(waiting), session=None)
        pool_ids = {"$in": list(map(Int64, waiting))}
        query = {"pool_id": pool_ids, "next_action": DEPLOYED, "workload_type": {"$nin": list(FREE_TYPES)}}
        overdue: list[int] = []
        cursor = self._workloads.find(query, OVERDUE_FIELDS, batch_size=PAGE)
        async with aclosing(pages(cursor, doing="reading deployed workloads to reconcile")) as found:
            async for raws in found:
                for pool_id, workloads in (await _by_pool(raws)).items():
                    if pool_id in waiting and _goes(waiting[pool_id], workloads, now, graces):
                        overdue.append(pool_id)
                        del waiting[pool_id]
                if not waiting:
                    break
        return sorted(overdue)


def _goes(pool: Pool, workloads: Sequence[dict[str, Any]], now: int, graces: Graces | None) -> bool:
    synced = _synced(pool, now)
    return synced is not None and bool(
        evaluated(pool, synced, workloads, now=now, graces=graces)[0].exhausted_workloads
    )


async def _by_pool(raws: Sequence[RawBSONDocument]) -> dict[int, list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    async for raw in unhurried(raws):
        try:
            workload = decoded(raw)
            found[fields.whole(workload, "pool_id", UnreadableDocumentError)].append(workload)
        except UnreadableDocumentError:
            continue  # the pass that settles the pool reports it
    return found


def _synced(pool: Pool, now: int) -> Pool | None:
    synced = replace(pool)
    try:
        synced.sync_current_capacity(now)
    except NotFiniteError:
        return None
    return synced


async def unhurried(items: Sequence[T]) -> AsyncIterator[T]:
    """Yield item by item, with pauses in which the event loop and other threads can run."""
    for number, item in enumerate(items, start=1):
        yield item
        if number % SLICE == 0:
            await asyncio.sleep(PAUSE_SECONDS)
