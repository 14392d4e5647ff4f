"""Pools that are lengthened, shortened, filled and emptied at random, and a model that says who had to go when."""

import random
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from arithmetic_model import Document, Rates
from deadline import wait_until
from explorer import Explorer
from faults.chronicle import Chronicle
from faults.daemons import STORM, daemon_on
from faults.figures import Figures
from faults.walks import begin, walk
from ledger import Ledger
from oplog import Oplog
from pymongo import MongoClient

WALKERS = 4
POOLS = 200
DONE_SECONDS = 10
"""A guard only: who was late is for the chronicle to say."""


@pytest.mark.timeout(300)
@pytest.mark.faults
def test_10_pools_that_change_at_random_lose_what_the_model_says_when_it_says_so(
    explorer: Explorer,
    ledger: Ledger,
    mongo: MongoClient[Document],
    mongo_uri: str,
    chance: random.Random,
    figures: Figures,
) -> None:
    seed = chance.getrandbits(32)
    oplog = Oplog(client=mongo, database_name=explorer.database.name)
    with daemon_on(mongo_uri, explorer, **STORM):
        ledger.settle()
        walks = [begin(explorer, chance) for _ in range(POOLS)]
        ends_at = time.time() + 60
        with ThreadPoolExecutor(WALKERS) as walkers:
            steps = walkers.map(
                lambda number: walk(explorer, walks[number::WALKERS], random.Random(seed + number), ends_at),  # noqa: S311
                range(WALKERS),
            )
            count = sum(steps)
        for pool in walks:
            explorer.shorten(pool.pool_id, Rates(1, 1))
        with suppress(AssertionError):  # who is not gone in time, the ledger and the chronicle name
            wait_until(lambda: explorer.running() == 0, within_seconds=DONE_SECONDS, what="everybody to be gone")
    chronicle = Chronicle(explorer=explorer)
    for commit in oplog.commits():
        chronicle.enter(commit)
    chronicle.end_all(ledger.now())
    violations = ledger.violations() + chronicle.violations
    figures.record(
        10,
        f"random walk of {POOLS} pools, seed {seed}",
        trials=count,
        violations=violations,
        figure=f"{len(ledger.read().decommissions):,} decommissioned, late by {chronicle.latest_seconds:.2f} s at most",
    )
    assert violations == []
    assert explorer.running() == 0
