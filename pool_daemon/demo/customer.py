"""The scripted customer, and the explorer service through which he buys pools and changes them, each at its second.

The explorer reads a pool, changes it in memory and writes all of it back, with no version and no transaction. It is
another program than the daemon and so has a client of its own.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from bson import Int64
from pymongo import AsyncMongoClient

from pool_daemon.capacity.pool import Pool, new_pool
from pool_daemon.capacity.workload import NextAction, cloud_units
from pool_daemon.clock import Clock
from pool_daemon.demo.scenario import BEFORE_THE_DAEMON, HOUR, Deploy, PlannedPool, Timetable, TopUp, Workload
from pool_daemon.demo.scene import DatabaseState, Record
from pool_daemon.store.codec import pool_from_document, pool_to_document

NODE: Final = "a node"
TIMEOUT_MILLISECONDS: Final = 10_000


class Explorer:
    """The reads and writes of other programs; `written` holds each pool as it was last written."""

    def __init__(self, *, uri: str, database: str) -> None:
        self._client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
            uri, tz_aware=True, timeoutMS=TIMEOUT_MILLISECONDS
        )
        self._database = self._client[database]
        self.written: dict[int, dict[str, Any]] = {}

    async def read_pool(self, pool_id: int) -> Pool:
        """Read one pool."""
        document = await self._database["capacity-pools"].find_one({"_id": pool_id})
        return pool_from_document(document or {})

    async def write_pool(self, pool: Pool, **damage: Any) -> None:
        """Overwrite the whole pool, with the fields in `damage` instead of its own."""
        document = pool_to_document(pool) | damage
        fields = {name: value for name, value in document.items() if name != "_id"}
        await self._database["capacity-pools"].update_one({"_id": document["_id"]}, {"$set": fields}, upsert=True)
        self.written[pool.pool_id] = document

    async def deploy(self, workload: Workload, *, workload_id: int, pool: Pool, now: int) -> None:
        """Write a deployed workload's document and add it to the pool in memory."""
        document = {
            "_id": Int64(workload_id),
            "workload_id": Int64(workload_id),
            "node_id": NODE,
            "pool_id": Int64(pool.pool_id),
            "customer_tid": Int64(pool.customer_tid),
            "next_action": int(NextAction.DEPLOY),
            "workload_type": int(workload.type),
            **workload.fields,
        }
        await self._database["workload"].insert_one(document)
        pool.add_workload(workload_id, *cloud_units(document), now=now)

    async def snapshot(self) -> DatabaseState:
        """Read everything that the daemon works on and writes."""
        events = self._database["pool-daemon-events"].find({"kind": "decommissioned"})
        records = await events.sort("decommissioned_at").to_list()
        return DatabaseState(
            pools=await self._all("capacity-pools"),
            workloads=await self._all("workload"),
            orders=await self._all("workqueue"),
            records=tuple(_record(document) for document in records),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _all(self, collection: str) -> Mapping[int, Mapping[str, Any]]:
        return {document["_id"]: document async for document in self._database[collection].find()}


def _record(document: Mapping[str, Any]) -> Record:
    return Record(
        workload_id=document["workload_id"],
        resources=tuple(document["resources"]),
        empty_at=document["empty_at"],
        decommissioned_at=document["decommissioned_at"],
    )


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
