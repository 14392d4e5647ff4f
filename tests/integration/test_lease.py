"""The lease as a document: what holds on every server, and of the stand-in that the tests of time use instead."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import bson
import pymongo
import pytest
import pytest_asyncio
from bson import Binary, Int64
from bson.datetime_ms import DatetimeMS
from bson.raw_bson import RawBSONDocument
from deadline import soonest_of
from fail_point import fail_point
from lease_in_memory import LeaseInMemory, LeaseServer
from pydantic import ValidationError
from pymongo import MongoClient
from pymongo.errors import PyMongoError
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from pool_daemon.errors import StoreConflictError, StoreUnavailableError
from pool_daemon.settings import Lease as LeaseSettings
from pool_daemon.store.client import Database, connect
from pool_daemon.store.lease import LEADER, LEASE, LONGEST_SECONDS, LeaseRecord, LeaseStore
from pool_daemon.store.sessions import SEARCHES, SESSIONS, Session
from pool_daemon.store.setup import create_collections
from pool_daemon.store.store import Leases

Document = dict[str, Any]
Client = MongoClient[Document]
Make = Callable[..., Leases]

LONG_SECONDS = 60.0
HEALTHY: Document = {
    "_id": LEADER,
    "holder": "a",
    "term": Int64(7),
    "seconds": 15.0,
    "renewed_at": datetime(2020, 1, 1, tzinfo=UTC),
    "expires_at": datetime(2020, 1, 1, tzinfo=UTC),
}


class World:
    """One lease, and a hand that can write anything into it."""

    def __init__(self, *, make: Make, write: Callable[[Document | None], Any]) -> None:
        self.make = make
        self.write = write

    def of(self, identity: str, *, seconds: float = LONG_SECONDS) -> Leases:
        return self.make(identity=identity, seconds=seconds)


@pytest_asyncio.fixture
async def database(mongo_uri: str, database_name: str) -> AsyncIterator[Database]:
    database = connect(uri=mongo_uri, name=database_name)
    # Connected beforehand: a short lease leaves no time for that.
    await database.collection(LEASE).find_one({})
    yield database
    database.close()


def leases_in(database: Database) -> World:
    collection = database.collection(LEASE)

    async def write(document: Document | None) -> None:
        await collection.delete_many({})
        if document is not None:
            await collection.insert_one(document)

    return World(make=lambda **options: LeaseStore(database=database, **options), write=write)


def leases_in_memory() -> World:
    server = LeaseServer()

    async def write(document: Document | None) -> None:
        server.document = document

    return World(make=lambda **options: LeaseInMemory(server=server, **options), write=write)


@pytest.fixture(params=["replica set", "memory"])
def leases(request: pytest.FixtureRequest) -> World:
    if request.param == "memory":
        return leases_in_memory()
    return leases_in(request.getfixturevalue("database"))


async def expired(lease: Leases) -> LeaseRecord:
    """Look at a lease that has expired."""
    seen = await lease.look()
    assert seen.remaining_seconds <= 0
    return seen


async def test_where_there_is_no_lease_there_is_nothing_to_see(leases: World) -> None:
    assert await leases.of("a").look() == LeaseRecord()


async def test_a_lease_taken_shows_its_holder_its_term_and_the_time_that_is_left(leases: World) -> None:
    lease = leases.of("a")
    assert await lease.take(await lease.look(), term=3)
    seen = await leases.of("b").look()
    assert (seen.holder, seen.term, seen.seconds, seen.problem) == ("a", 3, LONG_SECONDS, None)
    assert LONG_SECONDS - 5 < seen.remaining_seconds <= LONG_SECONDS


async def test_two_looks_at_a_lease_that_nobody_touched_are_equal(leases: World) -> None:
    lease = leases.of("a")
    await lease.take(await lease.look(), term=1)
    assert (await lease.look()).document == (await leases.of("b").look()).document


async def test_of_fifty_that_saw_no_lease_one_takes_it(leases: World) -> None:
    rivals = [leases.of(f"rival-{number}") for number in range(50)]
    took = await asyncio.gather(*(rival.take(LeaseRecord(), term=1) for rival in rivals))
    assert sum(took) == 1
    assert (await rivals[0].look()).holder == rivals[took.index(True)].identity


async def test_of_fifty_that_saw_it_expire_one_takes_it(leases: World) -> None:
    await leases.write(HEALTHY)
    last = leases.of("a")
    seen = await expired(last)
    took = await asyncio.gather(*(leases.of(f"rival-{number}").take(seen, term=8) for number in range(50)))
    assert sum(took) == 1
    assert not await last.renew(term=7)


async def test_fifty_of_one_name_are_still_fifty(leases: World) -> None:
    rivals = [leases.of("namesake") for _ in range(50)]
    seen = await rivals[0].look()
    assert sum(await asyncio.gather(*(rival.take(seen, term=1) for rival in rivals))) == 1


async def test_a_lease_renewed_since_it_was_seen_is_not_taken(leases: World) -> None:
    await leases.write(HEALTHY)
    holder, rival = leases.of("a"), leases.of("b")
    seen = await expired(rival)
    assert await holder.renew(term=7)
    assert not await rival.take(seen, term=8)


async def test_a_lease_that_vanished_since_it_was_seen_is_not_taken(leases: World) -> None:
    rival = leases.of("b")
    await leases.of("a").take(LeaseRecord(), term=1)
    seen = await rival.look()
    await leases.write(None)
    assert not await rival.take(seen, term=2)


async def test_a_lease_is_renewed_from_now_on_for_its_whole_length(leases: World) -> None:
    await leases.write(HEALTHY)
    holder = leases.of("a", seconds=LONG_SECONDS)
    await expired(holder)
    assert await holder.renew(term=7)
    seen = await holder.look()
    assert LONG_SECONDS - 5 < seen.remaining_seconds <= LONG_SECONDS == seen.seconds


async def test_only_its_holder_in_its_term_renews_or_releases_it(leases: World) -> None:
    holder = leases.of("a")
    await holder.take(LeaseRecord(), term=2)
    seen = await holder.look()
    for other, term in ((leases.of("b"), 2), (holder, 1), (holder, 3)):
        assert not await other.renew(term=term)
        assert not await other.release(term=term)
    assert (await holder.look()).document == seen.document


async def test_a_lease_released_is_nobodys_keeps_its_term_and_is_not_renewed_by_a_straggler(leases: World) -> None:
    holder = leases.of("a")
    await holder.take(LeaseRecord(), term=2)
    assert await holder.release(term=2)
    assert not await holder.renew(term=2)
    seen = await holder.look()
    assert (seen.holder, seen.term, seen.problem) == (None, 2, None)
    assert await leases.of("b").take(seen, term=3)


async def test_a_name_that_looks_like_an_expression_is_a_name(leases: World) -> None:
    lease = leases.of("$term")
    assert await lease.take(LeaseRecord(), term=1)
    assert await lease.renew(term=1)
    assert (await lease.look()).holder == "$term"


@pytest.mark.parametrize(
    ("edited", "field"),
    [
        ({"holder": 5}, "holder"),
        ({"term": "seven"}, "term"),
        ({"term": Int64(2**63 - 1)}, "term"),
        ({"term": 0}, "term"),
        ({"term": 7.5}, "term"),
        ({"seconds": None}, "seconds"),
        ({"seconds": math.nan}, "seconds"),
        ({"seconds": math.inf}, "seconds"),
        ({"seconds": -15.0}, "seconds"),
        ({"seconds": 301.0}, "seconds"),
        ({"seconds": 1e9}, "seconds"),
        ({"term": Int64(2**53)}, "term"),
        ({"expires_at": datetime(2130, 1, 1, tzinfo=UTC)}, "expires_at"),
        ({"expires_at": "tomorrow"}, "expires_at"),
        ({"expires_at": None}, "expires_at"),
    ],
)
async def test_a_lease_that_makes_no_sense_is_told_by_its_field_and_can_be_taken(
    leases: World, edited: Document, field: str
) -> None:
    await leases.write(HEALTHY | edited | {"note": "do not touch"})
    lease = leases.of("b")
    seen = await lease.look()
    assert seen.problem is not None
    assert seen.problem.startswith(field)
    assert await lease.take(seen, term=8)
    seen = await lease.look()
    assert (seen.holder, seen.term, seen.problem) == ("b", 8, None)


@pytest.mark.parametrize("missing", ["holder", "term", "seconds", "expires_at"])
async def test_a_lease_that_lacks_a_field_is_told_by_it(leases: World, missing: str) -> None:
    await leases.write({name: value for name, value in HEALTHY.items() if name != missing})
    assert str((await leases.of("b").look()).problem).startswith(missing)


async def test_renewing_heals_what_was_edited_as_long_as_holder_and_term_are_left(leases: World) -> None:
    holder = leases.of("a")
    await leases.write(HEALTHY | {"seconds": "?", "expires_at": None})
    assert await holder.renew(term=7)
    assert (await holder.look()).problem is None


async def test_the_document_holds_exact_types_and_no_instant_of_the_client(database: Database, mongo: Client) -> None:
    await create_collections(database)
    lease = LeaseStore(database=database, identity="a", seconds=15)
    before = mongo.admin.command("hello")["localTime"]
    await lease.take(await lease.look(), term=1)
    after = mongo.admin.command("hello")["localTime"]
    document = mongo[database.name][LEASE].find_one()
    assert document is not None
    assert list(document) == ["_id", "holder", "term", "acquired_at", "seconds", "renewed_at", "expires_at", "sessions"]
    assert (document["_id"], document["holder"]) == (LEADER, "a")
    assert isinstance(document["term"], Int64)
    assert isinstance(document["seconds"], float)
    assert before <= document["acquired_at"] == document["renewed_at"] <= after
    assert document["expires_at"] - document["renewed_at"] == timedelta(seconds=15)


async def test_a_date_beyond_the_calendar_is_a_problem_and_no_error(database: Database, mongo: Client) -> None:
    mongo[database.name][LEASE].insert_one(HEALTHY | {"expires_at": DatetimeMS(2**60)})
    lease = LeaseStore(database=database, identity="b", seconds=15)
    seen = await lease.look()
    assert seen.problem == "expires_at is no date"
    assert await lease.take(seen, term=8)


async def test_a_name_that_is_not_utf_8_is_somebody_s_name(database: Database, mongo: Client) -> None:
    body = bson.encode(HEALTHY | {"holder": "XY"}).replace(b"XY", b"\xff\xfe")
    mongo[database.name][LEASE].insert_one(RawBSONDocument(body))
    lease = LeaseStore(database=database, identity="b", seconds=15)
    seen = await lease.look()
    assert (seen.problem, seen.term) == (None, 7)
    assert (await lease.look()).document == seen.document
    assert await lease.take(seen, term=8)


async def test_an_answer_that_takes_a_third_of_the_lease_is_none(database: Database, mongo: Client) -> None:
    mongo[database.name][LEASE].insert_one(HEALTHY)
    lease = LeaseStore(database=database, identity="a", seconds=1.5)
    loop = asyncio.get_running_loop()

    async def took() -> float:
        with fail_point(mongo, "findAndModify", blockConnection=True, blockTimeMS=2000):
            asked_at = loop.time()
            with pytest.raises(StoreUnavailableError):
                await lease.renew(term=7)
            seconds = loop.time() - asked_at
        assert seconds > 0.4
        return seconds

    await soonest_of(took, within_seconds=1.5, what="an answer to be given up")


class WriteConcerns(CommandListener):
    """Collects what the lease's writes ask of the server."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def started(self, event: CommandStartedEvent) -> None:
        if event.command_name == "findAndModify":
            self.asked.append(event.command.get("writeConcern"))

    def succeeded(self, event: CommandSucceededEvent) -> None:
        pass

    def failed(self, event: CommandFailedEvent) -> None:
        pass


