"""The pools that are held: said while there are any, and reviewed until an operator or a top-up lets them go."""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Final, Protocol

import structlog

from pool_daemon.clock import Clock
from pool_daemon.guards.gate import Gate
from pool_daemon.store.holds import FIRST, Hold, HoldStore, State
from pool_daemon.store.impact import AffectedPool, ImpactReader
from pool_daemon.store.pools import DuePool, PoolStore

PAGE: Final = 2000
"""Holds reviewed at once in each state: a tenth of a second of the server's, and as many pools as are settled soon."""

TELL_SECONDS: Final = 30.0
"""How often at most it is logged that more is held."""

REMEDY: Final = "look at `pool-daemon brake status`, then `pool-daemon brake release`"

log = structlog.get_logger("pool_daemon.brake")


class BrakeObserver(Protocol):
    """Is told what is held."""

    def held(self, reason: str, *, detail: str, pools: int) -> None:
        """Note in one word what holds pools back, in a few more what ends it, and how many pools that are."""

    def released(self, reason: str) -> None:
        """Note that nothing is held back any more."""


class Queue(Protocol):
    """Takes what is to be checked again."""

    def look_at_everything(self) -> None:
        """Have a full scan follow."""

    def try_again(self, wishes: Mapping[int, int]) -> None:
        """Have each pool checked at its unix second."""


class HeldPools:
    """Holds pools, `count` of them as far as is known, and reviews them page by page.

    Nothing is kept in memory of a single one. Every method that is awaited raises StoreUnavailableError or
    StoreRefusedError.
    """

    def __init__(
        self,
        *,
        holds: HoldStore,
        impact: ImpactReader,
        pools: PoolStore,
        clock: Clock,
        observer: BrakeObserver,
        queue: Queue,
    ) -> None:
        self._holds = holds
        self._impact = impact
        self._pools = pools
        self._clock = clock
        self._observer = observer
        self.queue = queue
        self.dry_run = holds.dry_run
        self.count = 0
        self._any = True  # held or released, until the database says that there is none
        self._walks = dict.fromkeys(State, FIRST)
        self._untold: Counter[str] = Counter()
        self._reason = ""
        self._told_monotonic = -math.inf

    async def of(self, pools: Sequence[DuePool]) -> dict[int, Hold]:
        """Return, by id, the holds that concern some pools that are due; no query while there are none at all."""
        return await self._holds.of(pools) if self._any and pools else {}

    async def hold(self, pools: Sequence[AffectedPool], reason: str, now: int) -> None:
        """Hold pools as of the unix second `now`, in one write."""
        await self._holds.hold(pools, reason=reason, at=now)
        self._any = True
        self.count += len(pools)
        self._untold.update(pools=len(pools), workloads=sum(pool.workloads for pool in pools))
        self._reason = reason
        self._tell()

    async def refresh(self) -> None:
        """Learn how many pools are held, by this daemon or another."""
        before = self.count
        held, released = [await self._holds.count(state) for state in State]
        if before == self.count:  # else something was held meanwhile
            self.count, self._any = held, bool(held or released)
        self._tell()

    async def look(self, gate: Gate) -> None:
        """Have what was released settled, and drop holds that stand no more; no query while there are none.

        With the gate closed all of that is left alone, and only how much there is of it is told.
        """
        if self._any:
            await self._review(gate)
            await self.refresh()
        self.log()

    def let_go(self) -> None:
        """Tell that nothing is held back: the brake is off."""
        self._observer.released("brake")

    def log(self) -> None:
        """Log what was held since the last such line, unless that was a moment ago."""
        now = self._clock.monotonic()
        if self._untold and now - self._told_monotonic >= TELL_SECONDS:
            event = "brake_would_hold" if self.dry_run else "brake_held"
            log.error(event, **self._untold, reason=self._reason, remedy=REMEDY)
            self._untold.clear()
            self._told_monotonic = now

    async def _review(self, gate: Gate) -> None:
        """Review the next page of holds in each state."""
        for state in State:
            now = math.floor(self._clock.now())
            # The gate speaks of this very reading. By a wrong one nothing held may be due, and all would be dropped.
            if gate.closed_by() is not None:
                return
            page = await self._holds.page(behind=self._walks[state], state=state, limit=PAGE)
            self._walks[state] = page[-1].pool_id if len(page) == PAGE else FIRST
            standing = await self._standing(page, now)
            if state is State.RELEASED:
                standing = await self._have_settled(standing, now)
            await self._holds.drop(hold for hold in page if hold.pool_id not in standing)

    async def _standing(self, page: Sequence[Hold], now: int) -> set[int]:
        """Return the ids of the pools whose holds stand: they are due, and have not been topped up since."""
        due = {pool.pool_id: pool for pool in await self._pools.due_among([hold.pool_id for hold in page], until=now)}
        return {hold.pool_id for hold in page if hold.pool_id in due and hold.concerns(due[hold.pool_id])}

    async def _have_settled(self, released: Collection[int], now: int) -> set[int]:
        """Have released pools settled, and return their ids; those left out lose nothing: they are settled."""
        going = set(await self._impact.of(sorted(released), now=now))
        if going:
            log.info("brake_released", pools=len(going))
            self.queue.try_again(dict.fromkeys(going, now))
        return going

    def _tell(self) -> None:
        if self.count:
            detail = "; ".join(filter(None, [self._reason, "see `pool-daemon brake status`"]))
            self._observer.held("brake", detail=detail, pools=self.count)
        else:
            self._observer.released("brake")
