"""Pools that are lengthened, shortened, filled and emptied at random, and a model that says who had to go when."""

import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest
from arithmetic_model import Document, Rates
from deadline import wait_for_instant, wait_until
from explorer import CONTAINER, VOLUME, Explorer
from faults.chronicle import ALLOWED_SECONDS, Chronicle
from faults.daemons import STORM, daemon_on
from faults.figures import Figures
from ledger import DELETE, Ledger
from oplog import Oplog
from pymongo import MongoClient

WALKERS = 4
POOLS = 200
SHORTEST_REST_SECONDS, LONGEST_REST_SECONDS = 0.01, 0.07
"""Of each walker between two steps: a pool is left alone for five seconds on average, and sometimes for much longer."""


class Walked(NamedTuple):
    """A pool on its walk, and every workload that it ever had."""

    pool_id: int
    workload_ids: list[int]


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
        wait_until(lambda: explorer.running() == 0, within_seconds=ALLOWED_SECONDS, what="everybody to be gone")
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


def begin(explorer: Explorer, chance: random.Random) -> Walked:
    """Create a pool at the beginning of its walk."""
    pool = explorer.buy(Rates(chance.uniform(2, 9), chance.uniform(2, 9)), [CONTAINER, VOLUME])
    return Walked(pool.pool_id, pool.workload_ids)


def walk(explorer: Explorer, pools: Sequence[Walked], chance: random.Random, ends_at: float) -> int:
    """Do something to a pool, and to another, until it is over; return how often."""
    kinds: list[Step] = [lengthen, shorten, fill, clear]
    steps = 0
    while time.time() < ends_at:
        (step,) = chance.choices(kinds, weights=[4, 3, 2, 3])
        step(explorer, chance.choice(pools), chance)
        steps += 1
        wait_for_instant(time.time() + chance.uniform(SHORTEST_REST_SECONDS, LONGEST_REST_SECONDS))
    return steps


Step = Callable[[Explorer, Walked, random.Random], None]


def lengthen(explorer: Explorer, pool: Walked, chance: random.Random) -> None:
    explorer.top_up(pool.pool_id, Rates(chance.uniform(0.5, 9), chance.uniform(0, 9)))


def shorten(explorer: Explorer, pool: Walked, chance: random.Random) -> None:
    explorer.shorten(pool.pool_id, Rates(chance.uniform(0, 4), chance.uniform(0, 6)))


def fill(explorer: Explorer, pool: Walked, chance: random.Random) -> None:
    pool.workload_ids.append(explorer.add(pool.pool_id, chance.choice([CONTAINER, VOLUME])))


def clear(explorer: Explorer, pool: Walked, _chance: random.Random) -> None:
    for workload_id in list(pool.workload_ids):
        if explorer.next_action(workload_id) == DELETE:
            explorer.bury(pool.pool_id, workload_id)
            pool.workload_ids.remove(workload_id)
