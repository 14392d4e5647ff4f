"""How a daemon starts, meets a database that comes and goes, shares it with another, and stops."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from arithmetic_model import Document, Rates
from daemon_process import DaemonProcess, running_daemon
from deadline import soonest, wait_until
from explorer import CONTAINER, FREE, PLENTY, VOLUME, YEAR_SECONDS, Explorer
from fail_point import fail_point, times_entered
from ledger import DELETE, Ledger
from pymongo import MongoClient

from pool_daemon.embedded import EmbeddedMongod
from pool_daemon.errors import ExitCode

QUICK = {"DATABASE__SERVER_SELECTION_SECONDS": "1"}
"""Settings with which a daemon notices within a second that MongoDB is away."""

START_SECONDS = 30
STOP_SECONDS = 3
RETURN_SECONDS = 30


@pytest.fixture
def ledger(mongo: MongoClient[Document], explorer: Explorer) -> Iterator[Ledger]:
    """Judge at the end of each test what was committed in it."""
    ledger = Ledger(client=mongo, explorer=explorer)
    yield ledger
    assert ledger.violations_of_i1() == []
    assert ledger.violations_of_i2() == []


def test_what_fell_due_while_no_daemon_ran_goes_at_its_start(
    explorer: Explorer, ledger: Ledger, mongo_uri: str
) -> None:
    expired = [explorer.buy_expired(CONTAINER, VOLUME, *FREE) for _ in range(10)]
    lasting = explorer.buy(Rates(cu=PLENTY), [CONTAINER])

    with running_daemon(uri=mongo_uri, database_name=explorer.database.name):
        for pool in expired:
            ledger.wait_for_decommissions(pool.workload_ids[:2], within_seconds=START_SECONDS)

    assert explorer.next_actions(lasting.workload_ids) == [3]


def test_a_daemon_on_an_empty_database_waits_and_stops_in_order(
    explorer: Explorer, ledger: Ledger, mongo_uri: str
) -> None:
    """Its indexes are there before anything is: while they are built, a transaction is refused its lock for moments."""
    with running_daemon(uri=mongo_uri, database_name=explorer.database.name) as daemon:
        own = {explorer.pools: 3, explorer.workloads: 3, explorer.events: 3}
        wait_until(
            lambda: all(len(collection.index_information()) == count for collection, count in own.items()),
            within_seconds=START_SECONDS,
            what="the indexes",
        )
        pool = explorer.buy_expired(CONTAINER)
        ledger.wait_for_decommissions(pool.workload_ids, within_seconds=START_SECONDS)

    assert [each["event"] for each in daemon.complaints()] == ["database_without_pools"]


def test_an_idle_daemon_stops_at_once(explorer: Explorer, ledger: Ledger, mongo_uri: str) -> None:
    def took() -> float:
        with running_daemon(uri=mongo_uri, database_name=explorer.database.name) as daemon:
            ledger.settle()
            asked_at = time.monotonic()
            daemon.stop()
            return time.monotonic() - asked_at

    soonest(took, within_seconds=STOP_SECONDS, what="an idle daemon to stop")


def test_a_daemon_whose_index_waits_for_a_lock_stops_at_once(
    explorer: Explorer, mongo_uri: str, mongo: MongoClient[Document]
) -> None:
    """The answer to the build comes when the other transaction ends, which may be in a minute."""
    explorer.buy(Rates(cu=PLENTY), [CONTAINER])
    builds: list[Document] = [{"$currentOp": {}}, {"$match": {"command.createIndexes": "capacity-pools"}}]

    def took() -> float:
        explorer.pools.drop_indexes()
        with mongo.start_session() as session, session.start_transaction():
            explorer.pools.update_many({}, {"$set": {"x_note": 1}}, session=session)
            with running_daemon(uri=mongo_uri, database_name=explorer.database.name) as daemon:
                wait_until(
                    lambda: list(mongo.admin.aggregate(builds)), within_seconds=START_SECONDS, what="a build that waits"
                )
                asked_at = time.monotonic()
                daemon.stop()
                seconds = time.monotonic() - asked_at
            session.abort_transaction()
        return seconds

    soonest(took, within_seconds=STOP_SECONDS, what="a daemon to stop whose index waits")


class LeavesAFuture(DaemonProcess):
    """A daemon that ends with a future whose error nobody has asked for, which a future logs as it goes."""

    program = (
        "-c",
        """
import asyncio, sys
from pool_daemon import cli

