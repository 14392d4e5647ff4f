"""What the daemon has to check, and when; whatever is added rings by itself.

The watermark is the unix second through which everything due has been settled. A pass reads only what lies behind it,
so a pool whose nodes never answer costs nothing twice. A pool that has to be checked again below the watermark is
entered here by id: it was changed, or failed, or another of its resources runs out.

All of it lives in memory. Losing it loses nothing: without a watermark the next pass is a full scan.
"""

import asyncio
import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Final, NamedTuple

UNKNOWN: Final = 0
"""Since when a pool has been due, if no entry tells: since its `empty_at`."""

MOST_CHANGES: Final = 20_000
"""Changed pools, and changed workloads, that are kept by id. Where more change before a pass takes them, as when a
backup is restored, a full scan finds them, a page at a time."""


class Cause(Enum):
    """Why a pool is checked."""

    CHANGED = auto()
    """Another writer changed it, or deployed into it."""
    RESOURCE_ENDS = auto()
    """It has run empty, and another of its resources runs out at that second."""
    RETRY = auto()
    """It is due and could not be settled before."""
    MISSED = auto()
    """It is due though passes have settled everything through its end: another writer made it so."""


class _Facts(NamedTuple):
    """What follows from a cause.

    `is_new`: the pool has been due since the entry's second, and lateness counts from there. `is_bounded`: a customer
    can cause any number of them, so a full scan takes their place where they are too many.
    """

    is_new: bool
    is_bounded: bool


FACTS: Final[Mapping[Cause, _Facts]] = {
    Cause.CHANGED: _Facts(is_new=True, is_bounded=True),
    Cause.RESOURCE_ENDS: _Facts(is_new=True, is_bounded=False),
    Cause.RETRY: _Facts(is_new=False, is_bounded=False),
    Cause.MISSED: _Facts(is_new=False, is_bounded=True),
}


@dataclass(frozen=True, slots=True)
class Work:
    """What one pass has taken.

    What is due is read behind the watermark `after` (unix seconds), all of it if that is None. `by_id` maps pools to
    check even if they lie below the watermark to the second since which they have been due, or to `UNKNOWN`. Of
    `workload_ids` the pools are checked.
    """

    after: int | None
    by_id: Mapping[int, int] = field(default_factory=dict)
    workload_ids: frozenset[Any] = field(default=frozenset())


class _AtWork(Enum):
    """Whether a pass is at work, and whether it is a full scan."""

    NOTHING = auto()
    PASS = auto()
    FULL_SCAN = auto()


class _Entry(NamedTuple):
    """A check at the unix second `at`, of a pool that has been due since the second `since`."""

    at: int
    since: int


