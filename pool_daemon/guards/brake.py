"""The brake: pools that end unexpectedly are held if they are suspiciously many, until an operator releases them.

**The measure.** A pool is unexpected if it would lose a workload and its end could not be known: another writer wrote
it when that end was past or within `notice_seconds`, or it is found due although the change stream has not told of it
(a start, a gap, a full scan that finds more than earlier passes have settled). A pool whose end stood in the database
for longer is never held, however many end with it; a standby follows the stream, too, so that a take-over holds
nothing. A pool that was allowed or released is not unexpected again, unless it is written again.

**The limit.** Unexpected pools are too many if those in flight, those that have lost a workload lately and the new ones
together exceed both `min_pools`, for which each owner counts for a few at most, and `max_share` of the pools in use.
Then the new ones are held, and no others.

**The decision.** A pool that may be unexpected is protected: a transaction that would take a workload from it withholds
it instead, which leaves it unchanged. Only withheld pools are judged.

- *Near* pools (written close to their end) are known from the change stream, and counted before each batch. While they
  are few, they are not even protected. A write that the stream has not reported when the batch begins, some
  milliseconds later, is not counted.
- *Late* pools are *past* (written over a minute after their end) or *unseen* (found due though no change told of them).
  A restored backup brings them in pieces, so one scan decides nothing: a full scan counts them, by kind and owner, and
  leaves them waiting. The next one holds all late pools if that count is too many, else it lets go as many as were
  counted. While a count above `min_pools` grows from scan to scan, none is let go yet. Held pools count, too: while one
  part of a backup waits for an operator, the rest of it does.

Only those numbers are kept in memory, and no ids of pools that are held or wait.

**What customers can do.** One owner alone cannot have any pool held, neither those of others nor his own. A customer
with more than `min_pools / per_owner` identities (21 by default), whose pools also exceed the share (a hundred
identities count for 500 pools), can have two kinds of pools held. The first are his own that he wrote within
`notice_seconds` of their end: their workloads run on unpaid. The second are those of others that were written as late
as his, or ended while no daemon acted. `pool-daemon brake status` shows that, for it groups held pools by owner;
`brake release --owner` ends it.
"""

import asyncio
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final

from pool_daemon import events
from pool_daemon.capacity.pool import NEVER
from pool_daemon.clock import Clock
from pool_daemon.errors import StoreError
from pool_daemon.guards.gate import Gate
from pool_daemon.guards.held_pools import HeldPools
from pool_daemon.guards.unexpected import Census, Key, Kind, RecentWrites, UnexpectedExpirations, measure
from pool_daemon.settings import sections
from pool_daemon.store.cases import Settlement
from pool_daemon.store.holds import State
from pool_daemon.store.pool_counts import MOST, PoolCounts
from pool_daemon.store.pools import DuePool

REVIEW_SECONDS: Final = 2.0
"""How soon an operator's release is noticed; while nothing is held nothing is read."""


