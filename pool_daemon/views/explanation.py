"""All that the database says of a pool or a workload, read for its story; never writes."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from pool_daemon.capacity.arithmetic import EARLIEST
from pool_daemon.errors import NotFoundError, PoolNotFoundError
from pool_daemon.store.client import Database
from pool_daemon.store.event_history import EventFilter, EventHistory
from pool_daemon.store.excerpts import Excerpt, Excerpts
from pool_daemon.store.pool_workloads import PoolWorkload, PoolWorkloads
from pool_daemon.store.quarantine import QuarantineStore
from pool_daemon.store.reconciliation import BEGINNING, Page, ReconciliationStore
from pool_daemon.store.records import Actor
from pool_daemon.views.grace_view import GraceView, GraceViews
from pool_daemon.views.pool_view import hold_of
from pool_daemon.views.story import Known, Line, lines, problems

RECHECK_SECONDS: Final = 1.0
"""Between the two readings of what does not add up; the explorer changes a pool within milliseconds."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The story, and what in it does not add up."""

    story: Sequence[Line]
    problems: Sequence[str]


async def explanation(read: Callable[[], Awaitable[Known]]) -> Explanation:
    """Return the story of what `read` returns.

    Documents are read one after the other while other programs write them. So only what does not add up twice counts.
    """
    known = await read()
    wrong = problems(known)
    if wrong:
        await asyncio.sleep(RECHECK_SECONDS)
        known = await read()
        wrong = [problem for problem in problems(known) if problem in wrong]
    return Explanation(lines(known), wrong)


class KnownReader:
    """Reads all about a pool or a workload; `limit` bounds its events and its workloads.

    A pool that lists more than `most_compared` workloads is not compared with them; None sets no bound. `actor` is the
    reader, and `graces` reads the grace of pools, if there is any; nothing is written. Every method raises
    StoreUnavailableError when MongoDB is away, and StoreRefusedError when it refuses.
    """

    def __init__(
        self,
        *,
        database: Database,
        actor: Actor,
        limit: int,
        most_compared: int | None = None,
        graces: GraceViews | None = None,
    ) -> None:
        self._database = database
        self._graces = graces
        self._actor = actor
        self._limit = limit
        self._most_compared = most_compared
        self._history = EventHistory(database=database)
        self._excerpts = Excerpts(database=database)
        self._workloads = PoolWorkloads(database=database)

    async def pool(self, pool_id: int) -> Known:
        """Read all about a pool.

        Raises PoolNotFoundError if neither the pool nor a record of it exists.
        """
        excerpt = await self._excerpt(pool_id)
        workloads = await self._workloads.first(pool_id, limit=self._limit)
        known = await self._known(pool_id, excerpt, EventFilter(pool=pool_id), workloads)
        if excerpt is None and not (known.events or known.workloads):
            raise PoolNotFoundError(f"pool {pool_id}: the specified pool could not be found")
        return known

    async def workload(self, workload_id: int) -> Known:
        """Read all about a workload and its pool.

        Raises NotFoundError if neither the workload nor a record of it exists.
        """
        workload = await self._workloads.get(workload_id)
        events = await self._history.last(EventFilter(workload=workload_id), limit=self._limit)
        if workload is None and not events:
            raise NotFoundError(f"workload {workload_id}: there is no document and no record of it")
        pool_id = workload.pool_id if workload is not None else events[-1].pool_id
        excerpt = None if pool_id is None else await self._excerpt(pool_id)
        wanted = EventFilter(workload=workload_id, pool=pool_id)
        return await self._known(pool_id or 0, excerpt, wanted, [] if workload is None else [workload])

    async def _excerpt(self, pool_id: int) -> Excerpt | None:
        try:
            return await self._excerpts.first_of(pool_id, most=1)
        except PoolNotFoundError:
            return None

    async def _known(
        self, pool_id: int, excerpt: Excerpt | None, wanted: EventFilter, workloads: Sequence[PoolWorkload]
    ) -> Known:
        now = int(time.time())
        events = await self._history.last(wanted, limit=self._limit)
        if wanted.workload is not None:
            changes = await self._history.last(EventFilter(pool=pool_id, of_pools_only=True), limit=self._limit)
            events = sorted([*changes, *events], key=lambda event: event.at or 0.0)
        is_comparable = self._most_compared is None or excerpt is None or excerpt.workloads <= self._most_compared
        return Known(
            now=now,
            pool=None if excerpt is None else excerpt.pool,
            unreadable=None if excerpt is None or excerpt.error is None else str(excerpt.error),
            bought=await self._excerpts.bought(pool_id),
            events=events,
            workloads=workloads,
            hold=await hold_of(self._database, pool_id),
            quarantined=(await QuarantineStore(database=self._database).among([pool_id])).get(pool_id),
            compared=await self._compared(pool_id, now=now) if is_comparable else None,
            grace=await self._grace(excerpt, now=now),
            workload_id=wanted.workload,
        )

    async def _grace(self, excerpt: Excerpt | None, *, now: int) -> GraceView | None:
        if self._graces is None or excerpt is None or excerpt.pool is None:
            return None
        return await self._graces.of(excerpt.pool, now=now)

    async def _compared(self, pool_id: int, *, now: int) -> Page | None:
        before = pool_id - 1 if pool_id > EARLIEST else BEGINNING
        grace = None if self._graces is None else await self._graces.reader()
        store = ReconciliationStore(database=self._database, actor=self._actor, grace=grace)
        page = await store.compare(after=before, limit=1, overdue_at=now)
        return page if page.last_id == pool_id else None
