"""A MongoDB that is no replica set: no change stream, no transaction, no log of commits to judge by."""

import random
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from arithmetic_model import Document, Rates
from daemon_process import DaemonProcess
from deadline import wait_for_instant, wait_until
from explorer import CONTAINER, FREE, YEAR_SECONDS, Explorer
from fail_point import fail_point
from faults import books
from faults.daemons import RESTARTED, STORM, daemon_on
from faults.figures import Figures
from faults.pools import ids_of, overdue
from pymongo import MongoClient

from pool_daemon.embedded import EmbeddedMongod

DONE_SECONDS = 30
POLL_SECONDS = 2
"""How often the daemon looks at the pools by default: a pool that it never heard of may be as late as that."""

QUICK_TO_MEND = {"RECONCILE__INTERVAL_SECONDS": "0.5", "RECONCILE__ORDER_GRACE_SECONDS": "1"}
LONGEST_LIFE_SECONDS = 0.8

BAD_VALUE = 2
"""An error of the server's that no repetition makes good."""


@pytest_asyncio.fixture
async def standalone(tmp_path: Path) -> AsyncIterator[EmbeddedMongod]:
    """Run a mongod that stands alone."""
    options = ("--setParameter", "enableTestCommands=1")
    async with EmbeddedMongod(folder=tmp_path, replica_set=None, options=options) as server:
        yield server


@pytest.mark.faults
def test_18_a_standalone_server_is_served_by_looking_again_and_again(
    standalone: EmbeddedMongod, figures: Figures
) -> None:
    count = 200
    with MongoClient[Document](standalone.uri, tz_aware=True) as mongo:
        explorer = Explorer(database=mongo["explorer"])
        storm = overdue(explorer, count)
        with daemon_on(standalone.uri, explorer, **STORM) as daemon:
            explorer.wait_until_gone(ids_of(storm), within_seconds=DONE_SECONDS)
            on_time = [explorer.draft(Rates(cu=5.5 + number % 5), [CONTAINER, *FREE]) for number in range(count)]
            topped_up = [explorer.draft(Rates(cu=5.5 + number % 5), [CONTAINER]) for number in range(20)]
            explorer.create([*on_time, *topped_up])
            for pool in topped_up:
                explorer.top_up(pool.pool_id, Rates(cu=YEAR_SECONDS))
            explorer.wait_until_gone([pool.workload_ids[0] for pool in on_time], within_seconds=DONE_SECONDS)
        gone = ids_of(storm) + [pool.workload_ids[0] for pool in on_time]
        free = [workload_id for pool in on_time for workload_id in pool.workload_ids[1:]]
        violations = books.violations(explorer, gone=gone, kept=[*free, *ids_of(topped_up)])
        late = [
            event["decommissioned_at"].timestamp() - event["empty_at"]
            for event in explorer.events.find({"pool_id": {"$in": [pool.pool_id for pool in on_time]}})
        ]
    violations += [f"{-seconds} s too early" for seconds in late if seconds < 0]
    figures.record(
        18,
        "standalone mongod",
        trials=2 * count + len(topped_up),
        violations=violations,
        figure=f"what falls due is late by {max(late):.2f} s at most; complaints: {len(daemon.complaints())}",
    )
    assert violations == []
    assert len(daemon.complaints()) == 1


@pytest.mark.timeout(180)
@pytest.mark.faults
def test_18_what_a_killed_daemon_had_half_done_on_a_standalone_server_is_finished(
    standalone: EmbeddedMongod, figures: Figures, chance: random.Random
) -> None:
    """It writes down what it is about to do; the next undoes what no node has heard of, and records the rest."""
    kills, count = 10, 2_500
    settings = STORM | RESTARTED | QUICK_TO_MEND
    with MongoClient[Document](standalone.uri) as mongo:
        explorer = Explorer(database=mongo["explorer"])
        intents = explorer.database["pool-daemon-intents"]
        storm = overdue(explorer, count)
        half_done = 0
        for _ in range(kills):
            with DaemonProcess(uri=standalone.uri, database_name="explorer", **settings) as daemon:
                daemon.wait_for_first_word(within_seconds=DONE_SECONDS)
                wait_for_instant(time.time() + chance.uniform(0.2, LONGEST_LIFE_SECONDS))
            half_done += intents.count_documents({})
        left = explorer.running()
        with daemon_on(standalone.uri, explorer, **settings):
            explorer.wait_until_gone(ids_of(storm), within_seconds=DONE_SECONDS)
            wait_until(
                lambda: explorer.orders.count_documents({}) == count, within_seconds=DONE_SECONDS, what="every order"
            )
            wait_until(lambda: intents.find_one() is None, within_seconds=DONE_SECONDS, what="an empty log of intents")
        violations = books.violations(explorer, gone=ids_of(storm), kept=[])
    figures.record(
        18,
        "kill -9 on a standalone mongod",
        trials=kills,
        violations=violations,
        figure=f"{count - left:,} pools went in lives that ended so, {half_done} of them were left half done",
    )
    assert left > 0, "the storm was over before the daemon was killed"
    assert half_done > 0, "no kill came between two steps"
    assert violations == []


@pytest.mark.parametrize("collection", ["workload", "workqueue", "pool-daemon-events"])
def test_18_a_step_that_fails_on_a_standalone_server_is_made_up_for(
    collection: str, standalone: EmbeddedMongod, figures: Figures
) -> None:
    """Where there is no stream every look is a look at everything; the reconciler, who mends orders too, is off."""
    with MongoClient[Document](standalone.uri) as mongo:
        explorer = Explorer(database=mongo["explorer"])
        with daemon_on(standalone.uri, explorer, RECONCILE__ENABLED="false") as daemon:
            daemon.wait_for_log(
                lambda record: record["event"] == "acting", within_seconds=DONE_SECONDS, what="a leader"
            )
            with fail_point(mongo, "update", namespace=f"explorer.{collection}", errorCode=BAD_VALUE):
                (pool,) = overdue(explorer, 1)
                began_at = time.monotonic()
                wait_until(
                    lambda: books.violations(explorer, gone=pool.workload_ids, kept=[]) == [],
                    within_seconds=DONE_SECONDS,
                    what="a workload that went whole",
                )
                late_seconds = time.monotonic() - began_at
    figures.record(
        18,
        f"writing {collection} fails on a standalone mongod",
        trials=1,
        violations=[],
        figure=f"all was done {late_seconds:.1f} s after the pool was there",
    )
