"""The pools that are held: told while there are any, and reviewed until an operator or a top-up ends that."""

import asyncio
import math
from collections.abc import Collection, Sequence
from typing import Final, Protocol

from pool_daemon import events
from pool_daemon.clock import Clock
from pool_daemon.errors import StoreError
from pool_daemon.guards.gate import Gate
from pool_daemon.guards.quarantine import LookAgain
from pool_daemon.settings import sections
from pool_daemon.store.holds import FIRST, Hold, HoldState, HoldStore
from pool_daemon.store.pools import DuePool

REVIEW_SECONDS: Final = 2.0
"""How soon an operator's release is noticed; while nothing is held nothing is read."""

PAGE: Final = 2000
"""Holds reviewed at once in each state: a tenth of a second of the server's, and as many pools as are settled soon."""


class BrakeObserver(events.Teller, Protocol):
    """Records what is held."""

    def put_on_hold(self, reason: str, *, detail: str, pools: int) -> None:
        """Record in one word what holds pools back, in a few more what ends it, and how many pools that are."""

    def taken_off_hold(self, reason: str) -> None:
        """Record that nothing is held back any more."""


class HeldPools:
    """Holds pools, `count` of them as far as is known, and reviews their holds page by page.

    None of them is kept in memory. Every method that is awaited, but `run`, raises StoreUnavailableError or
    StoreRefusedError.
    """

    def __init__(
        self,
        *,
        holds: HoldStore,
        clock: Clock,
        settings: sections.Brake,
        observer: BrakeObserver,
        look_again: LookAgain,
    ) -> None:
        self.count = 0
        self.dry_run = holds.dry_run
        self._holds = holds
        self._clock = clock
        self._settings = settings
        self._observer = observer
        self._look_again = look_again
        self._any = True  # held or released, until the database says that there is none
        self._released: dict[int, Hold] = {}
        self._behind = dict.fromkeys(HoldState, FIRST)
        self._reason = "held before"
        self._logged = 0

    async def of(self, pools: Sequence[DuePool]) -> dict[int, Hold]:
        """Return, by id, the holds that concern some pools that are due; no query while there are none at all."""
        holds = await self._holds.of(pools) if self._any and pools else {}
        self._released.update((hold.pool_id, hold) for hold in holds.values() if hold.state is HoldState.RELEASED)
        return holds

    async def hold(self, pools: Sequence[DuePool], reason: str, now: int) -> None:
        """Hold pools that were judged at the unix second `now`."""
        await self._holds.hold(pools, reason=reason, at=now)
        self._any = True
        self._reason = reason
        self.count += len(pools)
        self._tell()

    async def drop_released(self, pool_ids: Collection[int]) -> None:
        """Drop the releases of pools that are settled."""
        await self._holds.drop(self._released.pop(pool_id) for pool_id in pool_ids if pool_id in self._released)

    def passed(self) -> None:
        """Log how many pools are held if they are twice as many as when that was logged; retry released ones later."""
        self._released.clear()
        if self.count and self.count >= 2 * self._logged:
            event = events.BRAKE_WOULD_HOLD if self.dry_run else events.BRAKE_HELD
            self._observer.tell(event, pools=self.count, reason=self._reason, remedy=event.remedy)
            self._logged = self.count

    async def refresh(self) -> None:
        """Count the pools that are held or released, by this daemon or another."""
        before = self.count
        held, released = [await self._holds.count(state) for state in HoldState]
        if before == self.count:  # else something was held meanwhile
            self.count, self._any = held, bool(held or released)
            self._logged = self._logged if self.dry_run else min(self._logged, held)
        self._tell()

    async def run(self, gate: Gate) -> None:
        """Review what is held for ever."""
        while True:
            await asyncio.sleep(REVIEW_SECONDS)
            try:
                await self.review(gate)
            except StoreError as error:
                self._observer.tell(events.HOLDS_READ_FAILED, reason=str(error))

    async def review(self, gate: Gate) -> None:
        """Have released pools settled, and drop holds that stand no more; no query while there are none.

        With the gate closed they are left alone, and only counted. With the brake off, nothing is held.
        """
        if not self._settings.enabled:
            self._observer.taken_off_hold("brake")
        elif self._any:
            for state in HoldState:
                await self._review_page(state, gate)
            await self.refresh()

    async def _review_page(self, state: HoldState, gate: Gate) -> None:
        now = math.floor(self._clock.now())
        # The gate speaks of this very reading. By a wrong one nothing held may be due, and all would be dropped.
        if gate.closed_by() is not None:
            return
        page = await self._holds.page(behind=self._behind[state], state=state, limit=PAGE)
        self._behind[state] = page[-1].pool_id if len(page) == PAGE else FIRST
        standing = await self._holds.standing(page, now=now)
        await self._holds.drop(hold for hold in page if hold.pool_id not in standing)
        if state is HoldState.RELEASED and standing:
            self._observer.tell(events.BRAKE_RELEASED, pools=len(standing))
            self._look_again(dict.fromkeys(standing, now))

    def _tell(self) -> None:
        if self.count:
            self._observer.put_on_hold(
                "brake", detail=f"{self._reason}; see `pool-daemon brake status`", pools=self.count
            )
        else:
            self._observer.taken_off_hold("brake")
