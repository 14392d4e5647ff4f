"""Top-ups that come at the very moment a pool runs empty: whichever is committed first, wins, and wins alone.

The outside writer reads a pool, thinks for a few milliseconds, and writes all of it back: it may well undo
the synced capacity that the daemon saved in between, as it always could. What counts is who still runs.
"""

import itertools
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest
from arithmetic_model import Rates
from bson import Int64
from deadline import wait_for_instant, wait_until
from explorer import CONTAINER, FREE, PLENTY, VOLUME, YEAR_SECONDS, Explorer, Purchase
from ledger import DELETE, Ledger, TopUp


@pytest.fixture(scope="module")
def daemon_settings() -> dict[str, str]:
    """Let go of the brake: hundreds of pools that are written when they are empty already are what it is there for."""
    return {"BRAKE__ENABLED": "false"}


pytestmark = [pytest.mark.usefixtures("daemon"), pytest.mark.timeout(180)]

TRIALS = 1000
WINDOW_SECONDS = 0.020
LATECOMERS = 4
"""Every fourth top-up comes after the end instead: the daemon's chance to be first."""

LATEST = 50
"""Windows after the end at which the last of them come. One is as likely in the first 20 ms as between 500 ms and a
second, so that on a fast machine as on a slow one some come just before the daemon's commit and some just behind."""

CROWDS = (50, 10)
"""How many pools run empty in one second, and in the next: in a crowd the transactions conflict, alone they do not."""

SPARE = 1.4
"""So many more top-ups are aimed than are wanted close to the end: some are late, on purpose or by accident."""

MOST_ROUNDS = 3
"""A slow machine misses the moment more often, and is content with fewer close ones."""

SECOND_CHANCES = 200
RACERS = 4
LONGEST_DELAYS_SECONDS = (0.040, 0.2, 1.0)
"""Where the machine is too slow for the daemon ever to be first, there is another round with longer delays."""

GENEROUS = Rates(YEAR_SECONDS * 10, YEAR_SECONDS * 10, YEAR_SECONDS * 10)


class Outcome(NamedTuple):
    """Who was first how often."""

    trials: int
    topped_up_first: int
    decommissioned_first: int


class Shot(NamedTuple):
    """A top-up that reads the pool at one instant and writes it at a later one."""

    pool_id: int
    read_at: float
    write_at: float


def test_whoever_commits_first_around_the_end_of_a_pool_wins_alone(
    explorer: Explorer, ledger: Ledger, say: Callable[[str, Outcome], None]
) -> None:
    chance = random.Random(20)  # noqa: S311  # it aims, it keeps no secret
    ends: dict[int, int] = {}
    close: list[TopUp] = []
    for _ in range(MOST_ROUNDS):
        pools = buy_pools(explorer, int((TRIALS - len(close)) * SPARE) + CROWDS[0])
        ends |= {pool.pool_id: pool.empty_at for pool in pools}
        top_up(explorer, [aimed_at(pool, number, chance) for number, pool in enumerate(pools)])
        all_top_ups = [each for each in ledger.read().top_ups if each.pool_id in ends]
        close = [each for each in all_top_ups if abs(each.committed_at - ends[each.pool_id]) <= WINDOW_SECONDS]
        if len(close) >= TRIALS:
            break
    ledger.settle()

    say("within 20 ms of empty_at", outcome_of(close, gone_at_first=0))
    outcome = outcome_of(all_top_ups, gone_at_first=0)
    say("around empty_at", outcome)
    assert ledger.violations_of_i1() == []
    assert ledger.violations_of_i2() == []
    assert outcome.topped_up_first >= TRIALS // 20
    assert outcome.decommissioned_first >= TRIALS // 20


