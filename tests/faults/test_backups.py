"""Yesterday's backup is restored: half the pools are due at once, and of most of them that is not true any more."""

import dataclasses
import random
import subprocess
import sys
import time
from collections.abc import Sequence

import pytest
from arithmetic_model import Document, Rates, add_capacity
from bson import Int64
from deadline import wait_for_instant, wait_until
from explorer import CONTAINER, YEAR_SECONDS, Explorer, Purchase, encoded
from faults.daemons import daemon_on
from faults.figures import Figures
from ledger import Ledger
from pymongo.collection import Collection

from pool_daemon.harness import environment

HOUR_SECONDS = 3600

BATCH = 1_000
"""Documents written at once, as MongoDB's own tool for restoring does."""

MIN_POOLS = 100
"""What `brake.min_pools` is unless the settings say otherwise."""

OWNERS = 60

DONE_SECONDS = 60

ROUNDS = 4

OTHERS = 10

LATE_SECONDS = 0.3
"""By how much pools that are being held may delay others."""

RESTLESS = {"RECONCILE__INTERVAL_SECONDS": "0.1", "RECONCILE__POOLS_PER_SECOND": "0"}
"""The reconciler meets what is restored as early as the stream tells of it."""


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("when", "half"),
    [
        ("before the start", 150),
        *(
            pytest.param(when, 1_000, marks=pytest.mark.faults)
            for when in (
                "before the start",
                "while it starts",
                "while it runs",
                "while it reconciles",
                "over what is there",
            )
        ),
    ],
)
def test_22_of_a_restored_backup_no_more_goes_than_usual_until_somebody_says_so(
    when: str,
    half: int,
    explorer: Explorer,
    ledger: Ledger,
    mongo_uri: str,
    chance: random.Random,
    figures: Figures,
) -> None:
    ran_out = [yesterdays(explorer, chance) for _ in range(half)]
    backup = [*ran_out, *(lasting(explorer) for _ in range(half))]
    chance.shuffle(backup)
    if when == "before the start":
        explorer.create(backup)
    if when == "over what is there":
        explorer.create([topped_up_since(pool) for pool in backup])
    with daemon_on(mongo_uri, explorer, **(RESTLESS if when == "while it reconciles" else {})) as daemon:
        if when != "while it starts":
            daemon.wait_for_log(lambda record: record["event"] == "expiry_active", within_seconds=30, what="it to act")
            ledger.settle(int(time.time()) + 3)
        if when in ("while it starts", "while it runs", "while it reconciles"):
            insert(explorer.workloads, [workload for pool in backup for workload in pool.workloads])
        if when == "over what is there":
            explorer.pools.drop()
        if when != "before the start":
            insert(explorer.pools, [pool.document for pool in backup])
        wait_until_decided(explorer, ran_out)
        ledger.settle(int(time.time()) + 3)
        too_early = [pool for pool in ran_out if explorer.next_actions(pool.workload_ids) != [3]]
        saved = [pool for pool in ran_out if pool not in too_early][:10]
        for pool in saved:
            explorer.top_up(pool.pool_id, Rates(cu=YEAR_SECONDS))
        released_at = time.time()
        release(mongo_uri, explorer)
        going = [workload_id for pool in ran_out if pool not in saved for workload_id in pool.workload_ids]
        explorer.wait_until_gone(going, within_seconds=DONE_SECONDS)
    done_after = ledger.read().decommissions[-1].committed_at - released_at
    violations = ledger.violations()
    figures.record(
        22,
        f"yesterday's backup {when}",
        trials=half,
        violations=violations,
        figure=f"gone before the release: {len(too_early)}; all were gone {done_after:.1f} s after it was asked for",
    )
    assert violations == []
    assert daemon.said("brake_held")
    assert len(too_early) <= MIN_POOLS


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("pools", "seconds"),
    [(300, 3), *(pytest.param(1_000, seconds, marks=pytest.mark.faults) for seconds in (0, 5, 40))],
)
def test_34_a_restore_collection_by_collection_lets_no_more_go_than_a_few_at_any_speed(
    pools: int,
    seconds: int,
    explorer: Explorer,
    ledger: Ledger,
    mongo_uri: str,
    chance: random.Random,
    figures: Figures,
) -> None:
    """Each collection is dropped and filled again, the small one first; each drop brings a full scan."""
    ran_out = [yesterdays(explorer, chance) for _ in range(pools * 2 // 5)]
    backup = [*ran_out, *(lasting(explorer) for _ in range(pools - len(ran_out)))]
    chance.shuffle(backup)
    explorer.create([topped_up_since(pool) for pool in backup])
    with daemon_on(mongo_uri, explorer, **RESTLESS) as daemon:
        daemon.wait_for_log(lambda record: record["event"] == "expiry_active", within_seconds=30, what="it to act")
        ledger.settle()
        explorer.pools.drop()
        pause_seconds = seconds / 20
        for part in range(20):
            insert(explorer.pools, [pool.document for pool in backup[part::20]])
            if part % 4 == 0:
                explorer.database["capacity-reservations"].insert_one({})
                explorer.database["capacity-reservations"].drop()
            wait_for_instant(time.time() + pause_seconds)
        explorer.workloads.drop()
        insert(explorer.workloads, [workload for pool in backup for workload in pool.workloads])
        wait_until_decided(explorer, ran_out)
        too_early = [pool for pool in ran_out if explorer.next_actions(pool.workload_ids) != [3]]
        release(mongo_uri, explorer)
        explorer.wait_until_gone([each for pool in ran_out for each in pool.workload_ids], within_seconds=DONE_SECONDS)
    spared = [pool for pool in backup[:] if pool not in ran_out and explorer.next_actions(pool.workload_ids) != [3]]
    figures.record(
        34,
        f"a backup restored collection by collection within {seconds} s",
        trials=len(ran_out),
        violations=spared,
        figure=f"gone before the release: {len(too_early)}",
    )
    assert spared == []
    assert daemon.said("brake_held")
    assert len(too_early) <= MIN_POOLS


@pytest.mark.timeout(180)
@pytest.mark.parametrize("pools", [150, pytest.param(1_000, marks=pytest.mark.faults)])
def test_35_a_bulk_edit_that_brings_many_ends_forward_is_held(
    pools: int, explorer: Explorer, ledger: Ledger, mongo_uri: str, figures: Figures
) -> None:
    edited = [lasting(explorer, owner=1_000 + number) for number in range(pools)]
    explorer.create(edited)
    with daemon_on(mongo_uri, explorer) as daemon:
        ledger.settle()
        end = int(time.time()) + 8
        explorer.pools.update_many(
            {"_id": {"$in": [pool.pool_id for pool in edited]}},
            {"$set": {"cus": 0.0, "last_updated": Int64(end), "empty_at": Int64(end)}},
        )
        ledger.settle(end + 2)
        wait_until_decided(explorer, edited)
        running = explorer.running()
    figures.record(35, "ends brought forward by hand", trials=pools, violations=pools - running, figure="all held")
    assert running == pools
    assert daemon.said("brake_held")


@pytest.mark.timeout(180)
@pytest.mark.parametrize("pools", [150, pytest.param(1_500, marks=pytest.mark.faults)])
def test_36_one_owner_with_many_tiny_pools_has_nothing_held(
    pools: int, explorer: Explorer, ledger: Ledger, mongo_uri: str, figures: Figures
) -> None:
    with daemon_on(mongo_uri, explorer) as daemon:
        ledger.settle()
        tiny = [explorer.draft(Rates(cu=10), [CONTAINER], customer_tid=Int64(7)) for _ in range(pools)]
        neighbours = [explorer.draft(Rates(cu=10), [CONTAINER], customer_tid=Int64(8 + each)) for each in range(5)]
        explorer.create([*tiny, *neighbours])
        going = [each for pool in [*tiny, *neighbours] for each in pool.workload_ids]
        explorer.wait_until_gone(going, within_seconds=DONE_SECONDS)
    late = max(ledger.lateness([each for pool in neighbours for each in pool.workload_ids]))
    violations = ledger.violations()
    figures.record(
        36,
        "one owner's tiny pools end together",
        trials=pools,
        violations=violations,
        figure=f"nothing held; neighbours late by at most {late:.1f} s",
    )
    assert violations == []
    assert not daemon.said("brake_held")


@pytest.mark.timeout(400)
@pytest.mark.parametrize("pools", [800, pytest.param(20_000, marks=pytest.mark.faults)])
def test_53_pools_that_are_held_delay_no_others(
    pools: int, explorer: Explorer, ledger: Ledger, mongo_uri: str, chance: random.Random, figures: Figures
) -> None:
    """A backup comes back in parts; of several rounds the best counts, in which the machine was least disturbed."""
    backup = [yesterdays(explorer, chance) for _ in range(pools)]
    size = pools // ROUNDS
    with daemon_on(mongo_uri, explorer) as daemon:
        daemon.wait_for_log(lambda record: record["event"] == "expiry_active", within_seconds=30, what="it to act")
        ledger.settle()
        before = [lateness_of_others(explorer, ledger)]
        meanwhile = [
            lateness_of_others(explorer, ledger, beside=backup[start : start + size]) for start in range(0, pools, size)
        ]
        afterwards = [lateness_of_others(explorer, ledger) for _ in range(2)]
    held = explorer.database["pool-daemon-brake"].count_documents({"state": "held"})
    violations = ledger.violations_of_i1()
    figures.record(
        53,
        "pools that are held beside others",
        trials=pools,
        violations=violations,
        figure=f"held: {held:,}; others late by at most {min(before):.2f} s before, {min(meanwhile):.2f} s meanwhile "
        f"(at worst {max(meanwhile):.2f} s), {min(afterwards):.2f} s afterwards",
    )
    assert violations == []
    assert held >= pools - MIN_POOLS
    assert min(meanwhile) <= LATE_SECONDS
    assert min(afterwards) <= LATE_SECONDS


def yesterdays(explorer: Explorer, chance: random.Random) -> Purchase:
    """Draft a pool that has run empty at some time since yesterday."""
    bought_at = int(time.time()) - chance.randrange(2 * HOUR_SECONDS, 20 * HOUR_SECONDS)
    owner = Int64(1_000 + chance.randrange(OWNERS))
    return explorer.draft(Rates(cu=HOUR_SECONDS), [CONTAINER], bought_at=bought_at, customer_tid=owner)


def lasting(explorer: Explorer, *, owner: int = 7) -> Purchase:
    """Draft a pool that lasts for a year."""
    return explorer.draft(Rates(cu=YEAR_SECONDS), [CONTAINER], customer_tid=Int64(owner))


def topped_up_since(pool: Purchase) -> Purchase:
    """Return what has become of a pool by today."""
    document = dict(pool.document)
    add_capacity(document, Rates(cu=YEAR_SECONDS), now=document["last_updated"])
    return dataclasses.replace(pool, document=encoded(document))


def lateness_of_others(explorer: Explorer, ledger: Ledger, *, beside: Sequence[Purchase] = ()) -> float:
    """Restore pools that ran out while one of others runs empty each second; return how late those went at most."""
    others = [explorer.draft(Rates(cu=2 + each), [CONTAINER], customer_tid=Int64(500 + each)) for each in range(OTHERS)]
    explorer.create(others)
    insert(explorer.workloads, [workload for pool in beside for workload in pool.workloads])
    insert(explorer.pools, [pool.document for pool in beside])
    going = [each for pool in others for each in pool.workload_ids]
    explorer.wait_until_gone(going, within_seconds=DONE_SECONDS)
    wait_until_decided(explorer, beside)
    return max(ledger.lateness(going))


def insert(collection: Collection[Document], documents: Sequence[Document]) -> None:
    for start in range(0, len(documents), BATCH):
        collection.insert_many(documents[start : start + BATCH])


def wait_until_decided(explorer: Explorer, ran_out: Sequence[Purchase]) -> None:
    """Wait until each of these pools either is held or has lost its workload."""
    holds = explorer.database["pool-daemon-brake"]
    pool_ids = [pool.pool_id for pool in ran_out]

    def are_decided() -> bool:
        held = holds.count_documents({"_id": {"$in": pool_ids}, "state": "held"})
        running = explorer.workloads.count_documents({"pool_id": {"$in": pool_ids}, "next_action": 3})
        return held >= running

    wait_until(are_decided, within_seconds=DONE_SECONDS, what="all that ran out to be held or gone")


def release(uri: str, explorer: Explorer) -> None:
    """Release the brake, as an operator does."""
    subprocess.run(
        [sys.executable, "-m", "pool_daemon", "brake", "release", "--all", "--yes"],
        env=environment(DATABASE__URI=uri, DATABASE__NAME=explorer.database.name),
        check=True,
    )
