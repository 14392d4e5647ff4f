"""The quarantine: a pool that fails by itself is retried at growing intervals, then seldom, and delays no other."""

import asyncio
import heapq
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Protocol

from pool_daemon import events
from pool_daemon.backoff import Backoff
from pool_daemon.clock import Clock
from pool_daemon.errors import StoreError
from pool_daemon.settings import sections
from pool_daemon.store.error_mapping import one_line
from pool_daemon.store.pools import DuePool
from pool_daemon.store.quarantine import Quarantined
from pool_daemon.store.records import EventKind, Recording, Subject, Why, no_recording
from pool_daemon.store.store import QuarantinedPools

LOOK_SECONDS: Final = 3.0
"""Interval at which releases by an operator are looked for; an empty quarantine is not read."""

RELOAD_SECONDS: Final = 60.0
"""Interval at which the database is read even while the quarantine is empty: before this daemon took over, another one
may have put pools there."""

REMEMBERED: Final = 100_000
"""Failing pools that are remembered, some 50 MB of them. A further one is not counted, and is retried at the longest
interval."""

SAMPLE: Final = 20
"""Pools in quarantine that the status shows."""

LookAgain = Callable[[Mapping[int, int]], None]
"""Schedules a check of each pool at its unix second."""


class QuarantineObserver(events.Teller, Protocol):
    """The receiver of the state of failing pools and of the quarantine."""

    def undone_seen(self, reason: str, pools: int, since_at: float | None = None) -> None:
        """Record how many pools fail and are not in quarantine yet, and the unix second of the first failure."""

    def quarantine_seen(self, total: int, sample: Sequence[Quarantined]) -> None:
        """Record how many pools are in quarantine, with a sample ordered by next retry."""


@dataclass(slots=True)
class _Failure:
    """The failures of one pool; `owner` is None if unknown, `stored` whether they are in the database, too."""

    first_failed_at: int
    backoff: Backoff
    owner: int | None = None
    reason: str = ""
    tries: int = 0
    next_try_at: int = 0
    stored: bool = False


