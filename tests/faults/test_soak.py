"""Everything at random, for as long as there is time: what leaks, sticks, or goes wrong once in a thousand times."""

import random
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from deadline import wait_for_instant, wait_until
from explorer import Explorer
from faults.figures import Figures
from faults.pools import falling_due, ids_of
from faults.proxy import Proxy
from faults.stalls import StallingDaemon
from faults.streams import wait_for_stream
from faults.transactions import transactions_expiring
from faults.vitals import Vitals
from faults.walks import Walked, begin, walk
from faults.wall_clock import WallClock
from faults.weather import Relief, Weather
from ledger import Ledger
from pymongo.errors import PyMongoError

WALKERS, POOLS = 2, 100
SETTLED_SECONDS = 120

SETTINGS = {
    "BRAKE__ENABLED": "false",
    "DATABASE__SERVER_SELECTION_SECONDS": "2",
    "DATABASE__TIMEOUT_SECONDS": "3",
    "LEASE__SECONDS": "4",
    "RECONCILE__INTERVAL_SECONDS": "2",
    "RECONCILE__CONFIRM_SECONDS": "5",
}
"""Everything a little quicker than usual, so that more of it happens in the time."""

PASS_SECONDS = 20
"""How long a pass in progress may go on."""

MOST_TASKS_MORE, MOST_FILES_MORE, MOST_THREADS_MORE = 3, 16, 12
"""What a process may have more of in the end than soon after its start: connections that the driver keeps."""

MOST_GROWTH_MEGABYTES = 20
"""How much the memory may grow in the second half of a soak, by the line that fits it: far less than any leak of what
comes by the thousand."""


def fewest_tasks(daemon: StallingDaemon, *, at_most: int) -> int:
    """Count the tasks in the daemon's loop until so few are left: those of a pass end with it, and a leak stays."""
    counts: list[int] = []

    def are_few() -> bool:
        counts.append(daemon.count_tasks())
        return counts[-1] <= at_most

    with suppress(AssertionError):
        wait_until(are_few, within_seconds=PASS_SECONDS, what="few tasks")
    return min(counts)


@pytest.mark.timeout(0)
@pytest.mark.faults
def test_25_in_a_soak_nothing_is_lost_early_or_leaked(
    explorer: Explorer,
    ledger: Ledger,
    network: Proxy,
    wall_clock: WallClock,
    chance: random.Random,
    figures: Figures,
    pytestconfig: pytest.Config,
) -> None:
    seconds, seed = pytestconfig.getoption("soak_seconds"), chance.getrandbits(32)
    chance.seed(seed)
    name = explorer.database.name
    with (
        transactions_expiring(explorer.database.client, after_seconds=2),
        StallingDaemon(uri=network.uri, database_name=name, **SETTINGS) as watched,
        Relief(uri=network.direct_uri, database_name=name, settings=SETTINGS) as other,
        ThreadPoolExecutor(WALKERS + 1) as background,
    ):
        wait_for_stream(watched, 1)
        ledger.settle()
        tasks, vitals = watched.count_tasks(), Vitals(pid=watched.process.pid)
        weather = Weather(
            explorer=explorer, network=network, watched=watched, other=other, wall_clock=wall_clock, chance=chance
        )
        until = time.time() + seconds
        before = vitals.now()
        with vitals:
            chances = [random.Random(seed + number) for number in range(WALKERS)]  # noqa: S311 - nor do these
            walkers = [background.submit(wander, explorer, each, until) for each in chances]
            clockwork = background.submit(tick, explorer, until)
            weather.rage(until=until)
            steps = sum(walker.result() for walker in walkers)
            on_time = clockwork.result()
        with suppress(AssertionError):
            wait_until(lambda: ledger.violations_of_i2() == [], within_seconds=SETTLED_SECONDS, what="an end")
        served_until, tasks_after = ledger.now(), fewest_tasks(watched, at_most=tasks + MOST_TASKS_MORE)
        after = vitals.now()
        other.daemon.stop()
        watched.stop()
    late = sorted(ledger.lateness(on_time))
    growth = vitals.growth_megabytes()
    violations = ledger.violations(served_until=served_until)
    figures.record(
        25,
        f"soak of {seconds} s, seed {seed}",
        trials=weather.happened.total(),
        violations=violations,
        figure=f"{steps:,} steps of the explorer, {len(ledger.read().decommissions):,} decommissioned; "
        f"of {len(late):,} half within {late[len(late) // 2]:.2f} s, 99 % within {late[len(late) * 99 // 100]:.1f} s; "
        f"memory {before.megabytes:.0f} to {after.megabytes:.0f} MB, "
        f"{growth:+.1f} MB in the second half, "
        f"files {before.files} to {after.files}, threads {before.threads} to {after.threads}, "
        f"tasks {tasks} to {tasks_after}",
    )
    assert violations == []
    assert growth <= MOST_GROWTH_MEGABYTES
    assert tasks_after <= tasks + MOST_TASKS_MORE
    assert after.files <= before.files + MOST_FILES_MORE
    assert after.threads <= before.threads + MOST_THREADS_MORE


def wander(explorer: Explorer, chance: random.Random, until: float) -> int:
    """Walk through pools of one's own until that instant, whatever the database says; return the number of steps."""
    pools: list[Walked] = []
    steps = 0
    while time.time() < until:
        with suppress(PyMongoError):
            pools += [begin(explorer, chance) for _ in range(POOLS - len(pools))]
            steps += walk(explorer, pools, chance, until)
    return steps


def tick(explorer: Explorer, until: float) -> list[int]:
    """Create pools that nobody touches until they run empty, second after second; return their workloads' ids."""
    workload_ids: list[int] = []
    while time.time() < until:
        with suppress(PyMongoError):
            workload_ids += ids_of(falling_due(explorer, 5, within_seconds=1))
        wait_for_instant(time.time() + 1)
    return workload_ids
