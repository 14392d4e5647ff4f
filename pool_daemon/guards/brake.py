"""The brake: pools that end unexpectedly are held if they are suspiciously many, until an operator releases them.

**The measure.** A pool is unexpected if it would lose a workload and its end could not be known: another writer wrote
it when that end was past or within `notice_seconds`, or it is found overdue although the change stream has not told of
it (a start, a gap, a full scan beyond what earlier passes have settled). A pool whose end stood in the database for
longer is never held, however many end with it. A standby follows the stream, too, so that a take-over in the middle of
an ordinary mass expiry holds nothing. What was allowed once is not unexpected again: not when it is tried again, not
when it leaves quarantine, not when it was released; but a pool that is written after that is judged anew.

**The limit.** Unexpected pools are too many if those in flight, those that have lost something lately and the new ones
together exceed both `min_pools`, for which each owner counts for a few at most, and `max_share` of the pools in use.
Then the new ones are held, and nothing else.

**The decision** is made on all new ones before the first of them is settled.

- Ends that were *near* when they were written are known from the change stream, and counted as soon as they have come:
  who buys for minutes waits for nobody.
- What is *late* (written past its end, or found overdue) may come in pieces, so it waits for full scans:
  1. A full scan counts, by kind and owner, what it leaves waiting.
  2. The next one holds all that is late if that count is too many, else it lets go as many as were counted.
  3. A count above `min_pools` that grows from scan to scan lets nothing go yet: a share of what is only partly restored
     says nothing.
  What is held counts, too: while a backup waits for an operator, the rest of it does.

Only those numbers are kept, and no ids of what is held or waits, so that memory stays flat.

**What customers can do.** One owner never makes any pool be held, neither those of others nor his own. Somebody with
more than `min_pools / per_owner` identities (21 by default, and as many pools as exceed the share: a hundred identities
count for 500) can have his own pools held that he wrote within ten minutes of their end, so that their workloads run on
unpaid; of others only those that were written as late as his, or ended while no daemon acted. `pool-daemon brake
status` shows that: it groups what is held by owner, with pools and workloads, and `brake release --owner` ends it.
"""

import asyncio
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final

import structlog

from pool_daemon.clock import Clock
from pool_daemon.errors import StoreError
from pool_daemon.guards.gate import Gate
from pool_daemon.guards.held_pools import HeldPools
from pool_daemon.guards.unexpected import Census, Kind, Notes, UnexpectedExpirations, measure
from pool_daemon.settings import sections
from pool_daemon.store.holds import Hold, State
from pool_daemon.store.impact import AffectedPool, ImpactReader
from pool_daemon.store.pools import DuePool

LOOK_SECONDS: Final = 2.0
"""How soon an operator's release is noticed; while nothing is held nothing is read."""

LATE: Final = (Kind.PAST, Kind.OVERDUE)

log = structlog.get_logger("pool_daemon.brake")


