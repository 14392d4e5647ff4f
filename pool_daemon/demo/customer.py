"""The scripted customer: buys the scenario's pools and later changes them, each at its second."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from pool_daemon.capacity.pool import Pool, new_pool
from pool_daemon.clock import Clock
from pool_daemon.demo.explorer import NODE, Explorer
from pool_daemon.demo.scenario import BEFORE_THE_DAEMON, HOUR, Deploy, PlannedPool, Timetable, TopUp

OWNER: Final = 7
RESOURCES: Final = ("cu", "su", "ipv4u")
SPARE_SECONDS: Final = 0.25
"""Bought in addition, so that no end depends on how a product of rate and seconds was rounded."""

PUNCTUAL_SECONDS: Final = 1.0
"""Pools count in whole seconds: an action within its own second has the effect that the scenario expects."""


class Customer:
    """Plays the scenario's customers through the explorer and reports their actions.

    `belated` collects the ids of the pools whose customer acted too late, which is due to the machine and not to the
    daemon.
    """

    def __init__(
        self, *, explorer: Explorer, plans: Sequence[PlannedPool], tell: Callable[[str], None], clock: Clock
    ) -> None:
        self._explorer = explorer
        self._plans = plans
        self._tell = tell
        self._clock = clock
        self.belated: set[int] = set()

    async def buy_what_is_there_before(self, timetable: Timetable) -> None:
        """Buy the pools that exist before the daemon starts."""
        for plan in self._plans:
            if plan.appears == BEFORE_THE_DAEMON:
                await self._buy(plan, timetable, bought_at=timetable.opened_at - HOUR)

    async def buy_what_is_there_at_first(self, timetable: Timetable) -> None:
        """Buy the pools that exist at second 0, as if an hour ago."""
        for plan in self._plans:
            if plan.appears == 0:
                await self._buy(plan, timetable, bought_at=timetable.origin(plan) - HOUR)
                self._look_at_the_clock(plan, due_at=timetable.origin(plan))

    async def play(self, timetable: Timetable) -> None:
        """Do all other actions, each at its second."""
        acts: list[tuple[int, PlannedPool, TopUp | Deploy | None]] = [
            *((plan.appears, plan, None) for plan in self._plans if plan.appears > 0),
            *((act.at, plan, act) for plan in self._plans for act in plan.acts),
        ]
        for second, plan, act in sorted(acts, key=lambda entry: entry[0]):
            due_at = timetable.origin(plan) + second
            await asyncio.sleep(due_at - self._clock.now())
            await self._perform(act, plan, timetable, now=due_at)
            self._look_at_the_clock(plan, due_at=due_at)

    def _look_at_the_clock(self, plan: PlannedPool, *, due_at: int) -> None:
        if self._clock.now() >= due_at + PUNCTUAL_SECONDS:
            self.belated.add(plan.pool_id)

    async def _perform(self, act: TopUp | Deploy | None, plan: PlannedPool, timetable: Timetable, *, now: int) -> None:
        match act:
            case TopUp(until=until):
                await self._top_up(plan, seconds=until - plan.paid_until, now=now)
                self._tell(f"{plan.name}: pays until second {until}")
            case Deploy():
                await self._deploy(plan, now=now)
                self._tell(f"{plan.name}: deploys one more workload")
            case None:
                await self._buy(plan, timetable, bought_at=now)
                self._tell(f"{plan.name}: buys a pool, pays until second {plan.paid_until}")

    async def _buy(self, plan: PlannedPool, timetable: Timetable, *, bought_at: int) -> None:
        pool = new_pool(plan.pool_id, OWNER, 0, [NODE], now=bought_at)
        for workload_id, workload in zip(plan.all_workloads, plan.workloads, strict=False):
            await self._explorer.deploy(workload, workload_id=workload_id, pool=pool, now=bought_at)
        seconds = timetable.origin(plan) + plan.paid_until - bought_at + SPARE_SECONDS
        more = dict.fromkeys(plan.plentiful, HOUR)
        _pay(pool, {name: seconds + more.get(name, 0) for name in RESOURCES}, now=bought_at)
        damage = {"cus": "plenty"} if plan.damaged else {}
        await self._explorer.write_pool(pool, **damage)

    async def _top_up(self, plan: PlannedPool, *, seconds: float, now: int) -> None:
        pool = await self._explorer.read_pool(plan.pool_id)
        _pay(pool, dict.fromkeys(RESOURCES, seconds), now=now)
        await self._explorer.write_pool(pool)

    async def _deploy(self, plan: PlannedPool, *, now: int) -> None:
        pool = await self._explorer.read_pool(plan.pool_id)
        workload_id, workload = list(plan.all_workloads.items())[-1]
        await self._explorer.deploy(workload, workload_id=workload_id, pool=pool, now=now)
        await self._explorer.write_pool(pool)


def _pay(pool: Pool, seconds: dict[str, float], *, now: int) -> None:
    """Buy so much of each resource that it lasts `seconds` longer at the pool's active rates."""
    pool.add_capacity(
        pool.active_cu * seconds["cu"],
        pool.active_su * seconds["su"],
        pool.active_ipv4 * seconds["ipv4u"],
        now=now,
    )
