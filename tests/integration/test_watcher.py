"""The watcher on a real change stream: what rings, what does not, and what every ending leads to."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from arithmetic_model import Rates
from bson import DBRef, Int64, MinKey, ObjectId, Regex
from bson.datetime_ms import DatetimeMS
from deadline import wait_until
from explorer import CONTAINER, FREE, YEAR_SECONDS, Explorer
from fail_point import fail_point, times_entered
from pymongo import MongoClient
from structlog.testing import capture_logs

from pool_daemon.clock import SystemClock
from pool_daemon.expiry.watcher import PoolGuards, Watcher
from pool_daemon.expiry.work_queue import Cause, WorkQueue
from pool_daemon.guards.unexpected import Kind, UnexpectedPools
from pool_daemon.settings import Stream, sections
from pool_daemon.store.changes import open_stream
from pool_daemon.store.client import connect
from pool_daemon.store.pools import DuePool
from pool_daemon.telemetry.observer import Observer

Client = MongoClient[dict[str, Any]]

PATIENCE_SECONDS = 10.0


class Watched:
    """A running watcher, and its queue armed for a deadline an hour from now."""

    def __init__(
        self, *, queue: WorkQueue, watcher: Watcher, recent_writes: UnexpectedPools, failing: set[int]
    ) -> None:
        self.recent_writes = recent_writes
        self.failing = failing
        self.queue = queue
        self.watcher = watcher
        self.deadline = time.time() + 3600

    def arm(self, *, pool_id: int | None = None) -> None:
        """Take everything out of the queue and wait anew."""
        self.queue.disarm()
        self.queue.take(int(time.time()) + 1)
        self.queue.done(int(time.time()))
        self.queue.arm(self.deadline, pool_id=pool_id)

    async def taken_with(self, pool_id: int) -> set[int]:
        """Take pools out of the queue until that one is among them; return them all."""
        taken: set[int] = set()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while pool_id not in taken:
                await asyncio.sleep(0.01)
                taken.update(self.queue.take(int(time.time())).by_id)
        return taken

    async def rings(self) -> None:
        assert await self.queue.wait(within_seconds=PATIENCE_SECONDS)


async def until(condition: Callable[[], object], what: str) -> None:
    await asyncio.to_thread(wait_until, condition, within_seconds=PATIENCE_SECONDS, what=what)


def events(logs: list[Any]) -> list[str]:
    return [entry["event"] for entry in logs]


@pytest.fixture
def explorer(mongo: Client, database_name: str) -> Explorer:
    explorer = Explorer(database=mongo[database_name])
    explorer.database.create_collection("capacity-pools")
    explorer.database.create_collection("workload")
    return explorer


@pytest_asyncio.fixture
async def watched(mongo_uri: str, explorer: Explorer) -> AsyncIterator[Watched]:
    database = connect(uri=mongo_uri, name=explorer.database.name, timeout_seconds=5)
    queue = WorkQueue()
    recent_writes = UnexpectedPools(sections.Brake(), SystemClock())
    failing: set[int] = set()
    watcher = Watcher(
        open_stream=lambda token: open_stream(database, token=token),
        queue=queue,
        clock=SystemClock(),
        settings=Stream(),
        observer=Observer(identity="me", version="0", clock=SystemClock()),
        guards=PoolGuards(recent_writes, is_failing=failing.__contains__),
    )
    task = asyncio.create_task(watcher.run(), name="watcher")
    async with asyncio.timeout(PATIENCE_SECONDS):
        await watcher.watching.wait()
    watched = Watched(queue=queue, watcher=watcher, recent_writes=recent_writes, failing=failing)
    watched.arm()
    yield watched
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    database.close()


async def test_a_pool_shortened_to_before_the_deadline_wakes(watched: Watched, explorer: Explorer) -> None:
    pool = explorer.buy(Rates(YEAR_SECONDS, 1e12, 0), [CONTAINER])
    watched.arm()
    explorer.shorten(pool.pool_id, Rates(10, 1e12, 0))
    await watched.rings()


async def test_a_new_pool_that_ends_before_the_deadline_wakes(watched: Watched, explorer: Explorer) -> None:
    explorer.buy(Rates(10, 1e12, 0), [CONTAINER])
    await watched.rings()


async def test_a_top_up_of_the_pool_that_the_timer_is_armed_for_wakes(watched: Watched, explorer: Explorer) -> None:
    pool = explorer.buy(Rates(YEAR_SECONDS, 1e12, 0), [CONTAINER])
    await watched.rings()  # the workload came to be deployed
    watched.arm(pool_id=pool.pool_id)
    explorer.top_up(pool.pool_id, Rates(cu=1e6))
    await watched.rings()


@pytest.mark.parametrize("fails", [False, True])
async def test_a_top_up_of_a_pool_has_it_checked_only_if_it_has_failed(
    watched: Watched, explorer: Explorer, *, fails: bool
) -> None:
    pool = explorer.buy(Rates(YEAR_SECONDS, 1e12, 0), [CONTAINER])
    await watched.taken_with(pool.pool_id)  # its workload came to be deployed
    if fails:
        watched.failing.add(pool.pool_id)
    explorer.top_up(pool.pool_id, Rates(cu=1e6))
    due = explorer.buy_expired(CONTAINER)
    assert (pool.pool_id in await watched.taken_with(due.pool_id)) == fails


async def test_the_removal_of_the_pool_that_the_timer_is_armed_for_wakes(watched: Watched, explorer: Explorer) -> None:
    pool = explorer.buy(Rates(YEAR_SECONDS, 1e12, 0), [FREE[0]])
    watched.arm(pool_id=pool.pool_id)
    explorer.pools.delete_one({"_id": pool.pool_id})
    await watched.rings()


async def test_a_pool_that_is_due_at_once_is_put_into_the_queue(watched: Watched, explorer: Explorer) -> None:
    pool = explorer.buy_expired(CONTAINER)
    await watched.rings()
    assert watched.queue.take(int(time.time())).by_id.keys() == {pool.pool_id}


async def test_every_write_that_gives_a_pool_a_near_or_past_end_is_noted_and_since_when_none_is_missed(
    watched: Watched, explorer: Explorer
) -> None:
    began_at = watched.recent_writes.since
    assert began_at is not None
    past = explorer.buy_expired(CONTAINER)
    near, far = (explorer.buy(Rates(cu=amount), [CONTAINER]) for amount in (60, 1e6))
    restored = explorer.buy(Rates(cu=1e6), [CONTAINER])
    explorer.pools.update_one({"_id": restored.pool_id}, {"$set": {"empty_at": Int64(time.time() - 7200)}})
    ends = {pool.pool_id: pool.empty_at for pool in (past, near, far)} | {restored.pool_id: int(time.time()) - 7200}

    def noted() -> list[Kind | None]:
        pools = [DuePool(pool_id, empty_at=end, synced=True) for pool_id, end in ends.items()]
        keys = [watched.recent_writes.key_of(pool, full_scan=False) for pool in pools]
        return [None if key is None else key[0] for key in keys]

    await until(lambda: noted() == [Kind.PAST, Kind.NEAR, None, Kind.PAST], "the writes to be noted")
    assert watched.recent_writes.near(near.empty_at)[near.pool_id] == near.document["customer_tid"]
    assert watched.recent_writes.since == began_at


async def test_amounts_that_change_while_the_end_stays_matter_only_to_a_pool_that_is_looked_at_later(
    explorer: Explorer, watched: Watched
) -> None:
    waiting, other = (explorer.buy(Rates(10, 1e6), [CONTAINER]) for _ in range(2))
    marker = explorer.buy_expired(CONTAINER)
    await until(lambda: watched.queue.may_be_checked_later(marker.pool_id), "all that was bought to be heard of")
    watched.arm()
    watched.queue.add_all({waiting.pool_id: int(time.time()) + 7200}, cause=Cause.RESOURCE_ENDS)
    for pool in (other, waiting):
        explorer.pools.update_one({"_id": pool.pool_id}, {"$set": {"sus": 7.0}})
    await watched.rings()
    assert watched.queue.take(int(time.time()) + 1).by_id.keys() == {waiting.pool_id}


async def test_amounts_that_change_in_somebodys_transaction_matter_as_any_other(
    watched: Watched, explorer: Explorer, mongo: Client
) -> None:
    pool = explorer.buy(Rates(10, 1e6), [CONTAINER])
    marker = explorer.buy_expired(CONTAINER)
    await until(lambda: watched.queue.may_be_checked_later(marker.pool_id), "all that was bought to be heard of")
    watched.arm()
    watched.queue.add_all({pool.pool_id: int(time.time()) + 7200}, cause=Cause.RESOURCE_ENDS)
    with mongo.start_session() as session, session.start_transaction():
        explorer.pools.update_one({"_id": pool.pool_id}, {"$set": {"sus": 0.0}}, session=session)
    await watched.rings()
    assert watched.queue.take(int(time.time()) + 1).by_id.keys() == {pool.pool_id}


async def test_a_synced_pool_saved_in_a_transaction_as_the_daemon_does_wakes_nobody(
    watched: Watched, explorer: Explorer, mongo: Client
) -> None:
    pool = explorer.buy(Rates(10, 1e6), [CONTAINER])
    marker = explorer.buy_expired(CONTAINER)
    await until(lambda: watched.queue.may_be_checked_later(marker.pool_id), "all that was bought to be heard of")
    watched.arm()
    watched.queue.add_all({pool.pool_id: int(time.time()) + 7200}, cause=Cause.RESOURCE_ENDS)
    with mongo.start_session() as session, session.start_transaction():
        synced = {"cus": 0.0, "sus": 9e5, "last_updated": int(time.time()) + 7}
        explorer.pools.update_one({"_id": pool.pool_id}, {"$set": synced}, session=session)
    explorer.pools.update_one({"_id": marker.pool_id}, {"$set": {"active_cu": 3.0}})
    await watched.rings()
    assert watched.queue.take(int(time.time()) + 1).by_id.keys() == {marker.pool_id}


async def test_a_workload_moved_to_another_pool_puts_that_pool_into_the_queue(
    watched: Watched, explorer: Explorer
) -> None:
    lasting, empty = explorer.buy(Rates(YEAR_SECONDS, 1e12, 0), [CONTAINER]), explorer.buy_expired(CONTAINER)
    await until(lambda: watched.queue.may_be_checked_later(empty.pool_id), "all that was bought to be heard of")
    watched.arm()
    explorer.workloads.update_one({"_id": lasting.workload_ids[0]}, {"$set": {"pool_id": Int64(empty.pool_id)}})
    await watched.rings()
    assert watched.queue.take(int(time.time()) + 1).by_id.keys() == {empty.pool_id}


@pytest.mark.parametrize(
    "workload_id",
    [{"a": 1}, {"a": [{}, None]}, DBRef("workload", {"a": 1}), None, 0.5, "x", b"x", ObjectId(), Regex("x"), MinKey()],
    ids=lambda value: type(value).__name__,
)
async def test_a_workload_is_noticed_whatever_its_id_is(
    watched: Watched, explorer: Explorer, workload_id: object
) -> None:
    """An id that cannot be remembered brings a full scan instead."""
    if isinstance(workload_id, Regex):
        workload_id = {"pattern": workload_id}  # alone it may not be an id
    explorer.workloads.insert_one({"_id": workload_id, "next_action": 2})
    with capture_logs() as logs:
        explorer.workloads.update_one({"next_action": 2}, {"$set": {"next_action": 3}})
        await watched.rings()
    work = watched.queue.take(int(time.time()) + 1)
    assert work.after is None or list(work.workload_ids) == [workload_id]
    assert (work.after is None) == ("change_not_understood" in events(logs))
    await noticed_afterwards(watched, explorer)


@pytest.mark.parametrize(
    "event", [{}, {"operationType": 7}, {"operationType": "insert", "ns": 5}, {"operationType": []}, None, "x"]
)
async def test_an_event_that_makes_no_sense_is_told_once_a_batch_and_followed_by_a_full_scan(
    watched: Watched, explorer: Explorer, event: Any
) -> None:
    with capture_logs() as logs:
        watched.watcher._handle_all([event, event])
        await watched.rings()
    assert [(entry["event"], entry["changes"]) for entry in logs] == [("change_not_understood", 2)]
    assert watched.queue.take(int(time.time()) + 1).after is None
    await noticed_afterwards(watched, explorer)


async def noticed_afterwards(watched: Watched, explorer: Explorer) -> None:
    """Hold the watcher to going on as ever."""
    watched.arm()
    pool = explorer.buy_expired(CONTAINER)
    await until(lambda: watched.queue.may_be_checked_later(pool.pool_id), "the next change")


async def test_a_pool_whose_id_is_a_whole_double_is_put_into_the_queue_as_any_other(
    watched: Watched, explorer: Explorer
) -> None:
    explorer.pools.insert_one({"_id": 77.0, "empty_at": int(time.time()) - 5})
    await watched.rings()
    (pool_id,) = watched.queue.take(int(time.time())).by_id
    assert (pool_id, type(pool_id)) == (77, int)


async def test_a_workload_added_to_an_expired_pool_puts_the_pool_into_the_queue(
    watched: Watched, explorer: Explorer
) -> None:
    pool = explorer.buy_expired(CONTAINER)
    await watched.rings()
    watched.arm()
    explorer.workloads.insert_one(explorer.new_workload(pool.pool_id, CONTAINER))
    await watched.rings()
    assert watched.queue.take(int(time.time())).by_id.keys() == {pool.pool_id}


async def test_a_workload_that_comes_to_be_deployed_is_put_into_the_queue(watched: Watched, explorer: Explorer) -> None:
    workload = explorer.new_workload(404, CONTAINER, next_action=1)
    explorer.workloads.insert_one(workload)
    explorer.deploy(workload["_id"])
    await watched.rings()
    assert watched.queue.take(int(time.time())).workload_ids == {workload["_id"]}


async def test_what_cannot_move_the_deadline_wakes_nobody(watched: Watched, explorer: Explorer) -> None:
    """The same changes pass through a stream of the test's own; when that has seen them, the daemon's has too."""
    far = explorer.buy(Rates(YEAR_SECONDS, 1e12, 0), [CONTAINER])
    await watched.rings()  # the workload came to be deployed
    with explorer.database.watch() as passing:
        watched.arm()
        explorer.top_up(far.pool_id, Rates(cu=1e6))
        explorer.pools.update_one({"_id": far.pool_id}, {"$set": {"cus": 5.0, "last_updated": 7}})
        explorer.pools.update_one({"_id": far.pool_id}, {"$set": {"note": "nobody's business"}})
        explorer.pools.delete_one({"_id": far.pool_id})
        waiting = explorer.new_workload(far.pool_id, CONTAINER, next_action=0)
        explorer.workloads.insert_one(waiting)
        explorer.workloads.update_one({"_id": waiting["_id"]}, {"$set": {"next_action": 4}})
        last: Any = None
        while last != {"_id": waiting["_id"]}:
            change = await asyncio.to_thread(passing.next)
            last = change["documentKey"] if change["operationType"] == "update" else None
        assert passing.resume_token is not None
        behind = passing.resume_token["_data"]
    explorer.database["elsewhere"].insert_one({})  # the token passes a change only when there is another behind it
    await until(lambda: (watched.watcher._token or {}).get("_data", "") > behind, "the daemon's stream to come as far")
    assert not await watched.queue.wait(within_seconds=0)
    assert watched.queue.take(int(time.time()) + 1).by_id == {}


async def test_a_date_that_python_cannot_hold_does_not_end_the_stream(watched: Watched, explorer: Explorer) -> None:
    with capture_logs() as logs:
        explorer.pools.insert_one({"_id": 404, "empty_at": DatetimeMS(2**60)})
        await watched.rings()
        watched.arm()
        pool = explorer.buy_expired(CONTAINER)
        await watched.rings()
    assert watched.queue.take(int(time.time())).by_id.keys() == {pool.pool_id}
    assert "stream_lost" not in events(logs)


async def test_a_dropped_collection_asks_for_a_look_at_everything(watched: Watched, explorer: Explorer) -> None:
    explorer.pools.drop()
    await watched.rings()
    assert watched.queue.take(int(time.time())).after is None


@pytest.mark.parametrize("name", ["capacity-pools", "workload"])
async def test_a_collection_renamed_into_place_asks_for_a_look_at_everything(
    watched: Watched, explorer: Explorer, name: str
) -> None:
    explorer.database["restored"].insert_one({"_id": 1})
    explorer.database["restored"].rename(name, dropTarget=True)
    await watched.rings()
    assert watched.queue.take(int(time.time())).after is None


async def test_a_dropped_database_ends_the_stream_and_a_new_one_is_opened(watched: Watched, explorer: Explorer) -> None:
    with capture_logs() as logs:
        explorer.database.client.drop_database(explorer.database.name)
        await watched.rings()
        await until(lambda: "stream_opened" in events(logs), "a new stream")
        watched.arm()
        explorer.buy(Rates(10, 0, 0), [CONTAINER])
        await watched.rings()


async def test_a_killed_cursor_is_resumed_and_misses_nothing(
    watched: Watched, explorer: Explorer, mongo: Client
) -> None:
    before = times_entered(mongo)
    with fail_point(mongo, "getMore", errorCode=43), capture_logs() as logs:
        await until(lambda: times_entered(mongo) > before, "the cursor to be killed")
        pool = explorer.buy_expired(CONTAINER)
        while pool.pool_id not in watched.queue.take(int(time.time())).by_id:
            await watched.rings()
            watched.queue.disarm()
    assert [entry["resumed"] for entry in logs if entry["event"] == "stream_opened"] == [True]


@pytest.mark.parametrize("code", [260, 280, 286, 10334])
async def test_a_token_that_is_dead_is_dropped_and_everything_is_looked_at(
    watched: Watched, mongo: Client, code: int
) -> None:
    with fail_point(mongo, "getMore", errorCode=code), capture_logs() as logs:
        await watched.rings()
    assert [entry["resumed"] for entry in logs if entry["event"] == "stream_opened"] == [False]
    assert watched.queue.take(int(time.time())).after is None


@pytest.mark.usefixtures("watched")
async def test_errors_that_never_end_cost_the_token_after_a_few_tries(mongo: Client) -> None:
    with fail_point(mongo, "getMore", mode={"times": 3}, errorCode=1), capture_logs() as logs:
        await until(lambda: "resume_token_discarded" in events(logs), "the token to be dropped")


@pytest.mark.parametrize(("code", "cause"), [(40573, "unavailable"), (13, "refused")])
async def test_a_server_without_streams_or_a_right_taken_away_is_an_outage_and_nothing_is_missed(
    watched: Watched, explorer: Explorer, mongo: Client, code: int, cause: str
) -> None:
    with capture_logs() as logs:
        with fail_point(mongo, "getMore", "aggregate", mode="alwaysOn", errorCode=code):
            await until(lambda: events(logs).count("stream_lost") >= 3, "the stream to be tried again and again")
            pool = explorer.buy_expired(CONTAINER)
        await until(lambda: "stream_opened" in events(logs), "the stream to be opened again")
        await until(
            lambda: watched.queue.may_be_checked_later(pool.pool_id), "what was written meanwhile to be noticed"
        )
    lost = [entry for entry in logs if entry["event"] == "stream_lost"]
    assert {entry["cause"] for entry in lost} == {cause}
    assert all(("create-user.js" in entry["reason"]) == (cause == "refused") for entry in lost)


async def test_a_token_that_stands_still_is_a_dead_stream(watched: Watched) -> None:
    watched.watcher._settings = Stream(stall_seconds=0.1)
    with capture_logs() as logs:
        await until(lambda: "stream_lost" in events(logs), "the stream to be given up")
    assert "not moved" in next(entry["reason"] for entry in logs if entry["event"] == "stream_lost")
