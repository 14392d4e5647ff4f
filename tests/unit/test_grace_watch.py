"""How often the pools in grace are counted, and by whom."""

import asyncio

from structlog.testing import capture_logs
from telemetry_scene import new_observer
from virtual_time import ProcessClock, in_virtual_time

from pool_daemon.errors import StoreUnavailableError
from pool_daemon.guards.leadership import Role
from pool_daemon.telemetry.grace_watch import COUNT_SECONDS, STANDBY_SECONDS, GraceWatch
from pool_daemon.telemetry.metric_table import IN_GRACE


class Scene:
    """A daemon's watch, made on a running loop, of records that may be away."""

    def __init__(self, role: Role = Role.LEADER) -> None:
        self.clock = ProcessClock()
        self.pools = 0
        self.counts = 0
        self.is_away = False
        self.observer = new_observer(self.clock)
        self.observer.role_seen(role, term=1, leader="me")
        self.watch = GraceWatch(count=self._count, observer=self.observer)

    def in_grace(self) -> object:
        return IN_GRACE.read(self.observer.status.snapshot, self.clock.monotonic())

    async def _count(self) -> int:
        self.counts += 1
        if self.is_away:
            raise StoreUnavailableError("away")
        return self.pools


@in_virtual_time
async def test_the_pools_in_grace_are_counted_now_and_then() -> None:
    scene = Scene()
    assert scene.in_grace() is None
    running = asyncio.create_task(scene.watch.run())
    scene.pools = 3
    await asyncio.sleep(0.1)
    assert scene.in_grace() == 3
    scene.pools = 0
    await asyncio.sleep(COUNT_SECONDS)
    assert (scene.in_grace(), scene.counts) == (0, 2)
    running.cancel()


@in_virtual_time
async def test_a_standby_counts_nothing_and_a_leader_that_has_become_one_no_longer_knows() -> None:
    scene = Scene(Role.STANDBY)
    await scene.watch.look()
    assert (scene.in_grace(), scene.counts) == (None, 0)
    scene.observer.role_seen(Role.LEADER, term=2)
    await scene.watch.look()
    assert (scene.in_grace(), scene.counts) == (0, 1)
    scene.observer.role_seen(Role.STANDBY, leader="other")
    await scene.watch.look()
    assert scene.in_grace() is None


@in_virtual_time
async def test_a_daemon_that_has_begun_to_lead_counts_soon() -> None:
    scene = Scene(Role.STANDBY)
    running = asyncio.create_task(scene.watch.run())
    await asyncio.sleep(COUNT_SECONDS)
    assert scene.counts == 0
    scene.observer.role_seen(Role.LEADER, term=2)
    await asyncio.sleep(STANDBY_SECONDS)
    assert (scene.in_grace(), scene.counts) == (0, 1)
    running.cancel()


@in_virtual_time
async def test_an_outage_is_told_keeps_the_former_count_and_ends_no_watch() -> None:
    scene = Scene()
    scene.pools = 3
    await scene.watch.look()
    scene.is_away = True
    with capture_logs() as logs:
        running = asyncio.create_task(scene.watch.run())
        await asyncio.sleep(1.5 * COUNT_SECONDS)
    assert [log["event"] for log in logs] == ["grace_read_failed"] * 2
    assert scene.in_grace() == 3
    scene.is_away, scene.pools = False, 4
    await asyncio.sleep(COUNT_SECONDS)
    assert scene.in_grace() == 4
    running.cancel()
