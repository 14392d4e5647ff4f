"""Very much at once: pools that fell due while no daemon ran, daemons killed while they deal with it, and poison."""

import random
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from arithmetic_model import Document, Rates
from daemon_process import DaemonProcess
from deadline import wait_for_instant, wait_until
from explorer import CONTAINER, YEAR_SECONDS, Explorer, Kind, Purchase
from fail_point import APP_NAME
from faults.daemons import RESTARTED, STORM, daemon_on
from faults.figures import Figures
from ledger import DELETE, Ledger
from pymongo import MongoClient

HOUR_SECONDS = 3600

PER_LIFE = 600
"""Pools that fall due in each of a daemon's lives: more than it can deal with before it is killed."""

LONGEST_LIFE_SECONDS = 1.2
"""From its first word on; it takes about half of that to begin with the first batch."""

RELIEF_SECONDS = 150
"""The server gives up a dead client's transaction after 60 s, at the latest 30 s later, and until then keeps its
pools from every other writer."""

UNKNOWN = Kind(99, {}, Rates())
REFUSED_NODE = "refused"
POISON_OF_A_KIND = 3
WAVE_SECONDS = 4
SLOWEST_RETRY_SECONDS = 30
MOST_ADDED_SECONDS = 20
"""No more than a guard against good pools that wait for the poison's retries; what was measured is in the table."""


@pytest.mark.parametrize(
    "pools", [100, *(pytest.param(pools, marks=pytest.mark.faults) for pools in (1, 1_000, 20_000))]
)
def test_1_what_is_overdue_at_the_start_goes_and_the_alarm_is_armed(
    pools: int, explorer: Explorer, ledger: Ledger, mongo_uri: str, figures: Figures
) -> None:
    buy_expired(explorer, pools)
    explorer.buy(Rates(cu=YEAR_SECONDS), [CONTAINER])
    began_at = time.time()
    with daemon_on(mongo_uri, explorer, **STORM, LOG__LEVEL="debug") as daemon:
        daemon.wait_for_log(lambda record: record["event"] == "armed", within_seconds=90, what="an armed alarm")
        armed_after = time.time() - began_at
        wait_until(lambda: explorer.running() == 1, within_seconds=5, what="the overdue workloads to go")
    done_after = max(gone.committed_at for gone in ledger.read().decommissions) - began_at
    violations = ledger.violations()
    figures.record(
        1,
        "overdue at the start",
        trials=pools,
        violations=violations,
        figure=f"armed {armed_after:.1f} s, done {done_after:.1f} s after the launch",
    )
    assert violations == []


@pytest.mark.timeout(400)
@pytest.mark.parametrize("kills", [2, pytest.param(50, marks=pytest.mark.faults)])
def test_5_a_daemon_killed_in_a_storm_again_and_again_leaves_nothing_half_done(
    kills: int,
    explorer: Explorer,
    ledger: Ledger,
    mongo: MongoClient[Document],
    mongo_uri: str,
    chance: random.Random,
    figures: Figures,
) -> None:
    settings = STORM | RESTARTED
    cut_off: set[bytes] = set()
    with transactions_expiring(mongo, after_seconds=60 if kills > 10 else 2):
        for _ in range(kills):
            buy_expired(explorer, PER_LIFE - explorer.running())
            with DaemonProcess(uri=mongo_uri, database_name=explorer.database.name, **settings) as daemon:
                daemon.wait_for_log(bool, within_seconds=10, what="the daemon's first word")
                wait_for_instant(time.time() + chance.uniform(0, LONGEST_LIFE_SECONDS))
            cut_off |= open_transactions(mongo)
            assert explorer.running() > 0, "the storm was over before the daemon was killed"
        last_kill_at = time.time()
        with daemon_on(mongo_uri, explorer, **settings):
            wait_until(lambda: explorer.running() == 0, within_seconds=RELIEF_SECONDS, what="the storm to be over")
    violations = ledger.violations()
    pools = len(ledger.read().decommissions)
    figures.record(
        5,
        "kill -9 in a storm",
        trials=kills,
        violations=violations,
        figure=f"{pools:,} pools; transactions cut off: {len(cut_off)}; done {time.time() - last_kill_at:.0f} s after the last",
    )
    assert violations == []


