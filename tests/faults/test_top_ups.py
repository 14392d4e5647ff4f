"""Top-ups around the second in which a pool runs empty: whoever commits first wins, by the server's own log."""

import itertools
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest
from arithmetic_model import Rates
from deadline import wait_for_instant
from explorer import CONTAINER, PLENTY, VOLUME, YEAR_SECONDS, Explorer, Purchase
from faults.daemons import STORM, daemon_on
from faults.figures import Figures
from ledger import Ledger, TopUp

POOLS_A_SECOND = 200
LEAD_SECONDS = 4
WINDOW_SECONDS = 1.0
LONGEST_THOUGHT_SECONDS = 0.150
"""How long the writer holds in memory what it has read, before it writes all of it back."""

WRITERS = 40
TOPPED_UP = Rates(YEAR_SECONDS, YEAR_SECONDS, YEAR_SECONDS)


class Shot(NamedTuple):
    """A top-up that reads the pool at one instant and writes it at a later one."""

    pool_id: int
    read_at: float
    write_at: float


@pytest.mark.timeout(300)
@pytest.mark.parametrize("trials", [400, pytest.param(5_000, marks=pytest.mark.faults)])
def test_9_a_top_up_around_the_end_of_a_pool_saves_everything_or_comes_too_late(
    trials: int, explorer: Explorer, ledger: Ledger, mongo_uri: str, chance: random.Random, figures: Figures
) -> None:
    ends: dict[int, int] = {}
    top_ups: list[TopUp] = []
    with daemon_on(mongo_uri, explorer, **STORM):
        ledger.settle()
        while len(top_ups) < trials:
            pools = buy_pools(explorer, trials - len(top_ups))
            ends |= {pool.pool_id: pool.empty_at for pool in pools}
            fire(explorer, [aimed_at(pool, chance) for pool in pools])
            top_ups = [each for each in ledger.read().top_ups if is_close(each, ends)]
        ledger.settle()
    too_late = sum(each.gone_before > 0 for each in top_ups)
    violations = ledger.violations()
    figures.record(
        9,
        "top-up within 1 s of empty_at",
        trials=len(top_ups),
        violations=violations,
        figure=f"committed before the decommissioning: {len(top_ups) - too_late:,}, after it: {too_late:,}",
    )
    assert violations == []
    assert trials / 10 < too_late < trials * 9 / 10, "the daemon was not there, or not on time"


def buy_pools(explorer: Explorer, count: int) -> list[Purchase]:
    """Create pools of which as many run empty in each of the coming seconds."""
    bought_at = int(time.time())
    lasting_seconds = (LEAD_SECONDS + number // POOLS_A_SECOND for number in itertools.count())
    pools = [
        explorer.draft(Rates(cu=2 * seconds + 1.0, su=PLENTY), [CONTAINER, CONTAINER, VOLUME], bought_at=bought_at)
        for seconds in itertools.islice(lasting_seconds, count)
    ]
    explorer.create(pools)
    return pools


def aimed_at(pool: Purchase, chance: random.Random) -> Shot:
    """Aim a top-up at the end of a pool."""
    write_at = pool.empty_at + chance.uniform(-WINDOW_SECONDS, WINDOW_SECONDS) * 0.99
    return Shot(pool.pool_id, write_at - chance.uniform(0.002, LONGEST_THOUGHT_SECONDS), write_at)


def fire(explorer: Explorer, shots: Sequence[Shot]) -> None:
    """Top each pool up at its instant, many writers at once."""
    in_order = sorted(shots, key=lambda shot: shot.read_at)

    def write(mine: Sequence[Shot]) -> None:
        for shot in mine:
            wait_for_instant(shot.read_at)
            explorer.top_up(shot.pool_id, TOPPED_UP, not_before=shot.write_at)

    with ThreadPoolExecutor(WRITERS) as writers:
        list(writers.map(write, (in_order[first::WRITERS] for first in range(WRITERS))))


def is_close(top_up: TopUp, ends: dict[int, int]) -> bool:
    """Tell whether a top-up was committed within the window around the end of its pool."""
    end = ends.get(top_up.pool_id)
    return end is not None and abs(top_up.committed_at - end) <= WINDOW_SECONDS
