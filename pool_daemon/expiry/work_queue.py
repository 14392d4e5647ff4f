"""The work queue: what the daemon has to check, and when. What comes before the armed deadline rings.

The watermark is the unix second through which everything due was settled, held, or put aside to be checked by id. A
pass reads only what lies behind it, so a pool whose nodes never answer costs nothing twice. A pool that has to be
checked again below the watermark is added here by id: it was changed, or failed, or another of its resources runs out.

The queue is in memory only. Its loss loses no work: without a watermark the next pass is a full scan.
"""

import asyncio
import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Final, NamedTuple

UNKNOWN: Final = 0
"""The due time of a pool whose entry does not have one: it has been due since its `empty_at`."""

MOST_CHANGES: Final = 20_000
"""Changed pools, and changed workloads, that are kept by id. If more change before a pass takes them, as when a backup
is restored, a full scan finds them, a page at a time. Retries take no room from them."""


class Cause(Enum):
    """The cause of a check of a pool."""

    CHANGED = auto()
    """Another writer changed the pool, or deployed into it."""
    RESOURCE_ENDS = auto()
    """The pool has run empty, and another of its resources runs out at that second."""
    RETRY = auto()
    """The pool is due and could not be settled before."""
    MISSED = auto()
    """The pool is due although passes have settled everything through its end: another writer made it so."""


