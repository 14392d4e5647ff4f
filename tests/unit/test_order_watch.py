"""How often the waiting orders are read, by whom, and what becomes of an age that nothing records."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from telemetry_scene import new_observer
from virtual_time import ProcessClock, in_virtual_time

from pool_daemon.errors import StoreUnavailableError
from pool_daemon.guards.leadership import Role
from pool_daemon.telemetry.metric_table import OLDEST_ORDER, ORDERS_WAITING
from pool_daemon.telemetry.order_watch import COUNT_SECONDS, OrderWatch


class Orders:
    """Orders by workload, and since when each waits as far as a record says so."""

    def __init__(self) -> None:
        self.waiting: dict[Any, float | None] = {}
        self.readings = 0
        self.is_away = False

    async def since(self, known: Mapping[Any, float], *, now: float, most: int) -> dict[Any, float]:
        assert most > 1000
        self.readings += 1
        if self.is_away:
            raise StoreUnavailableError("away")
        return {each: known.get(each, now if at is None else at) for each, at in self.waiting.items()}


class Scene:
    """A daemon's watch, made on a running loop."""

    def __init__(self, role: Role = Role.LEADER) -> None:
        self.clock = ProcessClock()
        self.orders = Orders()
        self.observer = new_observer(self.clock)
        self.observer.role_seen(role, term=1, leader="me")
        self.watch = OrderWatch(orders=self.orders, observer=self.observer, clock=self.clock)

    def gauges(self) -> tuple[Any, Any]:
        snapshot, tick = self.observer.status.snapshot, self.clock.monotonic()
        return ORDERS_WAITING.read(snapshot, tick), OLDEST_ORDER.read(snapshot, tick)


@in_virtual_time
async def test_the_age_of_the_oldest_grows_until_its_node_has_carried_it_out() -> None:
    scene = Scene()
    assert scene.gauges() == (None, None)
    scene.orders.waiting = {1: scene.clock.now() - 3000, 2: scene.clock.now() - 5}
    await scene.watch.look()
    assert scene.gauges() == (2, pytest.approx(3000))
    await asyncio.sleep(1000)
    assert scene.gauges() == (2, pytest.approx(4000))
    del scene.orders.waiting[1]
    await scene.watch.look()
    assert scene.gauges() == (1, pytest.approx(1005))
    scene.orders.waiting.clear()
    await scene.watch.look()
    assert scene.gauges() == (0, 0.0)


@in_virtual_time
async def test_an_order_without_a_record_waits_since_it_was_seen_first() -> None:
    scene = Scene()
    scene.orders.waiting = {1: None}
    for _ in range(60):
        await scene.watch.look()
        await asyncio.sleep(COUNT_SECONDS)
    assert scene.gauges() == (1, pytest.approx(3600))


@in_virtual_time
async def test_they_are_read_once_a_minute_through_an_outage_and_keep_their_age() -> None:
    scene = Scene()
    scene.orders.waiting = {1: scene.clock.now()}
    running = asyncio.create_task(scene.watch.run())
    await asyncio.sleep(1)
    scene.orders.is_away = True
    await asyncio.sleep(600)
    assert scene.orders.readings == 11
    assert scene.gauges() == (1, pytest.approx(601))
    scene.orders.is_away = False
    scene.orders.waiting.clear()
    await asyncio.sleep(60)
    assert scene.gauges() == (0, 0.0)
    running.cancel()


@in_virtual_time
async def test_only_the_leader_reads_them_and_a_deposed_one_says_nothing_any_more() -> None:
    scene = Scene(Role.STANDBY)
    scene.orders.waiting = {1: None}
    await scene.watch.look()
    assert (scene.orders.readings, scene.gauges()) == (0, (None, None))
    scene.observer.role_seen(Role.LEADER, term=2, leader="me")
    await scene.watch.look()
    scene.observer.role_seen(Role.STANDBY, leader="other")
    await scene.watch.look()
    assert (scene.orders.readings, scene.gauges()) == (1, (None, None))
