"""The brake: when suspiciously much is due, it is held until an operator says that it is right."""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from typing import Final, Protocol

import structlog

from pool_daemon.clock import Clock
from pool_daemon.errors import StoreError
from pool_daemon.scheduling.flood import Flood
from pool_daemon.scheduling.gate import Gate
from pool_daemon.scheduling.restraints import Origin
from pool_daemon.settings import sections
from pool_daemon.store.holds import FIRST, Hold, HoldStore, State, Sweep
from pool_daemon.store.losses import Loss, LossReader

LOOK_SECONDS: Final = 2.0
"""How soon an operator's release is noticed; while nothing is held nobody looks."""

MOST_OTHERS: Final = 2**31
"""More pools than anybody has, for a share of 0, which no number of other pools makes small enough."""

PAGE: Final = 2000
"""Holds reviewed at a look, so many of those released and so many of those held. It takes the server a tenth of a
second, and hands out released pools about as fast as they are settled."""

log = structlog.get_logger("pool_daemon.brake")


class BrakeObserver(Protocol):
    """Who is told what is held."""

    def held(self, reason: str, *, detail: str) -> None:
        """Hear in one word what holds pools back, and in a few more what ends it."""

    def released(self, reason: str) -> None:
        """Hear that nothing is held back any more."""


