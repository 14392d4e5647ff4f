"""When a pool that fails is tried again; time is virtual and the database in memory."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from mock_database import MockDatabase
from structlog.testing import capture_logs
from telemetry_scene import LogOnly
from virtual_time import ProcessClock, in_virtual_time

from pool_daemon.errors import StoreError, StoreUnavailableError
from pool_daemon.guards import quarantine as module
from pool_daemon.guards.quarantine import Quarantine
from pool_daemon.settings import sections
from pool_daemon.store.client import Database
from pool_daemon.store.pools import DuePool
from pool_daemon.store.quarantine import Quarantined, QuarantineStore
from pool_daemon.store.records import EventKind, Subject

POISON = StoreError("this document is too large")
OWNER = 144
SETTINGS = sections.Retry(attempts=5, initial_backoff_seconds=1, max_backoff_seconds=300, quarantine_seconds=3600)


class SlowStore(QuarantineStore):
    """A database that is away at first, and then takes its time to write."""

    def __init__(self, *, database: Database) -> None:
        super().__init__(database=database, identity="me")
        self.away = True

    async def save(self, quarantined: Quarantined) -> None:
        if self.away:
            raise StoreUnavailableError("away")
        await asyncio.sleep(5)
        await super().save(quarantined)


class Scene(LogOnly):
    """A quarantine, what it asked for, and the collection that it keeps."""

    def __init__(
        self,
        *,
        database: MockDatabase | None = None,
        settings: sections.Retry = SETTINGS,
        is_slow: bool = False,
    ) -> None:
        self.database = database or MockDatabase()
        self.slow = SlowStore(database=self.database)
        self.documents = self.database.collection("pool-daemon-quarantine")
        self.clock = ProcessClock()
        self.looks: dict[int, int] = {}
        self.seen: tuple[int, Sequence[Quarantined]] = (0, ())
        self.failing: tuple[int, float | None] = (0, None)
        self.quarantine = Quarantine(
            store=self.slow if is_slow else QuarantineStore(database=self.database, identity="me"),
            settings=settings,
            clock=self.clock,
            look_again=self._look_again,
            observer=self,
            record=lambda kind, subject, why: self.recorded.append((kind, subject, why.reason)),
        )
        self.recorded: list[tuple[EventKind, Subject, str]] = []

    @property
    def now(self) -> int:
        return int(self.clock.now())

    def tried(self, *pool_ids: int) -> list[int]:
        return [pool.pool_id for pool in self.quarantine.filter_allowed(DuePool(pool_id) for pool_id in pool_ids)]

    def _look_again(self, wishes: Mapping[int, int]) -> None:
        self.looks.update(wishes)

    def quarantine_seen(self, total: int, sample: Sequence[Quarantined]) -> None:
        self.seen = (total, sample)

    def undone_seen(self, reason: str, pools: int, since_at: float | None = None) -> None:
        assert reason == "failing"
        self.failing = (pools, since_at)

    async def fail(self, pool_id: int, error: Exception = POISON, *, times: int = 1) -> list[int]:
        """Let a pool fail, each time as soon as it may be tried again; return the waits in between."""
        waits = []
        for _ in range(times):
            failed_at = self.now
            next_try_at = await self.quarantine.failed(pool_id, error, failed_at, owner=OWNER)
            assert self.looks[pool_id] == next_try_at
            waits.append(next_try_at - failed_at)
            await self.wait(waits[-1])
        return waits

    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def stored(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = await self.documents.find({}).to_list(None)
        return found


@in_virtual_time
async def test_that_a_pool_comes_into_quarantine_and_leaves_it_is_recorded_once() -> None:
    scene = Scene()
    await scene.fail(7, times=SETTINGS.attempts - 1)
    assert scene.recorded == []
    await scene.fail(7, times=3)
    reason = str(POISON)
    assert scene.recorded == [(EventKind.QUARANTINED, Subject(7, OWNER), reason)]
    await scene.quarantine.settled([7, 8])
    await scene.quarantine.settled([7, 8])
    assert scene.recorded[1:] == [(EventKind.RELEASED, Subject(7, OWNER), "quarantine: it could be settled")]


@in_virtual_time
async def test_the_owner_is_remembered_over_a_restart_and_over_a_failure_that_does_not_tell_it() -> None:
    before = Scene()
    await before.fail(7, times=SETTINGS.attempts)
    await before.quarantine.failed(7, POISON, before.now, owner=None)
    after = Scene(database=before.database)
    await after.quarantine.load()
    await after.quarantine.settled([7])
    assert after.recorded == [(EventKind.RELEASED, Subject(7, OWNER), "quarantine: it could be settled")]


@in_virtual_time
async def test_a_pool_that_fails_is_tried_again_later_and_later_with_jitter() -> None:
    settings = sections.Retry(attempts=100, initial_backoff_seconds=2, max_backoff_seconds=300)
    scenes = [Scene(settings=settings) for _ in range(20)]
    lasts = set()
    for scene in scenes:
        waits = await scene.fail(7, times=12)
        for number, wait in enumerate(waits):
            ceiling = min(300, 2 * 2**number)
            assert ceiling / 2 <= wait <= ceiling
        lasts.add(waits[-1])
    assert len(lasts) > 5


@in_virtual_time
async def test_a_pool_waits_for_its_next_try_and_nobody_else_does() -> None:
    scene = Scene()
    next_try_at = await scene.quarantine.failed(7, POISON, scene.now, owner=OWNER)
    scene.looks.clear()
    assert scene.tried(6, 7, 8) == [6, 8]
    assert scene.looks == {7: next_try_at}  # whatever brought it here too early must not cost it its look
    await scene.wait(next_try_at - scene.now)
    assert scene.tried(6, 7, 8) == [6, 7, 8]


@in_virtual_time
async def test_after_the_set_number_of_tries_a_pool_is_quarantined_and_tried_seldom() -> None:
    scene = Scene()
    with capture_logs() as logs:
        await scene.fail(7, times=4)
        assert (logs, await scene.stored()) == ([], [])
        first_failed_at, failed_at = scene.now - 4, scene.now
        waits = await scene.fail(7, times=3)
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("pool_quarantined", "warning")]
    assert (logs[0]["pool"], logs[0]["tries"], logs[0]["reason"]) == (7, 5, str(POISON))
    assert all(3240 <= wait <= 3960 for wait in waits)
    (document,) = await scene.stored()
    assert (document["_id"], document["reason"], document["tries"], document["by"]) == (7, str(POISON), 7, "me")
    assert document["first_failed_at"].timestamp() <= first_failed_at
    assert document["next_try_at"].timestamp() == failed_at + sum(waits)


@in_virtual_time
async def test_a_pool_that_is_fine_again_starts_anew_and_leaves_the_quarantine() -> None:
    scene = Scene()
    await scene.fail(7, times=5)
    await scene.fail(8, times=4)
    with capture_logs() as logs:
        await scene.quarantine.settled([6, 7, 8])
    assert [(entry["event"], entry["log_level"], entry["pool"]) for entry in logs] == [("pool_released", "info", 7)]
    assert await scene.stored() == []
    assert scene.tried(7, 8) == [7, 8]
    await scene.fail(8, times=4)
    assert await scene.stored() == []


@in_virtual_time
async def test_a_late_write_does_not_put_back_a_pool_that_is_fine_again() -> None:
    scene = Scene(is_slow=True)
    await scene.fail(7, times=5)
    scene.slow.away = False
    looking = asyncio.create_task(scene.quarantine.look())
    await scene.wait(1)
    await scene.quarantine.settled([7])
    await looking
    assert await scene.stored() == []
    await scene.quarantine.load()
    assert scene.tried(7) == [7]


@in_virtual_time
async def test_two_failures_at_once_are_both_written_down() -> None:
    scene = Scene(is_slow=True)
    await scene.fail(7, times=5)
    scene.slow.away = False
    looking = asyncio.create_task(scene.quarantine.look())
    await scene.wait(1)
    await scene.quarantine.failed(7, POISON, scene.now, owner=OWNER)
    await looking
    assert [document["tries"] for document in await scene.stored()] == [6]


@in_virtual_time
async def test_a_restart_forgets_nothing() -> None:
    before = Scene()
    await before.fail(7, times=4)
    next_try_at = await before.quarantine.failed(7, POISON, before.now, owner=OWNER)
    after = Scene(database=before.database)
    await after.quarantine.load()
    assert after.looks == {7: next_try_at}
    assert after.tried(6, 7) == [6]
    await after.wait(next_try_at - after.now)
    assert after.tried(6, 7) == [6, 7]
    (wait,) = await after.fail(7)
    assert wait >= 3240
    assert (await after.stored())[0]["tries"] == 6
    await after.quarantine.settled([7])
    assert await after.stored() == []


@in_virtual_time
async def test_a_release_by_an_operator_is_noticed_within_seconds() -> None:
    scene = Scene()
    for pool_id in (7, 8):
        await scene.fail(pool_id, times=4)
    for pool_id in (7, 8):
        await scene.quarantine.failed(pool_id, POISON, scene.now, owner=OWNER)
    running = asyncio.create_task(scene.quarantine.run())
    await scene.wait(100)
    assert scene.tried(7, 8) == []
    await scene.documents.delete_one({"_id": 7})
    with capture_logs() as logs:
        await scene.wait(3.1)
    assert [(entry["event"], entry["pool"]) for entry in logs] == [("pool_released", 7)]
    assert scene.looks[7] <= scene.now
    assert scene.tried(7, 8) == [7]
    await scene.fail(7, times=4)
    assert [document["_id"] for document in await scene.stored()] == [8]
    running.cancel()


@in_virtual_time
async def test_a_pool_that_is_not_due_any_more_leaves_the_quarantine() -> None:
    scene = Scene()
    await scene.fail(7, times=5)
    with capture_logs() as logs:
        await scene.quarantine.not_due([7, 8])
    assert [(entry["event"], entry["reason"]) for entry in logs] == [("pool_released", "it is not due any more")]
    assert not scene.quarantine.knows(7)
    assert await scene.stored() == []
    assert scene.recorded[-1] == (EventKind.RELEASED, Subject(7, OWNER), "quarantine: it is not due any more")


@in_virtual_time
async def test_a_try_that_got_lost_is_made_up_for() -> None:
    """While a gate is closed nothing is kept to be checked by id, and what was topped up no full scan finds."""
    scene = Scene()
    await scene.fail(7, times=1)
    tried_at = scene.looks.pop(7)
    running = asyncio.create_task(scene.quarantine.run())
    await scene.wait(60)
    assert scene.looks == {}
    await scene.wait(80)
    assert scene.looks[7] > tried_at
    running.cancel()


@in_virtual_time
async def test_what_another_daemon_has_quarantined_is_known_within_a_minute() -> None:
    ours = Scene()
    await ours.quarantine.load()
    theirs = Scene(database=ours.database)
    await theirs.fail(7, times=4)
    next_try_at = await theirs.quarantine.failed(7, POISON, theirs.now, owner=OWNER)
    assert ours.tried(7) == [7]
    running = asyncio.create_task(ours.quarantine.run())
    await ours.wait(63.1)
    assert ours.tried(7) == []
    assert ours.looks == {7: next_try_at}
    running.cancel()


@in_virtual_time
async def test_a_dry_run_writes_nothing() -> None:
    scene = Scene()
    await scene.fail(7, times=5)
    dry = QuarantineStore(database=scene.database, dry_run=True)
    await dry.save(Quarantined(8, "poison", 5, scene.now, scene.now, "me"))
    assert not await dry.remove(7)
    assert [document["_id"] for document in await scene.stored()] == [7]


@in_virtual_time
async def test_the_observer_sees_how_many_and_those_first_that_are_tried_first() -> None:
    scene = Scene()
    for pool_id in range(1, 31):
        await scene.fail(pool_id, times=5)
    await scene.quarantine.look()
    total, sample = scene.seen
    assert (total, len(sample)) == (30, 20)
    assert [each.next_try_at for each in sample] == sorted(each.next_try_at for each in sample)
    await scene.quarantine.settled(range(1, 31))
    await scene.quarantine.look()
    assert scene.seen == (0, [])


@in_virtual_time
async def test_memory_is_bounded_and_what_does_not_fit_is_tried_seldom() -> None:
    scene = Scene()
    for pool_id in range(module.REMEMBERED):
        await scene.quarantine.failed(pool_id, POISON, scene.now, owner=OWNER)
    assert await scene.quarantine.failed(-1, POISON, scene.now, owner=OWNER) == scene.now + 300
    assert scene.tried(-1) == [-1]


@pytest.mark.parametrize(
    "damage",
    [
        lambda document: document.pop("next_try_at"),
        lambda document: document.update(first_failed_at="yesterday"),
        lambda document: document.update(tries="many"),
        lambda document: document.update(_id="seven"),
    ],
)
def test_a_document_that_makes_no_sense_keeps_nobody_in_quarantine(
    damage: Callable[[dict[str, Any]], object],
) -> None:
    @in_virtual_time
    async def scenario() -> None:
        scene = Scene()
        store = QuarantineStore(database=scene.database)
        await store.save(Quarantined(7, "poison", 5, scene.now, scene.now + 3600, "me"))
        (document,) = await scene.stored()
        await scene.documents.delete_one({})
        damage(document)
        await scene.documents.insert_one(document)
        await scene.quarantine.load()
        assert scene.tried(7) == [7]

    scenario()


@in_virtual_time
async def test_pools_that_fail_are_told_with_since_when_until_they_are_in_quarantine() -> None:
    scene = Scene()
    await scene.quarantine.look()
    assert list(scene.failing) == [0, None]
    first_failed_at = scene.now
    await scene.fail(7)
    await scene.fail(8, times=4)
    await scene.quarantine.look()
    assert list(scene.failing) == [2, first_failed_at]
    await scene.fail(7, times=4)
    await scene.quarantine.look()
    assert scene.failing[0] == 1
    assert scene.seen[0] == 1
