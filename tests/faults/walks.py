"""What happens to pools in the course of time: they are lengthened, shortened, filled and emptied at random."""

import random
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from arithmetic_model import Rates
from deadline import wait_for_instant
from explorer import CONTAINER, VOLUME, Explorer
from ledger import DELETE

SHORTEST_REST_SECONDS, LONGEST_REST_SECONDS = 0.01, 0.07
"""Of each walker between two steps: a pool is left alone for five seconds on average, and sometimes for much longer."""


class Walked(NamedTuple):
    """A pool on its walk, and every workload that it ever had."""

    pool_id: int
    workload_ids: list[int]


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