class _Facts(NamedTuple):
    """The properties of a cause.

    `is_new`: the pool has been due since the entry's second, and lateness counts from there. `is_bounded`: a customer
    can cause any number of such entries, so beyond `MOST_CHANGES` a full scan takes their place.
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
    """The work that one pass has taken.

    Pools that ran empty behind the watermark `after` (unix seconds) are read from the database; all of them if that is
    None. `by_id` maps pools to check even if they lie below the watermark to the second since which they have been due,
    or to `UNKNOWN`. The pools of `workload_ids` are checked, too.
    """

    after: int | None
    by_id: Mapping[int, int] = field(default_factory=dict)
    workload_ids: frozenset[Any] = field(default=frozenset())


class _AtWork(Enum):
    """The kind of pass in progress, if any."""

    NOTHING = auto()
    PASS = auto()
    FULL_SCAN = auto()


class _Entry(NamedTuple):
    """A check at the unix second `at`, of a pool that has been due since the second `since`.

    `is_bounded`: it is there for bounded causes alone, so it counts against `MOST_CHANGES`.
    """

    at: int
    since: int
    is_bounded: bool


class WorkQueue:
    """Collects what is to be checked until a pass takes it; adding an entry twice costs nothing.

    A ring carries no data: any number of rings cost one round. Disarm the queue *before* reading the database, so that
    a change that comes after the read still ends the next wait.

    To be read from outside, and set by the queue alone: `deadline`, the armed instant (unix seconds), None if none is
    known; `armed_pool_id`, the pool that runs empty then, if any; `watermark`, None before the first full scan;
    `full_scan_requested`, whether the next pass is a full scan.
    """

    def __init__(self) -> None:
        self._ringing = asyncio.Event()
        self._is_stale = True
        self._is_armed = False
        self.deadline: float | None = None
        self.armed_pool_id: int | None = None
        self._expected: float | None = None
        self._added_at: int | None = None
        self.watermark: int | None = None
        self.full_scan_requested = True
        self._coming_scan: asyncio.TimerHandle | None = None
        self._entries: dict[int, _Entry] = {}
        self._bounded_entries = 0
        self._taken: dict[int, _Entry] = {}
        self._heap: list[tuple[int, int]] = []
        self._workload_ids: set[Any] = set()
        self._at_work = _AtWork.NOTHING

    # When: the loop waits here for the armed deadline, or for an addition.

    def ring(self) -> None:
        """End the wait of the loop, which then reads the next deadline again."""
        self._is_stale = True
        self._ringing.set()

    def expect(self, at: float) -> None:
        """Ring if a pool's new end `at` (unix seconds) comes before the armed deadline.

        While the queue is disarmed that is unknown, so `at` is remembered until it is armed.
        """
        if not self._is_armed:
            self._expected = at if self._expected is None else min(at, self._expected)
        elif self.deadline is None or at < self.deadline:
            self.ring()

    def disarm(self) -> bool:
        """Discard all rings and deadlines so far: later ones count for the next wait.

        Return whether the next deadline has to be read again; False if pools were added by id and nothing else
        happened.
        """
        is_stale, self._is_stale = self._is_stale, False
        self._ringing.clear()
        self._is_armed = False
        self.deadline = self.armed_pool_id = self._expected = self._added_at = None
        return is_stale

    def arm(self, deadline: float | None, *, pool_id: int | None = None) -> None:
        """Set what falls due next, and when (unix seconds).

        Rings at once if, since the queue was disarmed, an earlier check was added, or an earlier end expected:
        `deadline` was read before that.
        """
        self._is_armed = True
        self.deadline = deadline
        self.armed_pool_id = pool_id
        if self._added_at is not None and (deadline is None or self._added_at < deadline):
            self._ringing.set()
        if self._expected is not None:
            self.expect(self._expected)

    async def wait(self, *, within_seconds: float) -> bool:
        """Return True on a ring, at once if one came since the queue was disarmed; False after `within_seconds`."""
        try:
            async with asyncio.timeout(within_seconds):
                await self._ringing.wait()
        except TimeoutError:
            return False
        return True

    # What: watcher, guards and reconciliation add entries, a pass takes them.

    @property
    def settled_through(self) -> int | None:
        """The unix second through which no due pool is left, but for those held, put aside by id, or missed.

        None while a full scan is requested, now or soon, or in progress.
        """
        is_known = not self.full_scan_is_ahead and self._at_work is not _AtWork.FULL_SCAN
        return self.watermark if is_known else None

    @property
    def full_scan_is_ahead(self) -> bool:
        """Whether a full scan is requested, or is to be requested soon."""
        return self.full_scan_requested or self._coming_scan is not None

    def request_full_scan(self) -> None:
        """Make the next pass a full scan: after a start or a gap, when anything may have been missed."""
        self.full_scan_requested = True
        if self._coming_scan is not None:
            self._coming_scan.cancel()
            self._coming_scan = None
        self.ring()

    def request_full_scan_in(self, seconds: float) -> None:
        """Request a full scan in some seconds, unless another one comes before."""
        if seconds <= 0:
            self.request_full_scan()
        elif not self.full_scan_is_ahead:
            self._coming_scan = asyncio.get_running_loop().call_later(seconds, self.request_full_scan)

    def add(self, pool_id: int, *, at: int, cause: Cause) -> None:
        """Add a check of a pool at the unix second `at`; of two entries the earlier one stays."""
        facts = FACTS[cause]
        if facts.is_bounded and self._bounded_entries >= MOST_CHANGES and pool_id not in self._entries:
            self.request_full_scan()
            return
        since = at if facts.is_new else UNKNOWN
        if cause is Cause.RETRY and pool_id in self._taken:
            since = self._taken[pool_id].since
        self._enter(pool_id, _Entry(at, since, facts.is_bounded))
        if not self._is_armed:
            self._added_at = at if self._added_at is None else min(at, self._added_at)
        elif self.deadline is None or at < self.deadline:
            self._ringing.set()

    def add_all(self, pools: Mapping[int, int], *, cause: Cause) -> None:
        """Add a check of each pool at its unix second."""
        for pool_id, at in pools.items():
            self.add(pool_id, at=at, cause=cause)

    def retry(self, pools: Mapping[int, int]) -> None:
        """Add a retry of each pool, which is due already, at its unix second."""
        self.add_all(pools, cause=Cause.RETRY)

    def add_workloads(self, workload_ids: Iterable[Any]) -> None:
        """Add a check of the pools, not known yet, of some deployed workloads."""
        self._workload_ids.update(workload_ids)
        self._ringing.set()
        if len(self._workload_ids) > MOST_CHANGES:
            self._workload_ids.clear()
            self.request_full_scan()

    def may_be_checked_later(self, pool_id: int | None) -> bool:
        """Return whether a check of a pool by id is ahead, or a pass in progress may be about to add one.

        It may add one for any pool, by what it read before. Such a check is at the end of another resource, for one.
        """
        return self._at_work is not _AtWork.NOTHING or pool_id in self._entries

    def is_entered(self, pool_id: int) -> bool:
        """Return whether a check of a pool by id is ahead."""
        return pool_id in self._entries

    def next_at(self) -> int | None:
        """Return the unix second of the earliest check by id."""
        while self._heap and not self._stands(*self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def take(self, now: int) -> Work:
        """Return what is to be checked by the unix second `now`.

        Later additions, the same ones included, are kept for the next pass: the database may change while this one
        reads.
        """
        if self.watermark is not None and now < self.watermark:  # the clock has stepped back
            self.full_scan_requested = True
        self._at_work = _AtWork.FULL_SCAN if self.full_scan_requested else _AtWork.PASS
        after = None if self.full_scan_requested else self.watermark
        self.full_scan_requested = False
        self._taken = {}
        return self.take_more(now, after=after)

    def take_more(self, now: int, *, after: int | None) -> Work:
        """Return what is to be checked by the unix second `now`, without what is due at `after` already.

        A pass in progress takes more while it lasts. A full scan that is requested meanwhile is left to the next pass.
        """
        by_id: dict[int, int] = {}
        while (at := self.next_at()) is not None and at <= now:
            pool_id = heapq.heappop(self._heap)[1]
            entry = self._taken[pool_id] = self._entries.pop(pool_id)
            self._bounded_entries -= entry.is_bounded
            by_id[pool_id] = entry.since
        work = Work(after, by_id=by_id, workload_ids=frozenset(self._workload_ids))
        self._workload_ids.clear()
        return work

    def put_back(self, work: Work) -> None:
        """Add the work of an unfinished pass again."""
        self._at_work = _AtWork.NOTHING
        self.full_scan_requested = self.full_scan_requested or work.after is None
        self._workload_ids.update(work.workload_ids)
        for pool_id in work.by_id:
            self._enter(pool_id, self._taken[pool_id])

    def done(self, through: int) -> None:
        """Record that what is due by the unix second `through` was settled, held, or put aside to be checked by id."""
        self._at_work = _AtWork.NOTHING
        self.watermark = through

    def clear(self) -> None:
        """Drop everything, because this daemon may not act; once it may, it begins with a full scan.

        Otherwise a standby would collect entries for months without ever working them off.
        """
        self._entries.clear()
        self._bounded_entries = 0
        self._heap.clear()
        self._workload_ids.clear()
        self.full_scan_requested = True

    def _enter(self, pool_id: int, entry: _Entry) -> None:
        known = self._entries.get(pool_id, entry)
        is_bounded = entry.is_bounded and known.is_bounded
        self._bounded_entries += is_bounded - (pool_id in self._entries and known.is_bounded)
        self._entries[pool_id] = _Entry(min(entry.at, known.at), min(entry.since, known.since), is_bounded)
        if known is entry or entry.at < known.at:
            heapq.heappush(self._heap, (entry.at, pool_id))

    def _stands(self, at: int, pool_id: int) -> bool:
        """Return whether an entry of the heap has not been replaced by an earlier one."""
        entry = self._entries.get(pool_id)
        return entry is not None and entry.at == at
