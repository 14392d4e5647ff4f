"""What the next pass has to look at, beyond what newly falls due.

The watermark is the unix second up to which everything due has been looked at: a pass reads only what lies behind
it, so a pool whose nodes never answer costs nothing twice. What comes to matter again below the watermark is
entered here by id: a pool that was changed, or one of which another resource runs out later.

All of it lives in memory. Losing it loses nothing: without a watermark the next pass looks at everything overdue. So
does a pass now and then, whatever is remembered: that bounds how long anything can be missed.
"""

import heapq
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Final, NamedTuple

LONG_AGO: Final = 0
"""Says of a pool that nothing new made it due."""

MOST_CHANGES: Final = 20_000
"""Changed pools, and changed workloads, that are kept by id. Where more change before a pass takes them, as when a
backup is restored, a full scan finds them, a page at a time."""


@dataclass(frozen=True, slots=True)
class Work:
    """What one pass has taken from the agenda.

    Pools due are read from the watermark `after` (unix seconds) on, from the beginning of time if it is None.
    `asked_for` maps pools that are looked at wherever they stand to the second at which they came to that, or to
    `LONG_AGO` if they are tried again, or were missed: then it is their `empty_at`, or what it was before.
    `written` are those of them that somebody else has changed. `workload_ids` are workloads, changed as well, whose
    pools are looked at.
    """

    after: int | None
    asked_for: Mapping[int, int] = field(default_factory=dict)
    written: frozenset[int] = field(default=frozenset())
    workload_ids: frozenset[Any] = field(default=frozenset())


class _AtWork(Enum):
    """Whether a pass is at work, and whether it looks at everything overdue."""

    NOTHING = auto()
    PASS = auto()
    RESCAN = auto()


class _Wish(NamedTuple):
    """A look at the unix second `at`, at a pool that came to it at the second `since`, `written` by somebody else."""

    at: int
    since: int
    written: bool = False


