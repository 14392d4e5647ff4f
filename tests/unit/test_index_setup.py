"""The indexes that are built in the background: what cannot be built is told once, and tried again."""

import asyncio
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs
from telemetry_scene import new_observer
from virtual_time import in_virtual_time

from pool_daemon.errors import StoreError, StoreRefusedError, StoreUnavailableError
from pool_daemon.index_setup import RECHECK_SECONDS, IndexSetup
from pool_daemon.store.setup import Index
from pool_daemon.telemetry.observer import Observer

FIRST, SECOND = Index("pools", (("a", 1),)), Index("workloads", (("b", 1), ("c", 1)))


class Server:
    """Has indexes, and errors that it answers instead of building some."""

    def __init__(self) -> None:
        self.there: set[Index] = set()
        self.errors: dict[Index, StoreError] = {}
        self.refusal: StoreError | None = None
        self.hidden: set[Index] = set()

    async def missing(self) -> list[Index]:
        if self.refusal:
            raise self.refusal
        return [index for index in (FIRST, SECOND) if index not in self.there]

    async def build(self, index: Index) -> None:
        await asyncio.sleep(10)
        if index in self.errors:
            raise self.errors[index]
        if index not in self.hidden:
            self.there.add(index)


class Scene:
    """An index set-up that runs on such a server."""

    def __init__(self) -> None:
        self.server, self.observer, self.built = Server(), new_observer(), 0
        self.setup = IndexSetup(
            missing=self.server.missing, build=self.server.build, built=self._count, observer=self.observer
        )

    def _count(self) -> None:
        self.built += 1

    async def run(self, seconds: float) -> None:
        running = asyncio.create_task(self.setup.run())
        await asyncio.sleep(seconds)
        running.cancel()


def state(observer: Observer) -> tuple[bool, dict[str, str]]:
    now = observer.status.snapshot
    return now.indexes_made, dict(now.indexes_missing or {})


@in_virtual_time
async def test_missing_indexes_are_said_to_be_built_until_they_are() -> None:
    scene = Scene()
    await scene.run(5)
    building = {"pools: a": "is being built", "workloads: b, c": "is being built"}
    assert state(scene.observer) == (False, building)
    await scene.run(30)
    assert (state(scene.observer), scene.built) == ((True, {}), 2)


@in_virtual_time
async def test_one_that_cannot_be_built_keeps_no_other_from_it_is_told_once_and_is_tried_again() -> None:
    scene = Scene()
    scene.server.errors[FIRST] = StoreError("no room")
    with capture_logs() as logs:
        await scene.run(3 * RECHECK_SECONDS)
        assert state(scene.observer) == (True, {"pools: a": "no room"})
        assert [(entry["event"], entry["index"]) for entry in logs] == [("index_missing", "pools: a")]
        assert scene.server.there == {SECOND}
        scene.server.errors.clear()
        await scene.run(RECHECK_SECONDS)
    assert (state(scene.observer), scene.server.there) == ((True, {}), {FIRST, SECOND})


@in_virtual_time
async def test_one_that_is_still_missing_after_its_build_is_told() -> None:
    scene = Scene()
    scene.server.hidden.add(FIRST)
    await scene.run(60)
    made, missing = state(scene.observer)
    assert made
    assert list(missing) == ["pools: a"]
    assert "hidden" in missing["pools: a"]


def _lists(server: Server, error: StoreError) -> None:
    server.refusal = error


def _builds(server: Server, error: StoreError) -> None:
    server.errors[FIRST] = error


@pytest.mark.parametrize("cannot", [_lists, _builds])
@in_virtual_time
async def test_a_right_that_is_missing_is_told_with_the_remedy(cannot: Callable[[Server, StoreError], None]) -> None:
    scene = Scene()
    cannot(scene.server, StoreRefusedError("not authorized"))
    with capture_logs() as logs:
        await scene.run(RECHECK_SECONDS)
    assert "create-user.js" in next(entry["remedy"] for entry in logs if entry["event"] == "index_missing")
    assert scene.observer.status.snapshot.indexes_made


@pytest.mark.parametrize("cannot", [_lists, _builds])
@in_virtual_time
async def test_an_outage_is_waited_out(cannot: Callable[[Server, StoreError], None]) -> None:
    scene = Scene()
    cannot(scene.server, StoreUnavailableError("away"))
    await scene.run(60)
    assert not scene.observer.status.snapshot.indexes_made
    scene.server.refusal = None
    scene.server.errors.clear()
    await scene.run(60)
    assert state(scene.observer) == (True, {})