async def test_the_primary_and_a_majority_are_asked_whatever_the_address_says(
    mongo_uri: str, database_name: str
) -> None:
    listener = WriteConcerns()
    uri = f"{mongo_uri}&w=1&readPreference=secondary"
    database = connect(uri=uri, name=database_name, server_selection_seconds=1, listeners=[listener])
    lease = LeaseStore(database=database, identity="a", seconds=15)
    assert await lease.take(await lease.look(), term=1)
    assert await lease.renew(term=1)
    assert await lease.release(term=1)
    assert listener.asked == [{"w": "majority"}] * 3
    database.close()


async def test_what_no_majority_has_confirmed_is_not_held(database: Database, mongo: Client) -> None:
    lease = LeaseStore(database=database, identity="a", seconds=15)
    unconfirmed = {"code": 64, "errmsg": "waiting for replication timed out"}
    with fail_point(mongo, "findAndModify", writeConcernError=unconfirmed), pytest.raises(StoreUnavailableError):
        await lease.take(await lease.look(), term=1)


async def test_a_take_that_fails_on_its_way_is_repeated_and_done_once(database: Database, mongo: Client) -> None:
    lease = LeaseStore(database=database, identity="a", seconds=15)
    with fail_point(mongo, "findAndModify", errorCode=6, errorLabels=["RetryableWriteError"]):
        assert await lease.take(await lease.look(), term=1)
    assert (await lease.look()).term == 1


