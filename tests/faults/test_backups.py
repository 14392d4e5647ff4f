"""Yesterday's backup is restored: half the pools are due at once, and of most of them that is not true any more."""

import dataclasses
import random
import subprocess
import sys
import time
from collections.abc import Sequence

import pytest
from arithmetic_model import Document, Rates, add_capacity
from daemon_process import environment
from deadline import wait_until
from explorer import CONTAINER, YEAR_SECONDS, Explorer, Purchase, encoded
from faults.daemons import daemon_on
from faults.figures import Figures
from ledger import Ledger
from pymongo.collection import Collection

HOUR_SECONDS = 3600

BATCH = 1_000
"""Documents written at once, as MongoDB's own tool for restoring does."""

USUAL_POOLS, USUAL_SHARE = 100, 0.2
"""What `brake.pools` and `brake.share` are unless the settings say otherwise: the larger of both may be due at once."""

DONE_SECONDS = 60

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
    backup = [*ran_out, *(explorer.draft(Rates(cu=YEAR_SECONDS), [CONTAINER]) for _ in range(half))]
    chance.shuffle(backup)
    if when == "before the start":
        explorer.create(backup)
    if when == "over what is there":
        explorer.create([topped_up_since(pool) for pool in backup])
    with daemon_on(mongo_uri, explorer, **(RESTLESS if when == "while it reconciles" else {})) as daemon:
        ledger.settle(int(time.time()) + 3 if when != "while it starts" else None)
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
    assert len(too_early) <= max(USUAL_POOLS, USUAL_SHARE * 2 * half)


def yesterdays(explorer: Explorer, chance: random.Random) -> Purchase:
    """Draft a pool that has run empty at some time since yesterday."""
    bought_at = int(time.time()) - chance.randrange(2 * HOUR_SECONDS, 20 * HOUR_SECONDS)
    return explorer.draft(Rates(cu=HOUR_SECONDS), [CONTAINER], bought_at=bought_at)


def topped_up_since(pool: Purchase) -> Purchase:
    """Return what has become of a pool by today."""
    document = dict(pool.document)
    add_capacity(document, Rates(cu=YEAR_SECONDS), now=document["last_updated"])
    return dataclasses.replace(pool, document=encoded(document))


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
        [sys.executable, "-m", "pool_daemon", "brake", "release"],
        env=environment(DATABASE__URI=uri, DATABASE__NAME=explorer.database.name),
        check=True,
    )