class Brake:
    """Decides which due pools may be settled, batch by batch, in one pass at a time.

    `recent_writes` receives the writes of others. `_reasons` says why withheld pools of a kind are held in this pass,
    and `_cleared` how many late ones may go. `_waiting` counts those that it leaves for the next pass to judge;
    `_counted` is how many that were when they were judged last, and had to be counted again.
    """

    def __init__(self, *, held: HeldPools, pool_counts: PoolCounts, settings: sections.Brake, clock: Clock) -> None:
        self.recent_writes = RecentWrites(settings)
        self._held = held
        self._pool_counts = pool_counts
        self._settings = settings
        self._expirations = UnexpectedExpirations(clock)
        self._in_pass = False
        self._reasons: dict[Kind, str | None] = dict.fromkeys(Kind)
        self._cleared = Census()
        self._waiting = Census()
        self._counted = 0
        self._judged_near = 0
        self._scan_wanted = False

    async def inspect(self, after: int | None, now: int) -> None:
        """Decide what to hold in a pass over the unix seconds (after, now], a full scan if `after` is None.

        To be awaited before any of it is settled. Raises StoreUnavailableError or StoreRefusedError; nothing may be
        settled then.
        """
        if not self._settings.enabled:
            return
        if not self._in_pass:
            await self._judge_late(after, now)
        await self._judge_near_again(now)
        self._in_pass = True

    async def filter_allowed(self, pools: Sequence[DuePool], *, now: int, full_scan: bool) -> list[DuePool]:
        """Return the pools that may be settled at the unix second `now`: unexpected ones protected, others in flight.

        No query while nothing is held and few ends were written near. Raises StoreUnavailableError or
        StoreRefusedError.
        """
        if not self._settings.enabled:
            return [replace(pool, protected=False) for pool in pools]
        if self.recent_writes.number != self._judged_near:  # a bulk edit writes thousands within a second
            await self._judge_near_again(now)
        holds = await self._held.of(pools)
        allowed: list[DuePool] = []
        for pool in pools:
            hold = holds.get(pool.pool_id)
            if hold is not None and hold.state is State.HELD:
                self.recent_writes.forget(pool.pool_id)
                continue
            is_released = hold is not None and not self.recent_writes.written_after(pool.pool_id, hold.held_at)
            key = None if is_released else self._key_of_due(pool, full_scan=full_scan)
            protected = not self._goes_at_once(key)
            if not protected:
                self._allow(pool, key)
            allowed.append(replace(pool, protected=protected))
        return allowed

    async def judge(self, pool_ids: Collection[int], settlement: Settlement, *, now: int, full_scan: bool) -> set[int]:
        """Hold what a batch withheld at the unix second `now`, or let it go; note its settled pools `pool_ids`.

        Return the ids of the withheld pools that may be settled now; the others wait for a full scan. Raises
        StoreUnavailableError or StoreRefusedError.
        """
        # A dry run takes nothing away: the same pools would count again with each full scan.
        self._expirations.settled(pool_ids, lost=() if self._held.dry_run else settlement.lost_something)
        going: set[int] = set()
        held: dict[str, list[DuePool]] = defaultdict(list)
        for pool in settlement.withheld:
            key = self._key(pool, known=self._expirations.is_allowed(pool.pool_id))
            if key is None or self._goes_at_once(key):
                going.add(self._allow(pool, key))
            elif (reason := self._reasons[key[0]]) is not None:
                held[reason].append(pool)
            elif self._cleared[key] > 0:
                self._cleared[key] -= 1
                going.add(self._allow(pool, key))
            else:
                self._scan_wanted = True
                self._waiting[key] += full_scan
        for reason, pools in held.items():
            await self._held.hold(pools, reason, now)
            withheld = [pool.pool_id for pool in pools]
            self._expirations.settled(withheld)
            self.recent_writes.forget(*withheld)
        await self._held.drop_released(pool_ids)
        return going

    def passed(self, *, complete: bool) -> None:
        """Note that a pass is over; what an incomplete pass has counted is discarded."""
        self._in_pass = False
        self._held.passed()
        if not complete:
            self._waiting.clear()
        if self._scan_wanted:
            self._scan_wanted = False
            self._held.queue.request_full_scan()

    async def run(self, gate: Gate) -> None:
        """Review what is held for ever."""
        while True:
            await asyncio.sleep(REVIEW_SECONDS)
            try:
                await self.look(gate)
            except StoreError as error:
                self._held.observer.tell(events.HOLDS_READ_FAILED, reason=str(error))

    async def look(self, gate: Gate) -> None:
        """Have released pools settled, and drop holds that stand no more; with the brake off, nothing is held.

        Raises StoreUnavailableError or StoreRefusedError.
        """
        if self._settings.enabled:
            await self._held.review(gate)
        else:
            self._held.switched_off()

    async def _judge_late(self, after: int | None, now: int) -> None:
        """Judge what the last full scan has left waiting: it is held now, may go, or waits on while it becomes more."""
        counted, self._waiting = self._waiting, Census()
        if after is None:
            await self._held.refresh()
        elif not self._held.dry_run:  # which settles nothing, so that every full scan finds the same again
            self.recent_writes.known_through = after
        late = self._expirations.census(Kind.PAST, Kind.UNSEEN) + counted
        reason = await self._excess(late, now, held=self._held.count)
        self._reasons = {Kind.NEAR: None, Kind.PAST: reason, Kind.UNSEEN: reason}
        few = measure(late, self._settings)[0] + self._held.count <= self._settings.min_pools
        if few or counted.total() <= self._counted:
            self._cleared, self._counted = counted, 0
        else:
            self._cleared, self._counted = Census(), counted.total()

    async def _judge_near_again(self, now: int) -> None:
        """Judge near ends, unless they are held already for the rest of the pass."""
        self._judged_near = self.recent_writes.number
        if self._reasons[Kind.NEAR] is None:
            self._reasons[Kind.NEAR] = await self._judge_near(now)

    async def _judge_near(self, now: int) -> str | None:
        """Return the reason to hold the pools that were written near their end, which has come; None if they go."""
        near, census = self.recent_writes.near(now), self._expirations.census(Kind.NEAR)
        known = [owner for owner in near.values() if owner is not None]
        at_most = census + Counter((Kind.NEAR, owner) for owner in known)
        if measure(at_most, self._settings)[0] + len(near) - len(known) <= self._settings.min_pools:
            return None  # even if each of them has a workload to lose, and each unknown owner is another
        owners = await self._pool_counts.due_owners(list(near), now=now)
        self.recent_writes.record_owners(owners)
        return await self._excess(census + Counter((Kind.NEAR, owner) for owner in owners.values()), now)

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

    def _key_of_due(self, pool: DuePool, *, full_scan: bool) -> Key | None:
        """Return as what a pool counts that is about to be settled."""
        # A synced pool that is no find of a full scan is there because another of its resources has run out.
        known = self._expirations.is_allowed(pool.pool_id) or (pool.synced and not full_scan)
        return self._key(pool, known=known)

    def _key(self, pool: DuePool, *, known: bool) -> Key | None:
        """Return as what a pool that is due counts; None if it is expected, or `known` and not written since."""
        kind = self.recent_writes.kind_of(pool, known=known)
        return None if kind is None else (kind, pool.owner or 0)

    def _goes_at_once(self, key: Key | None) -> bool:
        """Return whether a pool goes without being counted before."""
        near_goes = self._reasons[Kind.NEAR] is None
        return key is None or not self._settings.enabled or (key[0] is Kind.NEAR and near_goes)

    def _allow(self, pool: DuePool, key: Key | None) -> int:
        """Note that a pool is in flight, and return its id."""
        self._expirations.mark_in_flight(pool.pool_id, key)
        self.recent_writes.forget(pool.pool_id)
        return pool.pool_id