def test_no_daemon_may_be_told_to_hold_a_lease_that_others_would_not_believe() -> None:
    with pytest.raises(ValidationError):
        LeaseSettings(seconds=LONGEST_SECONDS + 1)
    assert LeaseSettings(seconds=LONGEST_SECONDS).seconds == LONGEST_SECONDS


@pytest.mark.parametrize("sessions", [None, "x", [1, None, {}], [Binary(b"short")], [Binary(b"x" * 16, 4)] * 1000])
async def test_what_stands_for_sessions_makes_no_lease_unreadable(
    database: Database, mongo: Client, sessions: Any
) -> None:
    mongo[database.name][LEASE].insert_one(HEALTHY | {"sessions": sessions})
    seen = await LeaseStore(database=database, identity="b", seconds=15).look()
    assert (seen.problem, seen.holder) == (None, "a")
    assert len(seen.sessions) <= 100
    await LeaseStore(database=database, identity="b", seconds=15).end_sessions(seen)


class Holder:
    """A process with the lease and a database of its own, which has an update under way and does not go on."""

    def __init__(self, uri: str, name: str) -> None:
        self.database = connect(uri=uri, name=name)
        self.lease = LeaseStore(database=self.database, identity="frozen", seconds=15)
        self.wrote = asyncio.Event()
        self.thaws = asyncio.Event()
        self.tries = 0

    async def settle(self) -> None:
        async def body(session: Session) -> None:
            self.tries += 1
            await self.database.collection("capacity-pools").update_one(
                {"_id": 1}, {"$inc": {"x": 1}}, upsert=True, session=session
            )
            self.wrote.set()
            await self.thaws.wait()
            if self.tries > 1:
                raise StoreConflictError("its work is begun anew, and is no longer its to do")

        await self.database.transact(body, doing="writing")


