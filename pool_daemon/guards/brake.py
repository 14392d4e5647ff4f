"""The brake: pools that end unexpectedly are held if they are suspiciously many, until an operator releases them.

**The measure.** A pool is unexpected if it would lose a workload and its end could not be known: another writer wrote
it when that end was past or within `notice_seconds`, or it is found overdue although the change stream has not told of
it (a start, a gap, a full scan beyond what earlier passes have settled). A pool whose end stood in the database for
longer is never held, however many end with it. A standby follows the stream, too, so that a take-over in the middle of
an ordinary mass expiry holds nothing. What was allowed once is not unexpected again: not when it is tried again, not
when it leaves quarantine, not when it was released. A release is for what was held: a pool that is written again after
it is judged anew.

**The limit.** The unexpected pools that have lost something lately or are in flight, and the new ones, are too many if
they exceed both `min_pools`, for which each owner counts for a few at most, and `max_share` of the pools in use. Then
the new ones are held, and nothing else. Pools whose end was near are counted apart, before the first of them is
settled, so that a restored backup holds back nobody who buys for minutes. With those that are late anyhow what is held
counts, too: while a backup waits for an operator, the rest of it does. They go at once while they are few; if they are
more than `min_pools` they wait for a full scan that counts them, and for one that acts on the count: what a full scan
finds waits in any case. So no ids are kept of what is held or waits, and memory stays flat.

**What customers can do.** One owner never makes any pool be held, neither those of others nor his own. Somebody with
more than `min_pools / per_owner` identities (21 by default, and as many pools as exceed the share: a hundred identities
count for 500) can have his own pools held that he wrote within ten minutes of their end, so that their workloads run on
unpaid; of others only those that were written as late as his, or ended while no daemon acted. `pool-daemon brake
status` shows that: it groups what is held by owner, with pools and workloads, and `brake release --owner` ends it.
"""

import asyncio
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Final

import structlog

from pool_daemon.clock import Clock
from pool_daemon.errors import StoreError
from pool_daemon.guards.held_pools import Gate, HeldPools
from pool_daemon.guards.unexpected import Census, Kind, Lost, Notes, counted, pools_of
from pool_daemon.settings import sections
from pool_daemon.store.holds import State
from pool_daemon.store.impact import ImpactReader
from pool_daemon.store.pools import DuePool

LOOK_SECONDS: Final = 2.0
"""How soon an operator's release is noticed; while nothing is held nothing is read."""

MOST_ALLOWED: Final = 10_000
"""Pools that were allowed and not settled, remembered so that their next try is not unexpected."""

LATE: Final = (Kind.PAST, Kind.OVERDUE)

log = structlog.get_logger("pool_daemon.brake")