future = asyncio.new_event_loop().create_future()
future.set_exception(RuntimeError)
sys.argv.insert(1, "run")
cli.main()
""",
    )


def test_a_daemon_that_has_stopped_ends_whatever_there_would_be_to_log_at_the_end() -> None:
    with LeavesAFuture(uri="none", database_name="none") as daemon:
        daemon.wait_for_exit(code=ExitCode.CONFIGURATION)


SIGNALLED_WHILE_IMPORTED = """
import os, signal, sys
from pool_daemon import commands, cli

class Command(commands.Command):
    def load(self):
        os.kill(os.getpid(), signal.SIGNAL)
        return super().load()

commands.COMMANDS["run"] = Command(*commands.COMMANDS["run"])
sys.argv.insert(1, "run")
cli.main()
"""


class StoppedWhileImported(DaemonProcess):
    """A daemon that is asked to stop while its modules are being imported."""

    program = ("-c", SIGNALLED_WHILE_IMPORTED.replace("SIGNAL)", "SIGTERM)"))


class ReloadedWhileImported(DaemonProcess):
    """A daemon that is asked to reload while its modules are being imported."""

    program = ("-c", SIGNALLED_WHILE_IMPORTED.replace("SIGNAL)", "SIGHUP)"))


def test_a_daemon_that_is_told_to_stop_while_it_starts_stops_in_order(explorer: Explorer, mongo_uri: str) -> None:
    with StoppedWhileImported(uri=mongo_uri, database_name=explorer.database.name) as daemon:
        daemon.wait_for_exit()
        assert daemon.complaints() == []
    assert daemon.said("stopped")


def test_a_daemon_that_is_told_to_reload_while_it_starts_reloads_and_goes_on(
    explorer: Explorer, mongo_uri: str
) -> None:
    with ReloadedWhileImported(uri=mongo_uri, database_name=explorer.database.name) as daemon:
        daemon.wait_for_log(
            lambda record: record["event"] == "settings_reloaded", within_seconds=START_SECONDS, what="the reload"
        )
        daemon.stop()
    assert daemon.said("stopped")


def test_a_single_pass_that_is_told_to_reload_while_it_starts_is_made(explorer: Explorer, mongo_uri: str) -> None:
    explorer.buy_expired(CONTAINER)
    with ReloadedWhileImported("--once", uri=mongo_uri, database_name=explorer.database.name) as daemon:
        daemon.wait_for_exit()
    assert daemon.said("pass_completed")


@pytest.mark.parametrize("uri", ["mongodb://127.0.0.1:9/", "mongodb+srv://db.invalid/"])
def test_a_daemon_that_waits_for_its_database_stops_at_once(uri: str) -> None:
    def took() -> float:
        with running_daemon(uri=uri, database_name="explorer", **QUICK) as daemon:
            wait_until(daemon.complaints, within_seconds=RETURN_SECONDS, what="a complaint that MongoDB is away")
            asked_at = time.monotonic()
            daemon.stop()
            return time.monotonic() - asked_at

    soonest(took, within_seconds=STOP_SECONDS, what="a daemon that waits to stop")


def test_the_indexes_of_others_outlive_the_daemon(explorer: Explorer, ledger: Ledger, mongo_uri: str) -> None:
    for collection, field in [(explorer.workloads, "node_id"), (explorer.workloads, "next_action")]:
        collection.create_index(field)
    explorer.pools.create_index("empty_at")
    explorer.pools.create_index([("customer_tid", 1)], name="named_by_another")
    collections = (explorer.workloads, explorer.pools)
    before = [collection.index_information() for collection in collections]

    with running_daemon(uri=mongo_uri, database_name=explorer.database.name):
        ledger.settle()

    for collection, indexes in zip(collections, before, strict=True):
        assert indexes.items() <= collection.index_information().items()


def test_one_pass_deals_with_what_is_due_and_ends(explorer: Explorer, ledger: Ledger, mongo_uri: str) -> None:
    expired = explorer.buy_expired(CONTAINER)
    lasting = explorer.buy(Rates(cu=YEAR_SECONDS), [CONTAINER])

    with DaemonProcess("--once", uri=mongo_uri, database_name=explorer.database.name) as daemon:
        daemon.wait_for_exit()

    ledger.wait_for_decommissions(expired.workload_ids, within_seconds=0)
    assert explorer.next_actions(lasting.workload_ids) == [3]


def test_a_second_signal_cuts_an_orderly_stop_short_and_says_so(
    explorer: Explorer, mongo: MongoClient[Document], mongo_uri: str
) -> None:
    explorer.buy_expired(CONTAINER)
    settings = {"DATABASE__TIMEOUT_SECONDS": "20"}
    with (
        fail_point(mongo, "commitTransaction", blockConnection=True, blockTimeMS=15_000),
        DaemonProcess(uri=mongo_uri, database_name=explorer.database.name, **settings) as daemon,
    ):
        entered = times_entered(mongo)
        wait_until(lambda: times_entered(mongo) > entered, within_seconds=30, what="a commit that takes its time")
        daemon.process.terminate()
        daemon.wait_for_log(lambda record: record["event"] == "stopping", within_seconds=5, what="the stop")
        daemon.process.terminate()
        daemon.wait_for_exit(code=ExitCode.FORCED)
    [forced] = daemon.said("stop_forced")
    assert (forced["level"], forced["exit_code"]) == ("critical", ExitCode.FORCED)


def test_two_daemons_at_once_do_nothing_twice(explorer: Explorer, ledger: Ledger, mongo_uri: str) -> None:
    pools = [explorer.buy_expired(CONTAINER, VOLUME) for _ in range(20)]
    name = explorer.database.name

    with (
        running_daemon(uri=mongo_uri, database_name=name),
        running_daemon(uri=mongo_uri, database_name=name),
    ):
        for pool in pools:
            ledger.wait_for_decommissions(pool.workload_ids, within_seconds=START_SECONDS)
        together = [explorer.buy(Rates(cu=2.5, su=2.5), [CONTAINER, VOLUME]) for _ in range(20)]
        for pool in together:
            ledger.wait_for_decommissions(pool.workload_ids, within_seconds=START_SECONDS)

    workloads = [workload_id for pool in pools + together for workload_id in pool.workload_ids]
    assert sorted(each.workload_id for each in ledger.read().decommissions) == workloads
    assert explorer.events.count_documents({"kind": "decommissioned"}) == len(workloads)


async def test_a_daemon_that_starts_before_its_database_waits_for_it(tmp_path: Path) -> None:
    async with EmbeddedMongod(folder=tmp_path) as server:
        uri = server.uri
        with outside_writer(uri) as explorer:
            pool = explorer.buy_expired(CONTAINER)
    port = int(uri.split("127.0.0.1:")[1].split("/")[0])

    with running_daemon(uri=uri, database_name=explorer.database.name, **QUICK) as daemon:
        wait_until(daemon.complaints, within_seconds=START_SECONDS, what="a complaint that MongoDB is away")
        async with EmbeddedMongod(folder=tmp_path, port=port):
            with outside_writer(uri) as writer:
                wait_for_orders(writer, pool.workload_ids, within_seconds=RETURN_SECONDS)
            daemon.stop()


async def test_a_daemon_outlives_a_restart_of_its_database(tmp_path: Path) -> None:
    async with EmbeddedMongod(folder=tmp_path) as server:
        uri, name = server.uri, "explorer"
        with (
            running_daemon(uri=uri, database_name=name, **QUICK) as daemon,
            outside_writer(uri) as explorer,
        ):
            before = explorer.buy_expired(CONTAINER)
            wait_for_orders(explorer, before.workload_ids, within_seconds=START_SECONDS)

            await server.stop()
            wait_until(daemon.complaints, within_seconds=START_SECONDS, what="a complaint about the loss")
            await server.start()

            after = explorer.buy_expired(CONTAINER)
            wait_for_orders(explorer, after.workload_ids, within_seconds=RETURN_SECONDS)
            on_time = explorer.buy(Rates(cu=2.5), [CONTAINER])
            wait_for_orders(explorer, on_time.workload_ids, within_seconds=RETURN_SECONDS)
            daemon.stop()


@contextmanager
def outside_writer(uri: str) -> Iterator[Explorer]:
    """Write to a server of the test's own."""
    client: MongoClient[Document] = MongoClient(uri, tz_aware=True)
    with client:
        yield Explorer(database=client["explorer"])


def wait_for_orders(explorer: Explorer, workload_ids: list[int], *, within_seconds: float) -> None:
    """Wait for the orders of these workloads; each must be a copy and recorded once, with no others."""
    wait_until(
        lambda: explorer.orders.count_documents({"_id": {"$in": workload_ids}}) == len(workload_ids),
        within_seconds=within_seconds,
        what=f"orders for {workload_ids}",
    )
    for workload_id in workload_ids:
        wait_until(
            partial(explorer.events.count_documents, {"workload_id": workload_id}),
            within_seconds=10,
            what=f"an event of {workload_id}",
        )
        assert explorer.next_action(workload_id) == DELETE
        order = explorer.bytes_of(explorer.orders, workload_id)
        assert order == explorer.bytes_of(explorer.workloads, workload_id)
        assert explorer.events.count_documents({"workload_id": workload_id}) == 1
    running = explorer.workloads.distinct("_id", {"next_action": 3})
    assert explorer.orders.count_documents({"_id": {"$in": running}}) == 0