class WorkQueue:
    """Collects what is to be checked until a pass takes it; adding a thing twice costs nothing.

    A ring carries no data: any number of them cost one round. Disarm the queue *before* reading the database, so that
    a change that comes after the read still ends the next wait.
    """

    def __init__(self) -> None:
        self._ringing = asyncio.Event()
        self._is_stale = True
        self._is_armed = False
        self._deadline: float | None = None
        self._pool_id: int | None = None
        self._expected: float | None = None
        self._added_at: int | None = None
        self._watermark: int | None = None
        self._full_scan_requested = True
        self._entries: dict[int, _Entry] = {}
        self._taken: dict[int, _Entry] = {}
        self._heap: list[tuple[int, int]] = []
        self._workload_ids: set[Any] = set()
        self._at_work = _AtWork.NOTHING

    # When: the loop waits here for what it was armed for, or for what is added.

    @property
    def deadline(self) -> float | None:
        """The armed instant (unix seconds); None if nothing is known to fall due."""
        return self._deadline

    @property
    def pool_id(self) -> int | None:
        """The pool whose end the queue is armed for, if it is armed for one."""
        return self._pool_id

    def ring(self) -> None:
        """End the wait: the next deadline has to be read anew."""
        self._is_stale = True
        self._ringing.set()

    def expect(self, at: float) -> None:
        """Ring if a pool's new end `at` (unix seconds) comes before what the queue is armed for.

        While it is disarmed that is not known yet, so `at` is remembered until then.
        """
        if not self._is_armed:
            self._expected = at if self._expected is None else min(at, self._expected)
        elif self._deadline is None or at < self._deadline:
            self.ring()

    def disarm(self) -> bool:
        """Forget every ring and deadline so far: what comes from here on counts for the next wait.

        Return whether the next deadline has to be read anew; False if pools were added by id and nothing else happened.
        """
        is_stale, self._is_stale = self._is_stale, False
        self._ringing.clear()
        self._is_armed = False
        self._deadline = self._pool_id = self._expected = self._added_at = None
        return is_stale

    def arm(self, deadline: float | None, *, pool_id: int | None = None) -> None:
        """Say what falls due next, and when (unix seconds); an entry added since the queue was disarmed may come first.

        Rings at once if an earlier end was expected since then: `deadline` was read before it came.
        """
        if self._added_at is not None and (deadline is None or self._added_at < deadline):
            deadline, pool_id = self._added_at, None
        self._is_armed = True
        self._deadline = deadline
        self._pool_id = pool_id
        if self._expected is not None:
            self.expect(self._expected)

    async def wait(self, *, within_seconds: float) -> bool:
        """Return True when it rings, at once if it has rung since it was disarmed; False if it does not in time."""
        try:
            async with asyncio.timeout(within_seconds):
                await self._ringing.wait()
        except TimeoutError:
            return False
        return True

    # What: the watcher, the guards and the reconciliation add, a pass takes.

    @property
    def watermark(self) -> int | None:
        """The unix second through which everything due has been settled; None before the first full scan."""
        return self._watermark

    @property
    def settled_through(self) -> int | None:
        """The unix second through which nothing due can be left but what was missed.

        None while a full scan is requested or at work.
        """
        return None if self._full_scan_requested or self._at_work is _AtWork.FULL_SCAN else self._watermark

    @property
    def full_scan_requested(self) -> bool:
        """Whether the next pass is a full scan."""
        return self._full_scan_requested

    def request_full_scan(self) -> None:
        """Have the next pass read everything overdue: after a start or a gap, when anything may have been missed."""
        self._full_scan_requested = True
        self.ring()

    def add(self, pool_id: int, *, at: int, cause: Cause) -> None:
        """Have a pool checked at the unix second `at`; of two entries the earlier stands."""
        facts = FACTS[cause]
        if facts.is_bounded and len(self._entries) >= MOST_CHANGES and pool_id not in self._entries:
            self.request_full_scan()
            return
        since = at if facts.is_new else UNKNOWN
        if cause is Cause.RETRY and pool_id in self._taken:
            since = self._taken[pool_id].since
        self._enter(pool_id, _Entry(at, since))
        if not self._is_armed:
            self._added_at = at if self._added_at is None else min(at, self._added_at)
        elif self._deadline is None or at < self._deadline:
            self._ringing.set()

    def add_all(self, pools: Mapping[int, int], *, cause: Cause) -> None:
        """Have each pool checked at its unix second."""
        for pool_id, at in pools.items():
            self.add(pool_id, at=at, cause=cause)

    def add_workloads(self, workload_ids: Iterable[Any]) -> None:
        """Have the pools, yet unknown, of some workloads checked that were deployed."""
        self._workload_ids.update(workload_ids)
        self._ringing.set()
        if len(self._workload_ids) > MOST_CHANGES:
            self._workload_ids.clear()
            self.request_full_scan()

    def has_pending(self, pool_id: int | None) -> bool:
        """Return whether a check of a pool is pending: it has run empty, and something of it lasts longer.

        While a pass is at work it may be about to add one, by what it read before; so the answer is yes for any pool.
        """
        return self._at_work is not _AtWork.NOTHING or pool_id in self._entries

    def next_at(self) -> int | None:
        """Return the unix second of the earliest check by id."""
        while self._heap and not self._stands(*self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def take(self, now: int) -> Work:
        """Hand out what is to be checked by the unix second `now`.

        What is added from here on, the same things included, is kept for the pass after: the world may change behind
        the back of the one that begins now.
        """
        if self._watermark is not None and now < self._watermark:  # the clock has stepped back
            self._full_scan_requested = True
        self._at_work = _AtWork.FULL_SCAN if self._full_scan_requested else _AtWork.PASS
        after = None if self._full_scan_requested else self._watermark
        self._full_scan_requested = False
        self._taken = {}
        return self.take_more(now, after=after)

    def take_more(self, now: int, *, after: int | None) -> Work:
        """Hand out what has come to be checked since a pass took everything due by the unix second `after`.

        A full scan that is requested meanwhile is left for the pass after.
        """
        by_id: dict[int, int] = {}
        while (at := self.next_at()) is not None and at <= now:
            pool_id = heapq.heappop(self._heap)[1]
            entry = self._taken[pool_id] = self._entries.pop(pool_id)
            by_id[pool_id] = entry.since
        work = Work(after, by_id=by_id, workload_ids=frozenset(self._workload_ids))
        self._workload_ids.clear()
        return work

    def put_back(self, work: Work) -> None:
        """Take back the work of a pass that did not come to its end."""
        self._at_work = _AtWork.NOTHING
        self._full_scan_requested = self._full_scan_requested or work.after is None
        self._workload_ids.update(work.workload_ids)
        for pool_id in work.by_id:
            self._enter(pool_id, self._taken[pool_id])

    def done(self, through: int) -> None:
        """Record that a pass has settled everything due by the unix second `through`."""
        self._at_work = _AtWork.NOTHING
        self._watermark = through

    def clear(self) -> None:
        """Drop everything, since this daemon may not act on it: once it may, it begins with a full scan.

        A standby would otherwise collect for months what it can never work off.
        """
        self._entries.clear()
        self._heap.clear()
        self._workload_ids.clear()
        self._full_scan_requested = True

    def _enter(self, pool_id: int, entry: _Entry) -> None:
        known = self._entries.get(pool_id, entry)
        self._entries[pool_id] = _Entry(min(entry.at, known.at), min(entry.since, known.since))
        if known is entry or entry.at < known.at:
            heapq.heappush(self._heap, (entry.at, pool_id))

    def _stands(self, at: int, pool_id: int) -> bool:
        """Return whether an entry of the heap has not been overtaken by an earlier one."""
        entry = self._entries.get(pool_id)
        return entry is not None and entry.at == at