class Brake:
    """Holds pools that fell due in a way that nobody would expect, and lets go of those that are released.

    Three things are suspicious. More pools due at one look than a number, and than a share of all pools in use: then
    all of those are held. As many within a minute that nobody could expect, as happens when a backup is restored under
    a running daemon: then those that are left of them. And a pool that is overdue by more than an age at the first look
    after a start: then that one. Only pools that would lose a workload are held. What is held stays held through a
    restart; it goes when it is released, topped up or removed, and whatever else falls due goes its way meanwhile.

    All of that is asked before a pass settles anything; the second question again before any such pool is in hand, for
    there may be more of them by then.

    `look_again` is asked for a look at each pool that was released. After a takeover from another daemon the first
    look must be one at everything overdue, for that is when the holds of the other are found.
    """

    def __init__(
        self,
        *,
        holds: HoldStore,
        losses: LossReader,
        settings: sections.Brake,
        clock: Clock,
        look_again: Callable[[Mapping[int, int]], None],
        observer: BrakeObserver,
    ) -> None:
        self._holds = holds
        self._losses = losses
        self._settings = settings
        self._clock = clock
        self._look_again = look_again
        self._observer = observer
        # A look that finds nothing held must not overtake a pass that begins to hold something.
        self._reviewing = asyncio.Lock()
        self._holding = True  # until the database says that it is not so
        self._caught_up = False
        self._looked = False
        self._walks = dict.fromkeys(State, FIRST)
        self._handed_out: set[int] = set()
        self._flood = Flood()

    async def inspect(self, after: int | None, now: int, written: Collection[int] = ()) -> None:
        """Hold what is suspicious of that which ran empty in (after, now]; everything overdue if `after` is None.

        `written` are pools that are looked at, wherever they stand, because somebody has changed them. To be awaited
        before any of it is settled. Raises StoreUnavailableError or StoreRefusedError; nothing may be settled then.
        """
        if not self._settings.enabled:
            return
        async with self._reviewing:
            if after is None or not self._caught_up:
                await self._catch_up(now)
            if after is None and not self._looked:
                await self._hold_overdue(now)
                self._looked = True
            credible = await self._hold_crowd(after, now)
            if after is None:
                self._flood.expect(credible)
            unexpected = self._flood.unexpected(sorted(written), Origin.WRITTEN)
            if self._may_be_flood(unexpected, now):
                await self._hold_flood(unexpected - (await self._standing(unexpected)).keys(), now)

    async def sift(self, pool_ids: Sequence[int], origin: Origin, *, now: int) -> list[int]:
        """Return those pools that are not held, and count them as in hand if nobody could expect them.

        Without a query while nothing is held at all, and no more unexpected than a few. Not to be called again before
        it has returned. Raises StoreUnavailableError or StoreRefusedError.
        """
        if not self._settings.enabled:
            return list(pool_ids)
        standing = await self._standing(pool_ids)
        held = {pool_id for pool_id, state in standing.items() if state is State.HELD}
        unexpected = self._flood.unexpected([each for each in pool_ids if each not in standing], origin)
        if self._may_be_flood(unexpected, now):
            async with self._reviewing:
                held |= await self._hold_flood(unexpected, now)
        self._flood.take_in_hand(unexpected - held)
        return [pool_id for pool_id in pool_ids if pool_id not in held]

    def settled(self, pool_ids: Collection[int], *, lost: Collection[int], now: int) -> None:
        """Hear that some pools are in hand no more, and which of them have lost something."""
        self._flood.settled(pool_ids, lost=lost, now=now)

    def passed(self) -> None:
        """Hear that a pass is over: nothing is in hand."""
        self._flood.passed()

    async def run(self, gate: Gate) -> None:
        """Look after what is held for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look(gate)
            except StoreError as error:
                log.debug("holds_unread", reason=str(error))

    async def look(self, gate: Gate) -> None:
        """Notice what was released, and forget what concerns nobody any more; no query while nothing is held.

        With the gate closed all of that is left alone, and only how much there is of it is told. Raises
        StoreUnavailableError or StoreRefusedError.
        """
        if not self._settings.enabled:
            self._observer.released("brake")  # switched off while it held something
            return
        if not self._holding:
            return
        async with self._reviewing:
            for state in State:
                await self._review(state, gate)
            self._holding = await self._holds.any()
            if not self._holding:
                self._handed_out.clear()
            await self._tell()

    async def _catch_up(self, now: int) -> None:
        """Finish what this or another daemon has begun to hold, and find out whether anything is held."""
        sweep = await self._holds.unfinished()
        if sweep is not None:
            await self._hold_all(sweep, now)
        self._holding = await self._holds.any()
        self._caught_up = True

    async def _hold_overdue(self, now: int) -> None:
        oldest = now - math.floor(self._settings.age_seconds)
        reason = f"overdue by more than {self._settings.age_seconds:g} s at the first look after a start"
        held = 0
        async with aclosing(self._losing(None, oldest - 1, now)) as batches:
            async for losses in batches:
                self._holding = True
                overdue = [loss for loss in losses if loss.overdue_since < oldest]
                held += await self._holds.hold(overdue, reason=reason, at=now)
        await self._tell_held(held, reason)

    async def _hold_crowd(self, after: int | None, now: int) -> int:
        """Hold everything due if that is too much at once; return how many of it may go.

        The cheap questions come first: what is due at all is counted in the index, and only if that were too much, what
        of it would lose anything.
        """
        due = await self._losses.count_due(after=after, until=now)
        if due <= self._settings.pools or await self._share(due, now) is None:
            return due
        losing = 0
        async with aclosing(self._losing(after, now, now)) as batches:
            async for losses in batches:
                losing += len(losses)
        share = None if losing <= self._settings.pools else await self._share(losing, now)
        if share is None:
            return losing
        reason = f"{losing} pools, {share:.0%} of those in use, fell due at once"
        await self._hold_all(Sweep(after, now, reason), now)
        return 0

    def _may_be_flood(self, pool_ids: Collection[int], now: int) -> bool:
        """Tell whether some pools would be a flood if they all lost something where few others are in use.

        A single pool never is.
        """
        return bool(pool_ids) and self._flood.with_them(pool_ids, now=now) > max(1, self._settings.pools)

    async def _hold_flood(self, pool_ids: Collection[int], now: int) -> set[int]:
        """Hold some pools if, with those that are in hand or have lost something within a minute, they are too many.

        They are neither held nor released yet; returned are those that are held by now. Here, too, the cheap questions
        come first: all of them are counted before those that would lose anything.
        """
        if await self._share(self._flood.with_them(pool_ids, now=now), now) is None:
            return set()
        losses = await self._losses.of(sorted(pool_ids), now=now)
        losing = {loss.pool_id for loss in losses}
        pools = self._flood.with_them(losing, now=now)
        if not self._may_be_flood(losing, now) or await self._share(pools, now) is None:
            return set()
        self._holding = True
        self._flood.held(losing, now=now)
        reason = f"{pools} pools turned up within a minute that had run empty before"
        await self._tell_held(await self._holds.hold(losses, reason=reason, at=now), reason)
        return losing

    async def _share(self, pools: int, now: int) -> float | None:
        """Return the share of so many pools that are due in all pools in use; None if it is not too high.

        In use are these, and those that run empty later: no more of them are counted than make the share small enough.
        """
        enough = pools / self._settings.share - pools if self._settings.share else math.inf
        others = await self._losses.count_draining(after=now, most=int(min(enough + 1, MOST_OTHERS)))
        return None if others >= enough else pools / (pools + others)

    async def _hold_all(self, sweep: Sweep, now: int) -> None:
        self._caught_up = False
        self._holding = True
        await self._holds.begin(sweep)
        held = 0
        async with aclosing(self._losing(sweep.after, sweep.until, now)) as batches:
            async for losses in batches:
                held += await self._holds.hold(losses, reason=sweep.reason, at=now)
        await self._holds.finish()
        self._caught_up = True
        await self._tell_held(held, sweep.reason)

    async def _losing(self, after: int | None, until: int, now: int) -> AsyncGenerator[list[Loss], None]:
        """Stream what ran empty in (after, until] and would lose something, leaving out what is held or released."""
        async with aclosing(self._losses.due(after=after, until=until)) as batches:
            async for pool_ids in batches:
                standing = await self._standing(pool_ids)
                yield await self._losses.of([each for each in pool_ids if each not in standing], now=now)

    async def _standing(self, pool_ids: Collection[int]) -> dict[int, State]:
        """Return which of some pools are held or released; without a query while there is no such pool."""
        if not self._holding:
            return {}
        return {hold.pool_id: hold.state for hold in await self._holds.standing(sorted(pool_ids))}

    async def _next_page(self, state: State) -> list[Hold]:
        """Return the next of the holds in that state, beginning anew behind the last."""
        page = await self._holds.page(behind=self._walks[state], state=state, limit=PAGE)
        self._walks[state] = page[-1].pool_id if len(page) == PAGE else FIRST
        return page

    async def _review(self, state: State, gate: Gate) -> None:
        """Drop those holds of a page in that state that hold nothing any more, and have what was released settled."""
        now = math.floor(self._clock.now())
        # The gate speaks of this very reading. By a wrong one nothing released may be due, and all would be dropped.
        if gate.closed_by() is not None:
            return
        holds = await self._next_page(state)
        still = {hold.pool_id for hold in await self._holds.standing([hold.pool_id for hold in holds])}
        if state is State.RELEASED and still:
            still = {loss.pool_id for loss in await self._losses.of(sorted(still), now=now)}
        gone = [hold for hold in holds if hold.pool_id not in still]
        await self._holds.drop(gone)
        self._handed_out.difference_update(hold.pool_id for hold in gone)
        if state is State.RELEASED:
            self._hand_out(still - self._handed_out, now)

    def _hand_out(self, released: set[int], now: int) -> None:
        """Have pools settled that were released; they count no more as a flood."""
        if not released:
            return
        self._handed_out |= released
        self._flood.released(released)
        log.info("brake_released", pools=len(released))
        self._look_again(dict.fromkeys(released, now))

    async def _tell_held(self, held: int, reason: str) -> None:
        if held:
            log.error(
                "brake_held",
                pools=held,
                reason=reason,
                remedy="look at `pool-daemon brake status`, then `brake release`",
            )
            await self._tell()

    async def _tell(self) -> None:
        held = await self._holds.count(State.HELD) if self._holding else 0
        if held:
            self._observer.held("brake", detail=f"pools held: {held}; see `pool-daemon brake status`")
        else:
            self._observer.released("brake")