class Brake:
    """Decides which due pools may be settled, batch by batch.

    `notes` are to be told what other writers do. In a dry run what would be held is said, and nothing written.
    """

    def __init__(self, *, held: HeldPools, impact: ImpactReader, settings: sections.Brake, clock: Clock) -> None:
        self._held = held
        self._impact = impact
        self._settings = settings
        self._clock = clock
        self.notes = Notes(settings)
        self._lost = Lost()
        self._in_flight: dict[int, tuple[Kind, int] | None] = {}
        self._allowed: dict[int, None] = {}
        self._passing = False
        self._since = 0
        self._watermark: int | None = None
        self._near_reason: str | None = None
        self._near_judged = 0
        self._past_waiting = 0
        self._late_reason: str | None = None
        self._budget = 0
        self._counting: Census | None = None
        self._counted: Census | None = None
        self._waiting = False

    async def inspect(self, after: int | None, now: int) -> None:
        """Decide what to hold in a pass over the unix seconds (after, now], a full scan if `after` is None.

        To be awaited before any of it is settled. Raises StoreUnavailableError or StoreRefusedError; nothing may be
        settled then.
        """
        if not self._settings.enabled:
            return
        if not self._passing:
            await self._begin(after, now)
        near, self._past_waiting = self.notes.due(now)
        await self._judge_ends(near, now)

    async def filter_allowed(self, pools: Sequence[DuePool], *, now: int, full_scan: bool) -> list[DuePool]:
        """Return the pools that may be settled as of the unix second `now`; they are in flight then.

        No query while nothing is held, and no more is unexpected than a few. Raises StoreUnavailableError or
        StoreRefusedError.
        """
        if not self._settings.enabled:
            return list(pools)
        holds = await self._held.of(pools)
        allowed: list[DuePool] = []
        unexpected: dict[Kind, list[DuePool]] = {kind: [] for kind in Kind}
        for pool in pools:
            hold = holds.get(pool.pool_id)
            if hold is not None and hold.state is State.HELD:
                self.notes.forget(pool.pool_id)
                continue
            kind = self._kind(pool, full_scan=full_scan)
            released = hold is not None and not self.notes.written_after(pool.pool_id, hold.held_at)
            if kind is None or released or pool.pool_id in self._in_flight:
                allowed += self._allow([pool])
            else:
                unexpected[kind].append(pool)
        allowed += await self._judge_near(unexpected[Kind.NEAR], now)
        for kind in LATE:
            allowed += await self._judge_late(unexpected[kind], kind, now, full_scan=full_scan)
        return allowed

    def settled(self, pool_ids: Collection[int], *, lost: Collection[int], now: int) -> None:
        """Note that some pools are in flight no more, and which pools have lost something."""
        del now
        for pool_id in lost:
            unexpected = self._in_flight.get(pool_id)
            if unexpected is not None:
                self._lost.add(*unexpected, at=self._clock.monotonic())
                self._in_flight[pool_id] = None
        for pool_id in pool_ids:
            self._in_flight.pop(pool_id, None)
            self._allowed.pop(pool_id, None)

    def passed(self) -> None:
        """Note that a pass is over: nothing is in flight; what failed may be tried again."""
        for pool_id in self._in_flight:
            self._allowed[pool_id] = None
        while len(self._allowed) > MOST_ALLOWED:
            del self._allowed[next(iter(self._allowed))]
        self._in_flight.clear()
        self._passing = False
        self._held.log()
        if self._counting:
            self._counted = self._counting
        if self._waiting:
            self._waiting = False
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
        """Notice what was released, and forget holds that stand no more; no query while nothing is held.

        With the gate closed all of that is left alone, and only how much there is of it is told. Raises
        StoreUnavailableError or StoreRefusedError.
        """
        if self._settings.enabled:
            await self._held.look(gate)
        else:
            self._held.let_go()

    async def _begin(self, after: int | None, now: int) -> None:
        """Begin a pass; a full scan acts on the count of the one before, or counts what is overdue."""
        self._since = now + 1 if self.notes.since is None else self.notes.since
        self._budget, self._counting, found = 0, None, None
        if after is None:
            await self._held.refresh()
            found, self._counted = self._counted, None
        elif not self._held.dry_run:  # which changes nothing, so that every full scan finds the same again
            self._watermark = after
        census = self._unexpected(*LATE) + (found or Census())
        self._late_reason = await self._excess(census, now, held=self._held.count)
        if found is not None:
            self._budget = found.total()
        elif after is None and self._late_reason is None:
            self._counting = Census()
        self._passing = True

    def _kind(self, pool: DuePool, *, full_scan: bool) -> Kind | None:
        """Return why a pool that is due is unexpected; None if it is not."""
        kind = self.notes.kind(pool)
        if kind is not None:
            return kind
        if pool.pool_id in self._allowed or (pool.synced and not full_scan):
            return None  # tried again; or another of its resources has run out
        passed_over = self._watermark is not None and pool.empty_at <= self._watermark
        return Kind.OVERDUE if passed_over or pool.empty_at < self._since else None

    def _unexpected(self, *kinds: Kind) -> Census:
        """Return the unexpected pools of some kinds that have lost something lately, or are in flight."""
        in_flight = Counter(unexpected for unexpected in self._in_flight.values() if unexpected is not None)
        found = self._lost.census(self._clock.monotonic()) + in_flight
        return Census({key: number for key, number in found.items() if key[0] in kinds})

    async def _judge_ends(self, near: Sequence[int], now: int) -> None:
        """Count the pools that were written near their end, which has come; anew once they are notably more."""
        census = self._unexpected(Kind.NEAR)
        number, few = len(near) + census.total(), self._settings.min_pools
        if number <= few:
            self._near_reason, self._near_judged = None, 0
        elif number > self._near_judged + few * bool(self._near_judged):
            owners = await self._impact.owners(near, now=now)
            census.update({(Kind.NEAR, each): owners[each] for each in owners})
            self._near_reason = await self._excess(census, now)
            self._near_judged = number

    async def _excess(self, census: Census, now: int, *, held: int = 0) -> str | None:
        """Return the reason to hold the new ones of some unexpected pools; None if they are not too many."""
        if counted(census, self._settings) + held <= self._settings.min_pools:
            return None
        pools = pools_of(census, self._settings) + held
        share = pools / (pools + await self._impact.count_lasting(now=now))
        if share <= self._settings.max_share:
            return None
        return f"{pools} pools, {share:.0%} of those in use, ended unexpectedly"

    async def _judge_near(self, pools: Sequence[DuePool], now: int) -> list[DuePool]:
        if self._near_reason is None:
            return self._allow(pools, Kind.NEAR)
        return await self._hold(pools, self._near_reason, now)

    async def _judge_late(self, pools: Sequence[DuePool], kind: Kind, now: int, *, full_scan: bool) -> list[DuePool]:
        """Allow pools that are overdue while they are few or counted, hold them if they are too many, else wait."""
        if not pools:
            return []
        if self._late_reason is not None:
            return await self._hold(pools, self._late_reason, now)
        if not full_scan:
            taken = counted(self._unexpected(*LATE), self._settings) + self._held.count + self._budget
            room = self._settings.min_pools - taken
            if max(len(pools), self._past_waiting) <= room:
                return self._allow(pools, kind)
            self._waiting = True
            return []
        affected = {pool.pool_id for pool in await self._impact.of([pool.pool_id for pool in pools], now=now)}
        losing = [pool for pool in pools if pool.pool_id in affected]
        going, waiting = losing[: self._budget], losing[self._budget :]
        self._budget -= len(going)
        self._waiting = self._waiting or bool(waiting)
        if self._counting is not None:
            self._counting += Counter((kind, pool.owner or 0) for pool in waiting)
        return [*self._allow(going, kind), *self._allow([pool for pool in pools if pool.pool_id not in affected])]

    def _allow(self, pools: Sequence[DuePool], kind: Kind | None = None) -> list[DuePool]:
        for pool in pools:
            self._in_flight.setdefault(pool.pool_id, None if kind is None else (kind, pool.owner or 0))
            self.notes.forget(pool.pool_id)
        return list(pools)

    async def _hold(self, pools: Sequence[DuePool], reason: str, now: int) -> list[DuePool]:
        """Hold the pools that would lose something; return the others."""
        held = await self._held.hold([pool.pool_id for pool in pools], reason, now)
        for pool_id in held:
            self.notes.forget(pool_id)
        return self._allow([pool for pool in pools if pool.pool_id not in held])
