"""Very much at once: pools that fell due while no daemon ran, daemons killed while they deal with it, and poison."""

import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from arithmetic_model import Document, Rates, is_readable
from daemon_process import DaemonProcess
from deadline import wait_for_instant, wait_until
from explorer import CONTAINER, YEAR_SECONDS, Explorer, Kind, Purchase
from faults.daemons import RESTARTED, STORM, daemon_on
from faults.figures import Figures
from faults.proxy import Command, Fate, Proxy
from faults.transactions import open_transactions, transactions_expiring
from ledger import Ledger
from pymongo import MongoClient

HOUR_SECONDS = 3600

KILLS = 50
PER_LIFE = 3_000
"""Pools that fall due in each of a daemon's lives: more than it can deal with before it is killed."""

IN_SMALL_STEPS = {"EXPIRY__BATCH_WORKLOADS": "20"}
"""Small transactions: the more of them, the more moments there are to be killed between."""

LONGEST_LIFE_SECONDS = 0.6
"""From its first word on; it takes about a third of that to begin with the first batch."""

RELIEF_SECONDS = 150
"""The server gives up a dead client's transaction after 60 s, at the latest 30 s later, and until then keeps its
pools from every other writer."""

UNKNOWN = Kind(99, {}, Rates())
REFUSED_NODE = "refused"
GOOD = 1_000
POISON_OF_A_KIND = 3
WAVE_SECONDS = 3
SLOWEST_RETRY_SECONDS = 30
MOST_ADDED_SECONDS = 20
"""No more than a guard against good pools that wait for the poison's retries; what was measured is in the table."""


@pytest.mark.parametrize(
    "pools", [100, *(pytest.param(pools, marks=pytest.mark.faults) for pools in (1, 1_000, 20_000))]
)
def test_1_what_is_overdue_at_the_start_goes_and_the_timer_is_armed(
    pools: int, explorer: Explorer, ledger: Ledger, mongo_uri: str, figures: Figures
) -> None:
    buy_expired(explorer, pools)
    explorer.buy(Rates(cu=YEAR_SECONDS), [CONTAINER])
    began_at = time.time()
    with daemon_on(mongo_uri, explorer, **STORM, LOG__LEVEL="debug") as daemon:
        wait_until(lambda: armed_after_a_pass(daemon), within_seconds=90, what="an armed timer")
        armed_after = time.time() - began_at
        assert explorer.running() == 1
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
@pytest.mark.faults
def test_5_a_daemon_killed_in_a_storm_again_and_again_leaves_nothing_half_done(
    explorer: Explorer,
    ledger: Ledger,
    mongo: MongoClient[Document],
    mongo_uri: str,
    chance: random.Random,
    trials_of: Callable[[int], int],
    figures: Figures,
) -> None:
    kills = trials_of(KILLS)
    settings = STORM | RESTARTED | IN_SMALL_STEPS
    cut_off: set[bytes] = set()
    with transactions_expiring(mongo, after_seconds=2):
        let_indexes_be_made(mongo_uri, explorer, ledger)
        for _ in range(kills):
            buy_expired(explorer, PER_LIFE - explorer.running())
            with DaemonProcess(uri=mongo_uri, database_name=explorer.database.name, **settings) as daemon:
                daemon.wait_for_first_word(within_seconds=10)
                wait_for_instant(time.time() + chance.uniform(0, LONGEST_LIFE_SECONDS))
            cut_off |= open_transactions(mongo)
            assert explorer.running() > 0, "the storm was over before the daemon was killed"
        last_kill_at = time.time()
        with daemon_on(mongo_uri, explorer, **settings):
            wait_until(lambda: explorer.running() == 0, within_seconds=RELIEF_SECONDS, what="the storm to be over")
    decommissions = ledger.read().decommissions
    violations = ledger.violations()
    figures.record(
        5,
        "kill -9 in a storm",
        trials=kills,
        violations=violations,
        figure=f"{len(decommissions):,} pools, {len(cut_off)} transactions cut off; all was done "
        f"{decommissions[-1].committed_at - last_kill_at:.0f} s after the last kill",
    )
    assert violations == []


@pytest.mark.timeout(300)
@pytest.mark.faults
def test_5_a_transaction_that_a_killed_daemon_left_open_ends(
    explorer: Explorer, ledger: Ledger, mongo_uri: str, network: Proxy, figures: Figures
) -> None:
    """The server keeps the pools from everybody, a customer's top-up too, until somebody ends it."""
    let_indexes_be_made(mongo_uri, explorer, ledger)
    topped_up, *others = drafts(explorer, 10)
    cut_off = threading.Event()

    def judge(command: Command) -> Fate:
        if command.name != "commitTransaction" or time.time() < topped_up.empty_at:
            return Fate.PASS
        cut_off.set()
        return Fate.SWALLOW_REQUEST

    network.judge_commands(judge)
    with DaemonProcess(uri=network.uri, database_name=explorer.database.name, **RESTARTED):
        explorer.create([topped_up, *others])
        wait_until(cut_off.is_set, within_seconds=WAVE_SECONDS + 10, what="a transaction to be open")
    killed_at = time.time()
    with daemon_on(mongo_uri, explorer, **RESTARTED):
        explorer.top_up(topped_up.pool_id, Rates(cu=YEAR_SECONDS))
        waited_seconds = time.time() - killed_at
        workload_ids = [workload_id for pool in others for workload_id in pool.workload_ids]
        explorer.wait_until_gone(workload_ids, within_seconds=RELIEF_SECONDS)
    relief_seconds = ledger.read().decommissions[-1].committed_at - killed_at
    violations = ledger.violations()
    figures.record(
        5,
        "kill -9 in a transaction",
        trials=1,
        violations=violations,
        figure=f"a top-up waited {waited_seconds:.0f} s for it; the pools went {relief_seconds:.0f} s after the kill",
    )
    assert violations == []