@pytest.mark.timeout(300)
@pytest.mark.parametrize("good", [50, pytest.param(1_000, marks=pytest.mark.faults)])
def test_7_poison_delays_nobody_else(
    good: int, explorer: Explorer, ledger: Ledger, mongo_uri: str, figures: Figures
) -> None:
    database = explorer.database
    database.create_collection("workqueue", validator={"node_id": {"$ne": REFUSED_NODE}})
    with daemon_on(mongo_uri, explorer, **STORM):
        before = lateness_of_a_wave(explorer, ledger, good, poison=[])
        poison = [draft for _ in range(POISON_OF_A_KIND) for draft in poisonous(explorer)]
        with_poison = lateness_of_a_wave(explorer, ledger, good, poison=poison)
        assert {gone.workload_id for gone in ledger.read().decommissions}.isdisjoint(
            workload_id for purchase in poison for workload_id in purchase.workload_ids
        )
        database.command("collMod", "workqueue", validator={})
        cured = [each["_id"] for pool in poison for each in pool.workloads if each["node_id"] == REFUSED_NODE]
        ledger.wait_for_decommissions(cured, within_seconds=SLOWEST_RETRY_SECONDS)
    violations = ledger.violations()
    figures.record(
        7,
        f"{len(poison)} poisonous among {good:,}",
        trials=good,
        violations=violations,
        figure=f"latest {max(before):.2f} s without, {max(with_poison):.2f} s with them; "
        f"median {statistics.median(before):.2f} s and {statistics.median(with_poison):.2f} s",
    )
    assert violations == []
    assert max(with_poison) < max(before) + MOST_ADDED_SECONDS


def lateness_of_a_wave(explorer: Explorer, ledger: Ledger, good: int, *, poison: Sequence[Purchase]) -> list[float]:
    """Let many pools and the poison run empty in one second; return by how many seconds each good one was late."""
    bought_at = int(time.time())
    wave = [explorer.draft(Rates(cu=WAVE_SECONDS + 0.5), [CONTAINER], bought_at=bought_at) for _ in range(good)]
    mixed = [*wave, *poison]
    random.shuffle(mixed)
    explorer.create(mixed)
    workload_ids = {workload_id for purchase in wave for workload_id in purchase.workload_ids}
    ids = list(workload_ids)
    wait_until(
        lambda: set(explorer.next_actions(ids)) == {DELETE},
        within_seconds=WAVE_SECONDS + 60,
        what="the good ones to go",
    )
    return [
        gone.committed_at - gone.pool["empty_at"]
        for gone in ledger.read().decommissions
        if gone.workload_id in workload_ids
    ]


def poisonous(explorer: Explorer) -> Iterator[Purchase]:
    """Draft pools of which each is wrong in its own way: two of them cannot be read, one's workload cannot be
    computed, and one's order is refused by the server."""
    bought_at = int(time.time()) - HOUR_SECONDS
    for fields in ({"cus": "plenty"}, {"cus": float("nan")}):
        yield explorer.draft(Rates(cu=0.5), [CONTAINER], bought_at=bought_at, **fields)
    yield explorer.draft(Rates(cu=0.5), [UNKNOWN], bought_at=bought_at)
    refused = explorer.draft(Rates(cu=0.5), [CONTAINER], bought_at=bought_at)
    refused.workloads[0]["node_id"] = REFUSED_NODE
    yield refused


@contextmanager
def transactions_expiring(mongo: MongoClient[Document], *, after_seconds: int) -> Iterator[None]:
    """Let the server give up transactions that nobody goes on with after so long; 60 s is its own setting."""
    name = "transactionLifetimeLimitSeconds"
    mongo.admin.command({"setParameter": 1, name: after_seconds})
    try:
        yield
    finally:
        mongo.admin.command({"setParameter": 1, name: 60})


def open_transactions(mongo: MongoClient[Document]) -> set[bytes]:
    """List the transactions of daemons, dead ones included, that the server has not given up yet."""
    operations = mongo.admin.aggregate(
        [
            {"$currentOp": {"idleSessions": True, "allUsers": True}},
            {"$match": {"transaction": {"$exists": True}, "appName": APP_NAME}},
        ]
    )
    return {bytes(operation["lsid"]["id"]) for operation in operations}


def buy_expired(explorer: Explorer, count: int) -> None:
    """Create pools that ran out an hour ago."""
    if count > 0:
        bought_at = int(time.time()) - HOUR_SECONDS
        explorer.create([explorer.draft(Rates(cu=0.5), [CONTAINER], bought_at=bought_at) for _ in range(count)])
