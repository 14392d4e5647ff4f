"""The brake: pools that end unexpectedly are held if they are suspiciously many, until an operator releases them.

**The measure.** A pool is unexpected if it would lose a workload (one that has grace: when its grace begins) and its
end could not be known: another writer wrote it when that end was past or within `notice_seconds`, or it is found due
although the change stream has not told of it (a start, a gap, a full scan that finds more than earlier passes have
settled). An end that stood in the database for longer holds no pool, however many end with it, unless no daemon watched
when it came; a standby watches, too, so that a take-over holds nothing. A pool that was allowed, for a day at most, or
released is not unexpected again until it is settled, unless it is written after that (a released one: since held).

**The limit.** Unexpected pools are too many if those in flight, those that have lost a workload lately and the new ones
together exceed both `min_pools`, for which each owner counts for a few at most, and `max_share` of the pools in use.
Then the new ones are held, and no others.

**The decision.** A pool that may be unexpected is protected: a transaction that would take a workload from it withholds
it instead, which leaves it unchanged. Only withheld pools are judged, and only their numbers are kept in memory.

- *Near* pools (written close to their end) are known from the change stream, and counted before each batch. While they
  are few, they are not even protected. A write that the stream has not reported when the batch begins, some
  milliseconds later, is not counted.
- *Late* pools are *past* (written over a minute after their end) or *unseen* (found due though no change told of them).
  A restored backup brings them in pieces, so full scans count them, by kind and owner, before any goes (see `Brake`).
  Held pools count, too: while one part of a backup waits for an operator, the rest of it does.

**What customers can do.** One owner alone cannot have any pool held, neither those of others nor his own. A customer
with more than `min_pools / per_owner` identities (21 by default), whose pools also exceed the share (a hundred
identities count for 500 pools), can have two kinds of pools held. The first are his own that he wrote within
`notice_seconds` of their end: their workloads run on unpaid. The second are those of others that were written as late
as his, or ended while no daemon acted. `pool-daemon brake status` shows that, for it groups held pools by owner;
`brake release --owner` ends it.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final

from pool_daemon.capacity.pool import NEVER
from pool_daemon.clock import Clock
from pool_daemon.guards.held_pools import HeldPools
from pool_daemon.guards.unexpected import Census, Key, Kind, UnexpectedPools, measure
from pool_daemon.settings import sections
from pool_daemon.store.cases import Settlement
from pool_daemon.store.holds import HoldState
from pool_daemon.store.pool_counts import MOST, PoolCounts
from pool_daemon.store.pools import DuePool

STILL_SECONDS: Final = 5.0
"""For how long a number of late pools above `min_pools` has to stand before they may go: a restore pauses between its
parts, and a busy server makes it slower."""

RECOUNT_SECONDS: Final = 1.0
"""Interval of the full scans meanwhile."""


class Brake:
    """Decides which due pools may be settled, batch by batch, in one pass at a time.

    Late pools are judged by one full scan after the other:
    1. the first one counts them, withholds them all, and has the next one follow at once;
    2. that holds all late pools if the count is too many, and lets as many as were counted go if they are few;
    3. else it counts them again, and so does a scan each second;
    4. once the count has not grown for `STILL_SECONDS`, that scan lets as many go.

    Every method that is awaited raises StoreUnavailableError or StoreRefusedError.
    """

    def __init__(self, *, held: HeldPools, pool_counts: PoolCounts, settings: sections.Brake, clock: Clock) -> None:
        self.unexpected = UnexpectedPools(settings, clock)
        self._held = held
        self._pool_counts = pool_counts
        self._settings = settings
        self._clock = clock
        self._in_pass = False  # late pools are judged when a pass begins, and not again before it is over
        self._reasons: dict[Kind, str | None] = dict.fromkeys(Kind)  # why this pass holds withheld pools of a kind
        self._cleared = Census()  # how many late pools this pass may still let go
        self._waiting = Census()  # late pools that a full scan has counted, for the next one to judge
        self._counted = 0  # how many were counted when they were judged last; 0 if they were let go
        self._grew_monotonic = -math.inf  # when that number grew last
        self._judged_writes = 0  # how many writes had been reported when near pools were judged last

    async def inspect(self, after: int | None, now: int) -> None:
        """Decide what to hold in a pass over the unix seconds (after, now], a full scan if `after` is None.

        To be awaited before any of it is settled; if it fails, nothing may be settled.
        """
        if not self._settings.enabled:
            return
        if not self._in_pass:
            await self._judge_late(after, now)
        await self._judge_near(now)
        self._in_pass = True

    async def filter_allowed(self, pools: Sequence[DuePool], *, now: int, full_scan: bool) -> list[DuePool]:
        """Return the pools that may be settled at the unix second `now`: unexpected ones protected, others in flight.

        No query while nothing is held and few ends were written near.
        """
        if not self._settings.enabled:
            return [replace(pool, protected=False) for pool in pools]
        if self.unexpected.writes != self._judged_writes:  # a bulk edit writes thousands within a second
            await self._judge_near(now)
        holds = await self._held.of(pools)
        allowed: list[DuePool] = []
        for pool in pools:
            hold = holds.get(pool.pool_id)
            if hold is not None and hold.state is HoldState.HELD:
                self.unexpected.forget(pool.pool_id)
                continue
            is_released = hold is not None and not self.unexpected.written_after(pool.pool_id, hold.held_at)
            key = None if is_released else self.unexpected.key_of(pool, full_scan=full_scan)
            protected = not self._goes_at_once(key)
            if not protected:
                self.unexpected.allow(pool.pool_id, key)
            allowed.append(replace(pool, protected=protected))
        return allowed

    async def judge(self, pool_ids: Collection[int], settlement: Settlement, *, now: int, full_scan: bool) -> set[int]:
        """Hold what a batch withheld at the unix second `now`, or let it go; note its settled pools `pool_ids`.

        Return the ids of the withheld pools that may be settled now; the others wait for a full scan.
        """
        # A dry run takes nothing away: the same pools would count again with each full scan.
        self.unexpected.settled(pool_ids, lost=() if self._held.dry_run else settlement.lost_something)
        going: set[int] = set()
        held: dict[str, list[DuePool]] = defaultdict(list)
        for pool in settlement.withheld:
            key = self.unexpected.key_of(pool)
            if key is not None and not self._goes_at_once(key):
                if (reason := self._reasons[key[0]]) is not None:
                    held[reason].append(pool)
                    continue
                if self._cleared[key] <= 0:
                    self._waiting[key] += full_scan  # others are found, and counted, by the scan that follows
                    continue
                self._cleared[key] -= 1
            self.unexpected.allow(pool.pool_id, key)
            going.add(pool.pool_id)
        for reason, pools in held.items():
            await self._held.hold(pools, reason, now)
            self.unexpected.forget(*(pool.pool_id for pool in pools))
        await self._held.drop_released(pool_ids)
        return going

    def passed(self, *, complete: bool) -> float | None:
        """Note that a pass is over; what an incomplete one has counted is discarded.

        Return in how many seconds those that wait are to be counted again; None if none waits.
        """
        self._in_pass = False
        self._held.passed()
        if not self._waiting:
            return None
        if not complete:
            self._waiting.clear()
        return RECOUNT_SECONDS if self._counted else 0.0

    async def _judge_late(self, after: int | None, now: int) -> None:
        """Judge what the last full scan has left waiting: a full scan holds it now, lets it go, or counts it again."""
        counted = self._waiting
        if after is None:
            await self._held.refresh()
            self._waiting = Census()
        elif not self._held.dry_run:  # which settles nothing, so that every full scan finds the same again
            self.unexpected.known_through = after
        late = self.unexpected.census(Kind.PAST, Kind.UNSEEN) + counted
        reason = await self._excess(late, now, held=self._held.count)
        self._reasons = {Kind.NEAR: None, Kind.PAST: reason, Kind.UNSEEN: reason}
        few = measure(late, self._settings)[0] + self._held.count <= self._settings.min_pools
        self._cleared = Census()
        if after is None:
            self._clear(counted, few=few)

    def _clear(self, counted: Census, *, few: bool) -> None:
        """Let as many late pools go as were counted, if they are few or have not become more for a while."""
        now = self._clock.monotonic()
        if counted.total() > self._counted:
            self._grew_monotonic = now
        if few or now - self._grew_monotonic >= STILL_SECONDS:
            self._cleared, self._counted = counted, 0
        else:
            self._counted = counted.total()

    async def _judge_near(self, now: int) -> None:
        """Judge the pools that were written near their end, which has come, unless such pools are held already."""
        self._judged_writes = self.unexpected.writes
        if self._reasons[Kind.NEAR] is not None:
            return
        near, lately = self.unexpected.near(now), self.unexpected.census(Kind.NEAR)
        # If each of them has a workload to lose, and each unknown owner is another.
        most = lately + Counter((Kind.NEAR, -pool_id if owner is None else owner) for pool_id, owner in near.items())
        if await self._excess(most, now) is not None:
            owners = await self._pool_counts.due_owners(list(near), now=now)
            self.unexpected.record_owners(owners)
            lately += Counter((Kind.NEAR, owner) for owner in owners.values())
            self._reasons[Kind.NEAR] = await self._excess(lately, now)

    async def _excess(self, census: Census, now: int, *, held: int = 0) -> str | None:
        """Return the reason to hold the new ones of some unexpected pools; None if they are not too many."""
        number, pools = (each + held for each in measure(census, self._settings))
        if number <= self._settings.min_pools:
            return None
        share = self._settings.max_share
        enough = min(MOST, math.ceil(pools * (1 - share) / max(share, 1e-6)))
        in_use = pools + await self._pool_counts.count(after=now, until=NEVER - 1, most=enough)
        if pools <= share * in_use:
            return None
        return f"{pools} pools, {pools / in_use:.0%} of those in use, ended unexpectedly"

    def _goes_at_once(self, key: Key | None) -> bool:
        """Return whether a pool goes without being counted before."""
        near_goes = self._reasons[Kind.NEAR] is None
        return key is None or not self._settings.enabled or (key[0] is Kind.NEAR and near_goes)