@pytest.mark.timeout(300)
@pytest.mark.faults
def test_7_poison_delays_nobody_else(explorer: Explorer, ledger: Ledger, mongo_uri: str, figures: Figures) -> None:
    database = explorer.database
    database.create_collection("workqueue", validator={"node_id": {"$ne": REFUSED_NODE}})
    with daemon_on(mongo_uri, explorer, **STORM):
        before = lateness_of(drafts(explorer, GOOD), [], explorer, ledger)
        wave = drafts(explorer, GOOD)
        poison = [pool for _ in range(POISON_OF_A_KIND) for pool in poisonous(explorer)]
        among_poison = lateness_of(wave, poison, explorer, ledger)
        bad = [workload["_id"] for pool in poison for workload in pool.workloads if stays(workload, pool)]
        ledger.assert_untouched(bad)
        database.command("collMod", "workqueue", validator={})
        cured = [each["_id"] for pool in poison for each in pool.workloads if each["node_id"] == REFUSED_NODE]
        ledger.wait_for_decommissions(cured, within_seconds=SLOWEST_RETRY_SECONDS)
    violations = ledger.violations()
    figures.record(
        7,
        f"{len(poison)} poisonous pools among good ones",
        trials=GOOD,
        violations=violations,
        figure=f"good ones late by at most {max(before):.2f} s without, {max(among_poison):.2f} s with them; "
        f"median {statistics.median(before):.2f} s and {statistics.median(among_poison):.2f} s",
    )
    assert violations == []
    assert max(among_poison) < max(before) + MOST_ADDED_SECONDS


def armed_after_a_pass(daemon: DaemonProcess) -> bool:
    """Tell whether the timer was armed when something had been settled, not by a daemon that only stands by."""
    events = [record["event"] for record in list(daemon.records)]
    return "pass_completed" in events and "armed" in events[events.index("pass_completed") :]


def drafts(explorer: Explorer, count: int, kinds: Sequence[Kind] = (CONTAINER,), **fields: Any) -> list[Purchase]:
    """Draft pools that run empty in a few seconds."""
    amounts, bought_at = Rates(cu=WAVE_SECONDS + 0.5), int(time.time())
    return [explorer.draft(amounts, kinds, bought_at=bought_at, **fields) for _ in range(count)]


def poisonous(explorer: Explorer) -> Iterator[Purchase]:
    """Draft pools of which each is wrong in its own way.

    Two cannot be read, a workload of the third cannot be computed, and the order of the fourth the server refuses.
    """
    yield from drafts(explorer, 1, cus="plenty")
    yield from drafts(explorer, 1, cus=float("nan"))
    yield from drafts(explorer, 1, [CONTAINER, UNKNOWN])
    (refused,) = drafts(explorer, 1)
    refused.workloads[0]["node_id"] = REFUSED_NODE
    yield refused


def stays(workload: Document, pool: Purchase) -> bool:
    """Tell whether a workload of a poisonous pool has to stay, for as long as nobody cures it."""
    is_unreadable = not is_readable(pool.document)
    return is_unreadable or workload["workload_type"] == UNKNOWN.workload_type or workload["node_id"] == REFUSED_NODE


def lateness_of(
    wave: Sequence[Purchase], poison: Sequence[Purchase], explorer: Explorer, ledger: Ledger
) -> list[float]:
    """Let good pools run empty, amid poison, and return by how many seconds each was late."""
    mixed = [*wave, *poison]
    random.shuffle(mixed)
    explorer.create(mixed)
    good = {workload_id for pool in wave for workload_id in pool.workload_ids}
    explorer.wait_until_gone(good, within_seconds=WAVE_SECONDS + MOST_ADDED_SECONDS)
    decommissions = ledger.read().decommissions
    return [gone.committed_at - gone.pool["empty_at"] for gone in decommissions if gone.workload_id in good]


def let_indexes_be_made(uri: str, explorer: Explorer, ledger: Ledger) -> None:
    """Leave the very first start of a daemon on this database behind."""
    with daemon_on(uri, explorer, **RESTARTED):
        ledger.settle()


def buy_expired(explorer: Explorer, count: int) -> None:
    """Create pools that ran out an hour ago."""
    if count > 0:
        bought_at = int(time.time()) - HOUR_SECONDS
        explorer.create([explorer.draft(Rates(cu=0.5), [CONTAINER], bought_at=bought_at) for _ in range(count)])