@pytest.mark.parametrize("clock", ["that stands still", "that stepped back"])
def test_a_top_up_wins_although_a_sync_has_nothing_to_save(
    explorer: Explorer, ledger: Ledger, clock: str, say: Callable[[str, Outcome], None]
) -> None:
    """A second workload goes in the second of the last sync: saving the same again would protect nothing."""
    chance = random.Random(30)  # noqa: S311  # it aims, it keeps no secret
    last_updated = Int64(int(time.time()) + (86_400 if clock == "that stepped back" else -60))
    pool_ids: set[int] = set()
    for longest_delay_seconds in LONGEST_DELAYS_SECONDS:
        pools = [
            explorer.buy_expired(CONTAINER, CONTAINER, next_action=1, last_updated=last_updated)
            for _ in range(SECOND_CHANCES)
        ]
        pool_ids |= {pool.pool_id for pool in pools}
        delays = [chance.uniform(0, longest_delay_seconds) for _ in pools]
        with ThreadPoolExecutor(RACERS) as racers:
            list(racers.map(race_for_the_second, itertools.repeat(explorer), pools, delays))
        ledger.settle()
        trials = [each for each in ledger.read().top_ups if each.pool_id in pool_ids]
        outcome = outcome_of(trials, gone_at_first=1)
        if min(outcome.topped_up_first, outcome.decommissioned_first) >= SECOND_CHANCES // 20:
            break

    say(f"under a clock {clock}", outcome)
    assert ledger.violations_of_i1() == []
    assert ledger.violations_of_i2() == []
    assert outcome.trials == len(pool_ids)
    assert outcome.topped_up_first >= SECOND_CHANCES // 20
    assert outcome.decommissioned_first >= SECOND_CHANCES // 20


@pytest.fixture
def say(ledger: Ledger, record_property: Callable[[str, object], None]) -> Callable[[str, Outcome], None]:
    """Say at the end of the run, and in its report, what came out."""

    def say(where: str, outcome: Outcome) -> None:
        figures = {
            **outcome._asdict(),
            "violations of I1": len(ledger.violations_of_i1()),
            "violations of I2": len(ledger.violations_of_i2()),
        }
        said = ", ".join(f"{name.replace('_', ' ')}: {figure}" for name, figure in figures.items())
        record_property(f"top-ups {where}", said)

    return say


def buy_pools(explorer: Explorer, count: int) -> list[Purchase]:
    """Create pools of which many run empty in each of the coming seconds."""
    kinds = [CONTAINER, CONTAINER, VOLUME, FREE[0]]
    bought_at = int(time.time())
    lasting_seconds = itertools.chain.from_iterable(map(itertools.repeat, itertools.count(4), itertools.cycle(CROWDS)))
    pools = [
        explorer.draft(Rates(2 * seconds + 1.0, PLENTY), kinds, bought_at=bought_at)
        for seconds in itertools.islice(lasting_seconds, count)
    ]
    explorer.create(pools)
    return pools


def aimed_at(pool: Purchase, number: int, chance: random.Random) -> Shot:
    """Aim a top-up at the end of a pool; the writer thinks between its read and its write."""
    is_late = number % LATECOMERS == 0
    windows = LATEST ** chance.random() if is_late else chance.uniform(-1, 1)
    write_at = pool.empty_at + windows * WINDOW_SECONDS
    return Shot(pool.pool_id, write_at - chance.uniform(0.020, 0.150), write_at)


def top_up(explorer: Explorer, shots: Sequence[Shot]) -> None:
    """Top each pool up at its instant, many writers at once."""
    in_order = sorted(shots, key=lambda shot: shot.write_at)

    def write(mine: Sequence[Shot]) -> None:
        for shot in mine:
            wait_for_instant(shot.read_at)
            explorer.top_up(shot.pool_id, GENEROUS, not_before=shot.write_at)

    with ThreadPoolExecutor(CROWDS[0]) as writers:
        list(writers.map(write, (in_order[first :: CROWDS[0]] for first in range(CROWDS[0]))))


def race_for_the_second(explorer: Explorer, pool: Purchase, delay_seconds: float) -> None:
    """Let the daemon sync an expired pool, then deploy another workload in it and top it up."""
    first, second = pool.workload_ids
    explorer.deploy(first)
    wait_until(lambda: explorer.next_action(first) == DELETE, within_seconds=30, what=f"{first} to be decommissioned")
    explorer.deploy(second)
    explorer.top_up(pool.pool_id, GENEROUS, not_before=time.time() + delay_seconds)


def outcome_of(trials: Sequence[TopUp], *, gone_at_first: int) -> Outcome:
    """Count who was first, where so many workloads of each pool had gone before its trial."""
    topped_up_first = sum(each.gone_before == gone_at_first for each in trials)
    return Outcome(len(trials), topped_up_first, len(trials) - topped_up_first)