class Brake:
    """Decides which due pools may be settled, batch by batch.

    `notes` are to be told what other writers do. In a dry run what would be held is said, and nothing written. One pass
    runs at a time. When it begins it is decided why pools of a kind are held (`_reasons`) and which late ones may go
    (`_cleared`). `_waiting` is what it leaves waiting, for the next pass to judge; `_counted` is how much that was when
    it was judged last, and was to be counted again.
    """

    def __init__(self, *, held: HeldPools, impact: ImpactReader, settings: sections.Brake, clock: Clock) -> None:
        self.notes = Notes(settings)
        self._held = held
        self._impact = impact
        self._settings = settings
        self._expirations = UnexpectedExpirations(clock)
        self._in_pass = False
        self._reasons: dict[Kind, str | None] = dict.fromkeys(Kind)
        self._cleared = Census()
        self._waiting = Census()
        self._counted = 0
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
        if self._reasons[Kind.NEAR] is None:
            self._reasons[Kind.NEAR] = await self._judge_near(now)
        self._in_pass = True

    async def filter_allowed(self, pools: Sequence[DuePool], *, now: int, full_scan: bool) -> list[DuePool]:
        """Return the pools that may be settled as of the unix second `now`; they are in flight then.

        An unexpected one that loses nothing is to be spared: were it to lose something after all, it is judged again.
        No query while nothing is held, and nothing is late. Raises StoreUnavailableError or StoreRefusedError.
        """
        if not self._settings.enabled:
            return list(pools)
        holds = await self._held.of(pools)
        allowed: list[DuePool] = []
        doubtful: list[tuple[DuePool, Kind]] = []
        for pool in pools:
            hold = holds.get(pool.pool_id)
            if hold is not None and hold.state is State.HELD:
                self.notes.forget(pool.pool_id)
                continue
            kind = self._kind(pool, hold, full_scan=full_scan)
            if kind is None or (kind is Kind.NEAR and self._reasons[kind] is None):
                allowed.append(self._allow(pool, kind))
            else:
                doubtful.append((pool, kind))
        return allowed + await self._filter_doubtful(doubtful, now, full_scan=full_scan)

    def settled(self, pool_ids: Collection[int], *, lost: Collection[int]) -> None:
        """Note that some pools are in flight no more, and which pools have lost something."""
        # A dry run takes nothing away: the same pools would count again with each full scan.
        self._expirations.settled(pool_ids, lost=() if self._held.dry_run else lost)

    def passed(self, *, complete: bool) -> None:
        """Note that a pass is over; what an incomplete pass has counted is discarded."""
        self._in_pass = False
        self._held.log()
        if not complete:
            self._waiting.clear()
        if self._scan_wanted:
            self._scan_wanted = False
            self._held.queue.look_at_everything()

    async def run(self, gate: Gate) -> None:
        """Look after what is held for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look(gate)
            except StoreError as error:
                log.debug("holds_read_failed", reason=str(error))

    async def look(self, gate: Gate) -> None:
        """Notice what was released, and forget holds that stand no more; with the brake off, nothing is held.

        Raises StoreUnavailableError or StoreRefusedError.
        """
        if self._settings.enabled:
            await self._held.look(gate)
        else:
            self._held.let_go()

    async def _judge_late(self, after: int | None, now: int) -> None:
        """Judge what the last full scan has left waiting: it is held now, may go, or waits on while it becomes more."""
        counted, self._waiting = self._waiting, Census()
        if after is None:
            await self._held.refresh()
        elif not self._held.dry_run:  # which settles nothing, so that every full scan finds the same again
            self.notes.settled_through = after
        late = self._expirations.census(*LATE) + counted
        reason = await self._excess(late, now, held=self._held.count)
        self._reasons = {Kind.NEAR: None, Kind.PAST: reason, Kind.OVERDUE: reason}
        few = measure(late, self._settings)[0] + self._held.count <= self._settings.min_pools
        if few or counted.total() <= self._counted:
            self._cleared, self._counted = counted, 0
        else:  # a share of what is only partly restored says nothing
            self._cleared, self._counted = Census(), counted.total()

    async def _judge_near(self, now: int) -> str | None:
        """Return the reason to hold the pools that were written near their end, which has come; None if they go."""
        near, census = self.notes.near(now), self._expirations.census(Kind.NEAR)
        known = [owner for owner in near.values() if owner is not None]
        at_most = census + Counter((Kind.NEAR, owner) for owner in known)
        if measure(at_most, self._settings)[0] + len(near) - len(known) <= self._settings.min_pools:
            return None  # even if each of them has a workload to lose, and each unknown owner is another
        owners = await self._impact.owners(list(near), now=now)
        self.notes.note_owners(owners)
        return await self._excess(census + Counter((Kind.NEAR, owner) for owner in owners.values()), now)

    async def _excess(self, census: Census, now: int, *, held: int = 0) -> str | None:
        """Return the reason to hold the new ones of some unexpected pools; None if they are not too many."""
        number, pools = (each + held for each in measure(census, self._settings))
        if number <= self._settings.min_pools:
            return None
        share = self._settings.max_share
        enough = math.ceil(pools * (1 - share) / max(share, 1e-6))
        in_use = pools + await self._impact.count_lasting(now=now, most=enough)
        if pools <= share * in_use:
            return None
        return f"{pools} pools, {pools / in_use:.0%} of those in use, ended unexpectedly"

    def _kind(self, pool: DuePool, hold: Hold | None, *, full_scan: bool) -> Kind | None:
        """Return why a pool that is due is unexpected; None if it is not, or was allowed or released before."""
        if hold is not None and not self.notes.written_after(pool.pool_id, hold.held_at):
            return None
        kind = self.notes.kind_of_written(pool)
        if kind is not None:
            return kind
        if self._expirations.is_allowed(pool.pool_id) or (pool.synced and not full_scan):
            return None  # tried again; or another of its resources has run out
        return self.notes.kind_of_overdue(pool)

    async def _filter_doubtful(
        self, doubtful: Sequence[tuple[DuePool, Kind]], now: int, *, full_scan: bool
    ) -> list[DuePool]:
        """Allow what loses nothing or is cleared; hold the others of a kind that is too many, or leave them waiting."""
        impact = await self._impact.of([pool.pool_id for pool, _ in doubtful], now=now)
        allowed: list[DuePool] = []
        held: dict[str, list[AffectedPool]] = defaultdict(list)
        for pool, kind in doubtful:
            key, reason = (kind, pool.owner or 0), self._reasons[kind]
            if pool.pool_id not in impact:
                allowed.append(replace(pool, spared=True))  # its workloads may come back before it is settled
            elif reason is not None:
                held[reason].append(impact[pool.pool_id])
            elif self._cleared[key] > 0:
                self._cleared[key] -= 1
                allowed.append(self._allow(pool, kind))
            else:
                self._scan_wanted = True
                self._waiting[key] += full_scan
        for reason, pools in held.items():
            await self._held.hold(pools, reason, now)
            pool_ids = [each.pool_id for each in pools]
            self._expirations.settled(pool_ids)
            self.notes.forget(*pool_ids)
        return allowed

    def _allow(self, pool: DuePool, kind: Kind | None) -> DuePool:
        self._expirations.mark_in_flight(pool.pool_id, None if kind is None else (kind, pool.owner or 0))
        self.notes.forget(pool.pool_id)
        return pool