async def test_a_successor_ends_the_transactions_of_a_holder_that_froze_and_they_can_not_be_committed(
    mongo_uri: str, database_name: str, mongo: Client
) -> None:
    holder = Holder(mongo_uri, database_name)
    successor = connect(uri=mongo_uri, name=database_name)
    pools = mongo[database_name]["capacity-pools"]
    pools.insert_one({"_id": 1, "x": 0})
    assert await holder.lease.take(await holder.lease.look(), term=1)
    settling = asyncio.create_task(holder.settle())
    await holder.wrote.wait()
    with pytest.raises(PyMongoError), pymongo.timeout(0.3):  # what it has written is locked
        await successor.collection("capacity-pools").update_one({"_id": 1}, {"$set": {"x": 10}})

    lease = LeaseStore(database=successor, identity="b", seconds=15)
    started_at = asyncio.get_running_loop().time()
    await lease.end_sessions(await lease.look())
    await successor.collection("capacity-pools").update_one({"_id": 1}, {"$set": {"x": 10}})
    assert asyncio.get_running_loop().time() - started_at < 10, "the server ended it after a minute"

    holder.thaws.set()
    with pytest.raises(StoreConflictError):
        await settling
    assert holder.tries == 2
    assert pools.find_one({"_id": 1}) == {"_id": 1, "x": 10}
    for database in (holder.database, successor):
        database.close()


async def test_all_transactions_run_in_the_sessions_that_the_lease_names(database: Database) -> None:
    lease = LeaseStore(database=database, identity="a", seconds=15)
    assert await lease.take(await lease.look(), term=1)
    named = (await lease.look()).sessions
    used = set()

    async def body(session: Session) -> None:
        used.add(session.delegate.session_id["id"])  # motor's own types take it for a method
        await database.collection("capacity-pools").find_one({}, session=session)

    await asyncio.gather(*(database.transact(body, doing="writing") for _ in range(3 * SESSIONS + SEARCHES)))
    assert used <= set(named)
    assert len(named) == SESSIONS + SEARCHES


async def test_nobody_ends_sessions_of_its_own(database: Database) -> None:
    lease = LeaseStore(database=database, identity="a", seconds=15)
    assert await lease.take(await lease.look(), term=1)
    seen = await lease.look()

    async def body(session: Session) -> None:
        await database.collection("capacity-pools").insert_one({"_id": 5}, session=session)
        await lease.end_sessions(seen)

    await database.transact(body, doing="writing")
    assert await database.collection("capacity-pools").find_one({"_id": 5}) == {"_id": 5}


async def test_a_session_whose_transaction_was_cancelled_is_not_used_again(database: Database) -> None:
    before = set(await database.session_ids())

    begun = asyncio.Event()

    async def body(session: Session) -> None:
        await database.collection("capacity-pools").insert_one({"_id": 6}, session=session)
        begun.set()
        await asyncio.Event().wait()

    transaction = asyncio.create_task(database.transact(body, doing="writing"))
    await begun.wait()
    transaction.cancel()
    with pytest.raises(asyncio.CancelledError):
        await transaction
    assert len(set(await database.session_ids()) & before) == SESSIONS + SEARCHES - 1