class Quarantine:
    """Counts the tries of each failing pool, and quarantines those that fail too often.

    The state is in memory, so that a batch is filtered without a query. The quarantine is in the database, too, for a
    restart and for operators. A write that fails is repeated later. `look_again` is called whenever a pool is to
    be retried, `record` when one comes or is settled.
    """

    def __init__(
        self,
        *,
        store: QuarantinedPools,
        settings: sections.Retry,
        clock: Clock,
        look_again: LookAgain,
        observer: QuarantineObserver,
        record: Recording = no_recording,
    ) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock
        self._look_again = look_again
        self._observer = observer
        self._record = record
        self._failures: dict[int, _Failure] = {}
        self._quarantined: set[int] = set()
        self._unwritten: set[int] = set()
        self._writing = asyncio.Lock()  # two writes about one pool must land in their order
        self._loaded_monotonic = -math.inf

    async def load(self) -> None:
        """Read the quarantine: at the start, and to notice changes by an operator or another daemon.

        Raises StoreUnavailableError or StoreRefusedError.
        """
        released = {pool_id for pool_id in self._quarantined if self._failures[pool_id].stored}
        now = math.floor(self._clock.now())
        retries = {}
        async with aclosing(self._store.all()) as everything:
            async for quarantined in everything:
                released.discard(quarantined.pool_id)
                if self._remember(quarantined):
                    retries[quarantined.pool_id] = quarantined.next_try_at
        for pool_id in released & self._quarantined:
            self._forget(pool_id)
            retries[pool_id] = now
            self._observer.tell(events.POOL_RELEASED, pool=pool_id, reason="by an operator")
        # A try may have got lost while a gate was closed. If such a pool is not due any more, no full scan finds it.
        retries |= {pool_id: now for pool_id, each in self._failures.items() if each.next_try_at < now - RELOAD_SECONDS}
        if retries:
            self._look_again(retries)
        self._loaded_monotonic = self._clock.monotonic()

    async def run(self) -> None:
        """Maintain the quarantine for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Repeat writes that failed, and notice releases; one query a minute while there is neither."""
        await self._write(sorted(self._unwritten))
        try:
            if self._quarantined or self._clock.monotonic() - self._loaded_monotonic >= RELOAD_SECONDS:
                await self.load()
        except StoreError as error:
            self._observer.tell(events.QUARANTINE_READ_FAILED, reason=str(error))
        self._report()

    def filter_allowed(self, pools: Iterable[DuePool]) -> list[DuePool]:
        """Return the pools that may be tried now, and schedule the next try of the others."""
        now = self._clock.now()
        tried, waiting = [], {}
        for pool in pools:
            failure = self._failures.get(pool.pool_id)
            if failure is None or failure.next_try_at <= now:
                tried.append(pool)
            else:
                waiting[pool.pool_id] = failure.next_try_at
        if waiting:
            self._look_again(waiting)
        return tried

    def knows(self, pool_id: int) -> bool:
        """Return whether a pool has failed by itself, and has been neither settled nor found not due since."""
        return pool_id in self._failures

    async def failed(self, pool_id: int, error: Exception, now: int, *, owner: int | None) -> int:
        """Record that a pool failed by itself at the unix second `now`; return the unix second of its next try.

        Its `owner` is None if unreadable. Errors of the database are not raised.
        """
        next_try_at = await self._count(pool_id, one_line(error), now, owner)
        self._look_again({pool_id: next_try_at})
        return next_try_at

    async def settled(self, pool_ids: Iterable[int]) -> None:
        """Forget the failures of pools that were settled; a query only if one of them was in quarantine.

        Errors of the database are not raised.
        """
        await self._release(pool_ids, "it could be settled")

    async def not_due(self, pool_ids: Iterable[int]) -> None:
        """Forget the failures of pools that are not due any more, such as those that were topped up; as `settled`."""
        await self._release(pool_ids, "it is not due any more")

    async def _release(self, pool_ids: Iterable[int], reason: str) -> None:
        for pool_id in pool_ids:
            if pool_id in self._failures:
                quarantined, owner = pool_id in self._quarantined, self._failures[pool_id].owner
                self._forget(pool_id)
                if quarantined:
                    self._observer.tell(events.POOL_RELEASED, pool=pool_id, reason=reason)
                    self._record(EventKind.RELEASED, Subject(pool_id, owner), Why(f"quarantine: {reason}"))
                    await self._write([pool_id])

    async def _count(self, pool_id: int, reason: str, now: int, owner: int | None) -> int:
        failure = self._failures.get(pool_id)
        if failure is None:
            if len(self._failures) >= REMEMBERED:
                return now + math.ceil(self._settings.max_backoff_seconds)
            failure = self._failures[pool_id] = _Failure(now, self._backoff())
        failure.tries += 1
        failure.reason = reason
        if owner is not None:
            failure.owner = owner
        if failure.tries < self._settings.attempts:
            wait_seconds = failure.backoff.next_seconds()
        else:
            wait_seconds = self._settings.quarantine_seconds * random.uniform(0.9, 1.1)  # noqa: S311 - jitter
        failure.next_try_at = now + math.ceil(wait_seconds)
        if failure.tries >= self._settings.attempts:
            await self._quarantine(pool_id, failure)
        return failure.next_try_at

    async def _quarantine(self, pool_id: int, failure: _Failure) -> None:
        if pool_id not in self._quarantined:
            self._quarantined.add(pool_id)
            self._observer.tell(events.POOL_QUARANTINED, pool=pool_id, reason=failure.reason, tries=failure.tries)
            self._record(EventKind.QUARANTINED, Subject(pool_id, failure.owner), Why(failure.reason))
        await self._write([pool_id])

    async def _write(self, pool_ids: Iterable[int]) -> None:
        """Write the state of some pools to the database; writes that fail are repeated later."""
        for pool_id in pool_ids:
            again = pool_id in self._unwritten
            self._unwritten.add(pool_id)
            try:
                async with self._writing:
                    await self._write_one(pool_id)
            except StoreError as error:
                self._unwritten.add(pool_id)
                if not again:
                    self._observer.tell(events.QUARANTINE_WRITE_FAILED, pool=pool_id, reason=str(error))
                return

    async def _write_one(self, pool_id: int) -> None:
        failure = self._failures.get(pool_id)
        if failure is None:
            await self._store.remove(pool_id)
        else:
            await self._store.save(self._document(pool_id, failure))
            failure.stored = True
        if self._failures.get(pool_id) is failure:  # else the task that changed it meanwhile waits to write it
            self._unwritten.discard(pool_id)

    def _document(self, pool_id: int, failure: _Failure) -> Quarantined:
        return Quarantined(
            pool_id=pool_id,
            owner=failure.owner,
            reason=failure.reason,
            tries=failure.tries,
            first_failed_at=failure.first_failed_at,
            next_try_at=failure.next_try_at,
            by=self._store.identity,
        )

    def _remember(self, quarantined: Quarantined) -> bool:
        """Add a pool from the database; False if this process has a state of its own for it, or no room."""
        pool_id = quarantined.pool_id
        if pool_id in self._failures or pool_id in self._unwritten or len(self._failures) >= REMEMBERED:
            return False
        self._failures[pool_id] = _Failure(
            first_failed_at=quarantined.first_failed_at,
            backoff=self._backoff(),
            owner=quarantined.owner,
            reason=quarantined.reason,
            tries=max(quarantined.tries, self._settings.attempts),
            next_try_at=quarantined.next_try_at,
            stored=True,
        )
        self._quarantined.add(pool_id)
        return True

    def _forget(self, pool_id: int) -> None:
        del self._failures[pool_id]
        self._quarantined.discard(pool_id)

    def _backoff(self) -> Backoff:
        first, longest = self._settings.initial_backoff_seconds, self._settings.max_backoff_seconds
        return Backoff(first_seconds=first, longest_seconds=longest)

    def _report(self) -> None:
        first = heapq.nsmallest(SAMPLE, self._quarantined, key=lambda pool_id: self._failures[pool_id].next_try_at)
        self._observer.quarantine_seen(
            len(self._quarantined), [self._document(pool_id, self._failures[pool_id]) for pool_id in first]
        )
        failing = self._failures.keys() - self._quarantined
        since_at = min((self._failures[pool_id].first_failed_at for pool_id in failing), default=None)
        self._observer.undone_seen("failing", len(failing), since_at)