class Agenda:
    """Collects what is to be looked at until a pass takes it; adding a thing twice costs nothing."""

    def __init__(self, *, rescan_seconds: float = math.inf) -> None:
        self._rescan_seconds = rescan_seconds
        self._rescanned_at: int | None = None
        self._watermark: int | None = None
        self._rescan_wanted = True
        self._wishes: dict[int, _Wish] = {}
        self._taken: dict[int, _Wish] = {}
        self._queue: list[tuple[int, int]] = []
        self._workload_ids: set[Any] = set()
        self._at_work = _AtWork.NOTHING

    @property
    def watermark(self) -> int | None:
        """The unix second up to which everything due has been looked at; None before the first look at it all."""
        return self._watermark

    @property
    def looked_past(self) -> int | None:
        """The unix second up to which nothing due can be left but what was missed.

        None while everything overdue is yet to be looked at, or is being looked at.
        """
        return None if self._rescan_wanted or self._at_work is _AtWork.RESCAN else self._watermark

    @property
    def rescan_wanted(self) -> bool:
        """Whether the next pass is to look at everything overdue."""
        return self._rescan_wanted

    def rescan(self) -> None:
        """Ask for a look at everything overdue: after a start or a gap, when anything may have been missed."""
        self._rescan_wanted = True

    def look_again(self, pool_id: int, *, at: int) -> None:
        """Ask for a look at a pool that somebody changed at the unix second `at`; of two wishes the earlier stands."""
        self._wish_if_few(pool_id, _Wish(at, since=at, written=True))

    def look_again_at_all(self, wishes: Mapping[int, int]) -> None:
        """Ask for a look at each pool that comes to it at its unix second with nobody's doing."""
        for pool_id, at in wishes.items():
            self._wish(pool_id, _Wish(at, since=at))

    def try_again(self, wishes: Mapping[int, int]) -> None:
        """Ask at its unix second for a look at each pool that had come to it before: it is no less late for that."""
        for pool_id, at in wishes.items():
            taken = self._taken.get(pool_id)
            self._wish(pool_id, taken._replace(at=at) if taken else _Wish(at, since=LONG_AGO))

    def look_at_missed(self, pool_id: int, *, at: int) -> None:
        """Ask for a look at a pool that a pass should have settled: since none has, somebody wrote it empty."""
        self._wish_if_few(pool_id, _Wish(at, since=LONG_AGO, written=True))

    def awaits(self, pool_id: int | None) -> bool:
        """Tell whether a look at a pool is asked for: it has run empty, and something of it lasts longer.

        While a pass is at work it may be about to ask, by what it read before; so the answer is yes for any pool.
        """
        return self._at_work is not _AtWork.NOTHING or pool_id in self._wishes

    def look_at_workloads(self, workload_ids: Iterable[Any]) -> None:
        """Ask for a look at the pools, yet unknown, of some workloads that were deployed."""
        self._workload_ids.update(workload_ids)
        if len(self._workload_ids) > MOST_CHANGES:
            self._workload_ids.clear()
            self._rescan_wanted = True

    def next_at(self) -> int | None:
        """Return the unix second of the earliest look that was asked for by id."""
        while self._queue and not self._stands(*self._queue[0]):
            heapq.heappop(self._queue)
        return self._queue[0][0] if self._queue else None

    def take(self, now: int) -> Work:
        """Hand out what is to be looked at by the unix second `now`.

        Whatever is added from here on, the same things included, is kept for the pass after: the world may change
        behind the back of the one that begins now.
        """
        if self._rescan_is_due(now):
            self._rescan_wanted = True
        self._at_work = _AtWork.RESCAN if self._rescan_wanted else _AtWork.PASS
        after = None if self._rescan_wanted else self._watermark
        self._rescan_wanted = False
        self._taken = {}
        return self.take_more(now, after=after)

    def take_more(self, now: int, *, after: int | None) -> Work:
        """Hand out what has come to be looked at since a pass took everything due by the unix second `after`.

        A rescan that is asked for meanwhile is left for the pass after.
        """
        asked_for: dict[int, _Wish] = {}
        while (at := self.next_at()) is not None and at <= now:
            pool_id = heapq.heappop(self._queue)[1]
            asked_for[pool_id] = self._taken[pool_id] = self._wishes.pop(pool_id)
        work = Work(
            after,
            asked_for={pool_id: wish.since for pool_id, wish in asked_for.items()},
            written=frozenset(pool_id for pool_id, wish in asked_for.items() if wish.written),
            workload_ids=frozenset(self._workload_ids),
        )
        self._workload_ids.clear()
        return work

    def put_back(self, work: Work) -> None:
        """Take back the work of a pass that did not come to its end."""
        self._at_work = _AtWork.NOTHING
        self._rescan_wanted = self._rescan_wanted or work.after is None
        self._workload_ids.update(work.workload_ids)
        for pool_id in work.asked_for:
            self._wish(pool_id, self._taken[pool_id])

    def finished(self, now: int) -> None:
        """Note that a pass has looked at everything due at the unix second `now`."""
        self._at_work = _AtWork.NOTHING
        self._watermark = now

    def rescanned(self, at: int) -> None:
        """Note that a pass that began at the unix second `at` has looked at everything overdue."""
        self._rescanned_at = at

    def forget(self) -> None:
        """Drop everything, since nobody may act on it: whoever may again begins with a look at everything overdue.

        A daemon that stands by for months would collect what it can never work off.
        """
        self._wishes.clear()
        self._queue.clear()
        self._workload_ids.clear()
        self._rescan_wanted = True

    def _rescan_is_due(self, now: int) -> bool:
        """Tell whether the last rescan is long ago, or the clock has stepped back behind what has been looked at."""
        stepped_back = self._watermark is not None and now < self._watermark
        long_ago = self._rescanned_at is not None and not 0 <= now - self._rescanned_at < self._rescan_seconds
        return stepped_back or long_ago

    def _wish_if_few(self, pool_id: int, wish: _Wish) -> None:
        if len(self._wishes) < MOST_CHANGES or pool_id in self._wishes:
            self._wish(pool_id, wish)
        else:
            self._rescan_wanted = True

    def _wish(self, pool_id: int, wish: _Wish) -> None:
        known = self._wishes.get(pool_id, wish)
        self._wishes[pool_id] = _Wish(
            min(wish.at, known.at), min(wish.since, known.since), written=wish.written or known.written
        )
        if known is wish or wish.at < known.at:
            heapq.heappush(self._queue, (wish.at, pool_id))

    def _stands(self, at: int, pool_id: int) -> bool:
        """Tell whether an entry of the queue has not been overtaken by an earlier one."""
        wish = self._wishes.get(pool_id)
        return wish is not None and wish.at == at
