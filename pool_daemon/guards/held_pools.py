"""The pools that are held: told while there are any, and reviewed until an operator or a top-up ends that."""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Final, Protocol

from pool_daemon import events
from pool_daemon.clock import Clock
from pool_daemon.guards.gate import Gate
from pool_daemon.store.holds import FIRST, Hold, HoldStore, State
from pool_daemon.store.pools import DuePool

PAGE: Final = 2000
"""Holds reviewed at once in each state: a tenth of a second of the server's, and as many pools as are settled soon."""

LOG_SECONDS: Final = 30.0
"""The shortest time between two log lines about pools that were held."""


class BrakeObserver(events.Teller, Protocol):
    """Records what is held."""

    def put_on_hold(self, reason: str, *, detail: str, pools: int) -> None:
        """Record in one word what holds pools back, in a few more what ends it, and how many pools that are."""

    def taken_off_hold(self, reason: str) -> None:
        """Record that nothing is held back any more."""


class Queue(Protocol):
    """The work queue."""

    def request_full_scan(self) -> None:
        """Make the next pass a full scan."""

    def retry(self, pools: Mapping[int, int]) -> None:
        """Add a retry of each pool at its unix second."""


class HeldPools:
    """Holds pools, `count` of them as far as is known, and reviews their holds page by page.

    None of them is kept in memory. Every method that is awaited raises StoreUnavailableError or StoreRefusedError.
    """

    def __init__(self, *, holds: HoldStore, clock: Clock, observer: BrakeObserver, queue: Queue) -> None:
        self._holds = holds
        self._clock = clock
        self.observer = observer
        self.queue = queue
        self.dry_run = holds.dry_run
        self.count = 0
        self._released: dict[int, Hold] = {}
        self._any = True  # held or released, until the database says that there is none
        self._behind = dict.fromkeys(State, FIRST)
        self._unlogged: Counter[str] = Counter()
        self._reason = ""
        self._logged_monotonic = -math.inf

    async def of(self, pools: Sequence[DuePool]) -> dict[int, Hold]:
        """Return, by id, the holds that concern some pools that are due; no query while there are none at all."""
        holds = await self._holds.of(pools) if self._any and pools else {}
        self._released.update((hold.pool_id, hold) for hold in holds.values() if hold.state is State.RELEASED)
        return holds

    async def hold(self, pools: Sequence[DuePool], reason: str, now: int) -> None:
        """Hold pools as of the unix second `now`, in one write."""
        await self._holds.hold(pools, reason=reason, at=now)
        self._any = True
        self.count += len(pools)
        self._unlogged.update(pools=len(pools), workloads=sum(pool.workloads for pool in pools))
        self._reason = reason
        self._tell()

    async def drop_released(self, pool_ids: Collection[int]) -> None:
        """Drop the releases of pools that are settled."""
        await self._holds.drop(self._released.pop(pool_id) for pool_id in pool_ids if pool_id in self._released)

    async def refresh(self) -> None:
        """Count the pools that are held or released, by this daemon or another."""
        before = self.count
        held, released = [await self._holds.count(state) for state in State]
        if before == self.count:  # else something was held meanwhile
            self.count, self._any = held, bool(held or released)
        self._tell()

    async def review(self, gate: Gate) -> None:
        """Have released pools settled, and drop holds that stand no more; no query while there are none.

        With the gate closed all of them are left alone, and only counted.
        """
        if self._any:
            for state in State:
                await self._review_page(state, gate)
            await self.refresh()

    def switched_off(self) -> None:
        """Tell that nothing is held back: the brake is off."""
        self.observer.taken_off_hold("brake")

    def passed(self) -> None:
        """Log what has been held, unless that was logged a moment ago; released pools that failed are tried again."""
        self._released.clear()
        now = self._clock.monotonic()
        if self._unlogged and now - self._logged_monotonic >= LOG_SECONDS:
            event = events.BRAKE_WOULD_HOLD if self.dry_run else events.BRAKE_HELD
            self.observer.tell(event, **self._unlogged, reason=self._reason, remedy=event.remedy)
            self._unlogged.clear()
            self._logged_monotonic = now

    async def _review_page(self, state: State, gate: Gate) -> None:
        now = math.floor(self._clock.now())
        # The gate speaks of this very reading. By a wrong one nothing held may be due, and all would be dropped.
        if gate.closed_by() is not None:
            return
        page = await self._holds.page(behind=self._behind[state], state=state, limit=PAGE)
        self._behind[state] = page[-1].pool_id if len(page) == PAGE else FIRST
        standing = await self._holds.standing(page, now=now)
        await self._holds.drop(hold for hold in page if hold.pool_id not in standing)
        if state is State.RELEASED and standing:
            self.observer.tell(events.BRAKE_RELEASED, pools=len(standing))
            self.queue.retry(dict.fromkeys(standing, now))

    def _tell(self) -> None:
        if self.count:
            detail = "; ".join(filter(None, [self._reason, "see `pool-daemon brake status`"]))
            self.observer.put_on_hold("brake", detail=detail, pools=self.count)
        else:
            self.observer.taken_off_hold("brake")
