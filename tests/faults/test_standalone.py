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
from explorer import CONTAINER, FREE, YEAR_SECONDS, Explorer, Purchase
from faults import books
from faults.daemons import RESTARTED, STORM, daemon_on
from faults.figures import Figures
from pymongo import MongoClient

from pool_daemon.embedded import EmbeddedMongod

DONE_SECONDS = 30
POLL_SECONDS = 2
"""How often the daemon looks at the pools by default: a pool that it never heard of may be as late as that."""

QUICK_TO_MEND = {"RECONCILE__INTERVAL_SECONDS": "0.5", "RECONCILE__ORDER_GRACE_SECONDS": "1"}
LONGEST_LIFE_SECONDS = 0.8


@pytest_asyncio.fixture
async def standalone(tmp_path: Path) -> AsyncIterator[EmbeddedMongod]:
    """Run a mongod that stands alone."""
    async with EmbeddedMongod(folder=tmp_path, replica_set=None) as server:
        yield server


@pytest.mark.faults
def test_18_a_standalone_server_is_served_by_looking_again_and_again(
    standalone: EmbeddedMongod, figures: Figures
) -> None:
    count = 200
    with MongoClient[Document](standalone.uri, tz_aware=True) as mongo:
        explorer = Explorer(database=mongo["explorer"])
        overdue = [explorer.draft(Rates(cu=0.5), [CONTAINER], bought_at=int(time.time()) - 60) for _ in range(count)]
        explorer.create(overdue)
        with daemon_on(standalone.uri, explorer, **STORM) as daemon:
            explorer.wait_until_gone(ids_of(overdue), within_seconds=DONE_SECONDS)
            on_time = [explorer.draft(Rates(cu=5.5 + number % 5), [CONTAINER, *FREE]) for number in range(count)]
            topped_up = [explorer.draft(Rates(cu=5.5 + number % 5), [CONTAINER]) for number in range(20)]
            explorer.create([*on_time, *topped_up])
            for pool in topped_up:
                explorer.top_up(pool.pool_id, Rates(cu=YEAR_SECONDS))
            explorer.wait_until_gone([pool.workload_ids[0] for pool in on_time], within_seconds=DONE_SECONDS)
        gone = ids_of(overdue) + [pool.workload_ids[0] for pool in on_time]
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


@pytest.mark.faults
def test_18_a_daemon_killed_on_a_standalone_server_leaves_nothing_half_done_for_long(
    standalone: EmbeddedMongod, figures: Figures, chance: random.Random
) -> None:
    kills = 10
    bought_at = int(time.time()) - 60
    settings = STORM | RESTARTED | QUICK_TO_MEND
    with MongoClient[Document](standalone.uri) as mongo:
        explorer = Explorer(database=mongo["explorer"])
        pools = [explorer.draft(Rates(cu=0.5), [CONTAINER, *FREE[:1]], bought_at=bought_at) for _ in range(1_500)]
        explorer.create(pools)
        for _ in range(kills):
            with DaemonProcess(uri=standalone.uri, database_name="explorer", **settings) as daemon:
                daemon.wait_for_log(bool, within_seconds=DONE_SECONDS, what="the daemon's first word")
                wait_for_instant(time.time() + chance.uniform(0.2, LONGEST_LIFE_SECONDS))
        gone = [pool.workload_ids[0] for pool in pools]
        print("left", explorer.workloads.count_documents({"_id": {"$in": gone}, "next_action":3}))
        with daemon_on(standalone.uri, explorer, **settings):
            explorer.wait_until_gone(gone, within_seconds=DONE_SECONDS * 3)
            wait_until(
                lambda: explorer.orders.count_documents({}) == len(gone),
                within_seconds=DONE_SECONDS,
                what="every order",
            )
        violations = books.violations(explorer, gone=gone, kept=[pool.workload_ids[1] for pool in pools])
    print(violations)
    figures.record(
        18,
        "kill -9 on a standalone mongod",
        trials=kills,
        violations=violations,
        figure=f"",
    )
    assert violations == []


def ids_of(pools: list[Purchase]) -> list[int]:
    return [workload_id for pool in pools for workload_id in pool.workload_ids]
