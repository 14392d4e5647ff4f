"""The journal: nobody waits for it, and it writes each record once, however the database behaves meanwhile."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from actors import ME
from mock_database import MockDatabase
from structlog.testing import capture_logs
from telemetry_scene import LogOnly
from virtual_time import ProcessClock, in_virtual_time

from pool_daemon.errors import StoreError, StoreRefusedError, StoreUnavailableError
from pool_daemon.store.events import EventStore
from pool_daemon.store.journal import CLOSE_SECONDS, MOST_WAITING, PORTION, Journal
from pool_daemon.store.records import EventKind, Subject, Why
from pool_daemon.store.sessions import Session


class Written(EventStore):
    """Keeps what is written by id, a second later, and answers errors in between."""

    def __init__(self) -> None:
        super().__init__(database=MockDatabase(), actor=ME)
        self.records: dict[Any, Mapping[str, Any]] = {}
        self.portions: list[int] = []
        self.error: StoreError | None = None
        self.error_after: StoreError | None = None

    async def add(self, records: Sequence[Mapping[str, Any]], *, session: Session | None = None) -> None:
        assert session is None
        await asyncio.sleep(1)
        if self.error:
            raise self.error
        self.portions.append(len(records))
        for record in records:
            assert self.records.setdefault(record["_id"], record) == record
        if self.error_after:
            raise self.error_after

    @property
    def pools(self) -> list[int]:
        return [record["pool_id"] for record in self.records.values()]


class Scene:
    """A journal at work."""

    def __init__(self, *, dry_run: bool = False) -> None:
        self.written = Written()
        self.journal = Journal(events=self.written, clock=ProcessClock(), observer=LogOnly(), dry_run=dry_run)
        self.running = asyncio.create_task(self.journal.run())

    def hold(self, *pool_ids: int) -> None:
        for pool_id in pool_ids:
            self.journal.add(EventKind.HELD, Subject(pool_id, 7), Why("many"))


@in_virtual_time
async def test_what_is_added_within_a_moment_is_written_together_and_later() -> None:
    scene = Scene()
    scene.hold(*range(2500))
    assert scene.written.pools == []
    await asyncio.sleep(4)
    assert scene.written.portions == [PORTION, PORTION, 500]
    assert scene.written.pools == list(range(2500))
    scene.hold(2500)
    await asyncio.sleep(2)
    assert scene.written.pools[-1] == 2500


@in_virtual_time
async def test_a_record_says_when_it_was_made_and_not_when_it_was_written() -> None:
    scene = Scene()
    scene.written.error = StoreUnavailableError("away")
    made_at = ProcessClock().now()
    scene.hold(17)
    await asyncio.sleep(600)
    scene.written.error = None
    await asyncio.sleep(100)
    (record,) = scene.written.records.values()
    assert record["at"].timestamp() == pytest.approx(made_at)
    assert (record["kind"], record["by"], record["customer_tid"], record["reason"]) == ("held", "me", 7, "many")


@pytest.mark.parametrize("error", [StoreUnavailableError("away"), StoreRefusedError("not authorized")])
@in_virtual_time
async def test_a_write_without_an_answer_is_repeated_with_the_same_records(error: StoreError) -> None:
    scene = Scene()
    scene.written.error_after = error
    with capture_logs() as logs:
        scene.hold(*range(1500))
        await asyncio.sleep(300)
        scene.written.error_after = None
        scene.hold(1500)
        await asyncio.sleep(100)
    assert len(scene.written.portions) > 4
    assert scene.written.pools == list(range(1501))
    assert {(each["event"], each["records"]) for each in logs} <= {
        ("records_not_written", 1500),
        ("records_not_written", 1501),
    }
    assert len(logs) < 30


@in_virtual_time
async def test_however_long_the_database_is_away_so_many_wait_and_what_was_lost_is_told() -> None:
    scene = Scene()
    scene.written.error = StoreUnavailableError("away")
    scene.hold(*range(MOST_WAITING + 5))
    with capture_logs() as logs:
        await asyncio.sleep(10)
        scene.written.error = None
        await asyncio.sleep(200)
    assert scene.written.pools == list(range(MOST_WAITING))
    assert [each["records"] for each in logs if each["event"] == "records_lost"] == [5]


@in_virtual_time
async def test_a_stop_writes_what_waits_and_is_not_kept_by_a_database_that_is_away() -> None:
    scene = Scene()
    scene.running.cancel()
    scene.hold(1)
    await scene.journal.close()
    assert scene.written.pools == [1]
    scene.written.error = StoreUnavailableError("away")
    scene.hold(2)
    began_at = ProcessClock().now()
    with capture_logs() as logs:
        await scene.journal.close()
    assert ProcessClock().now() - began_at <= CLOSE_SECONDS
    assert [(each["event"], each["records"]) for each in logs] == [("records_lost", 1)]


@in_virtual_time
async def test_a_stop_in_the_middle_of_a_write_repeats_it() -> None:
    scene = Scene()
    scene.hold(1)
    await asyncio.sleep(0.5)
    scene.running.cancel()
    await asyncio.gather(scene.running, return_exceptions=True)
    await scene.journal.close()
    assert scene.written.pools == [1]


@in_virtual_time
async def test_a_dry_run_records_nothing() -> None:
    scene = Scene(dry_run=True)
    scene.hold(1)
    await scene.journal.close()
    assert scene.written.portions == []
