"""Grace: nothing goes before its time, and nothing later than without, whatever happens to daemon, clock and pool."""

import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from arithmetic_model import Rates
from daemon_process import DaemonProcess
from deadline import wait_for_instant, wait_until
from explorer import CONTAINER, PLENTY, VOLUME, Explorer, Purchase
from fail_point import APP_NAME
from faults.daemons import RESTARTED, STORM, daemon_on, wait_for_indexes
from faults.figures import Figures
from faults.pools import ids_of, overdue
from faults.wall_clock import WallClock
from ledger import Ledger

GRACE_SECONDS = 5
GRACE = {"GRACE__VOLUME": f"{GRACE_SECONDS}s"}
DONE_SECONDS = 60
WRITERS = 40
AT_ONCE = 1000
LONGEST_THOUGHT_SECONDS = 0.150
"""How long the writer holds in memory what it has read, before it writes all of it back."""

BATCH = [
    ("find", "capacity-pools"),
    ("aggregate", "workload"),
    ("insert", "workqueue"),
    ("insert", "pool-daemon-events"),
]
"""What a batch reads and inserts within its transaction, beside an update of each pool and one of all workloads."""

LATE_SECONDS = 2.0
"""What the contract allows a loaded machine; the table has the figures."""


def buy_volumes(explorer: Explorer, count: int, *, in_seconds: float, within_seconds: float) -> list[Purchase]:
    """Create pools with a container and a volume each, of which all ends one after the other, in some seconds."""
    bought_at = int(time.time())
    lasting = [in_seconds + within_seconds * number / count for number in range(count)]
    pools = [
        explorer.draft(Rates(cu=seconds, su=seconds), [CONTAINER, VOLUME], bought_at=bought_at) for seconds in lasting
    ]
    explorer.create(pools)
    return pools


@pytest.fixture
def in_grace(ledger: Ledger) -> Ledger:
    """Judge volumes by their grace."""
    ledger.grace[VOLUME.workload_type] = GRACE_SECONDS
    return ledger


@contextmanager
def rewritten(explorer: Explorer, pools: Sequence[Purchase], *, every_seconds: float) -> Iterator[None]:
    """Have the explorer write all of these pools again and again, as it does when nothing but time has passed."""
    stop = threading.Event()

    def write() -> None:
        while not stop.wait(every_seconds):
            for pool in pools:
                explorer.top_up(pool.pool_id, Rates())

    thread = threading.Thread(target=write, name="the explorer")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def volumes_of(pools: Sequence[Purchase]) -> list[int]:
    """List the ids of the volumes of some pools."""
    return [pool.workload_ids[1] for pool in pools]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("trials", [40, pytest.param(1_000, marks=pytest.mark.faults)])
def test_54_a_grace_ends_at_its_second_and_no_sooner(
    trials: int, explorer: Explorer, in_grace: Ledger, mongo_uri: str, figures: Figures
) -> None:
    with daemon_on(mongo_uri, explorer, **STORM, **GRACE):
        wait_for_indexes(explorer)
        pools = buy_volumes(explorer, trials, in_seconds=3, within_seconds=3)
        explorer.wait_until_gone(ids_of(pools), within_seconds=DONE_SECONDS)
    latest_seconds = max(in_grace.lateness(volumes_of(pools)))
    violations = in_grace.violations()
    figures.record(
        54,
        f"a grace of {GRACE_SECONDS} s",
        trials=trials,
        violations=violations,
        figure=f"gone {latest_seconds:.2f} s after it at most",
    )
    assert violations == []
    assert explorer.events.count_documents({"kind": "grace_began"}) == trials
    assert explorer.events.count_documents({"kind": "grace_ended", "reason": "over"}) == trials


@pytest.mark.timeout(120)
@pytest.mark.parametrize("trials", [20, pytest.param(200, marks=pytest.mark.faults)])
def test_55_a_grace_ends_though_the_explorer_writes_the_pool_every_second(
    trials: int, explorer: Explorer, in_grace: Ledger, mongo_uri: str, figures: Figures
) -> None:
    with daemon_on(mongo_uri, explorer, **STORM, **GRACE):
        wait_for_indexes(explorer)
        pools = buy_volumes(explorer, trials, in_seconds=3, within_seconds=2)
        with rewritten(explorer, pools, every_seconds=1):
            explorer.wait_until_gone(ids_of(pools), within_seconds=DONE_SECONDS)
    latest_seconds = max(in_grace.lateness(volumes_of(pools)))
    violations = in_grace.violations()
    figures.record(
        55,
        "the explorer writes a pool in grace every second",
        trials=trials,
        violations=violations,
        figure=f"gone {latest_seconds:.2f} s after it at most",
    )
    assert violations == []
    assert latest_seconds < LATE_SECONDS


@pytest.mark.timeout(300)
@pytest.mark.parametrize("trials", [200, pytest.param(5_000, marks=pytest.mark.faults)])
def test_56_a_top_up_around_the_end_of_a_grace_saves_everything_or_comes_too_late(
    trials: int,
    explorer: Explorer,
    in_grace: Ledger,
    mongo_uri: str,
    chance: random.Random,
    figures: Figures,
    trials_of: Callable[[int], int],
) -> None:
    trials = trials_of(trials)
    volumes: list[int] = []
    with daemon_on(mongo_uri, explorer, **STORM, **GRACE):
        wait_for_indexes(explorer)
        while len(volumes) < trials:
            count = min(trials - len(volumes), AT_ONCE)
            pools = buy_volumes(explorer, count, in_seconds=3, within_seconds=max(4, count / 100))
            fire(explorer, pools, chance)
            volumes += volumes_of(pools)
        in_grace.settle()
    violations = in_grace.violations()
    gone = {each.workload_id for each in in_grace.read().decommissions}
    too_late = sum(volume in gone for volume in volumes)
    latest_seconds = max(in_grace.lateness(volumes), default=0.0)
    figures.record(
        56,
        "top-up within 1 s of the end of a grace",
        trials=trials,
        violations=violations,
        figure=f"before the decommissioning: {trials - too_late:,}, after it: {too_late:,}; "
        f"late by {latest_seconds:.2f} s at most",
    )
    assert violations == []
    assert trials / 10 < too_late < trials * 9 / 10, "the daemon was not there, or not on time"


def fire(explorer: Explorer, pools: Sequence[Purchase], chance: random.Random) -> None:
    """Top each pool up within a second of the end of its grace, many writers at once."""
    ends = [pool.empty_at + GRACE_SECONDS + chance.uniform(-1, 1) for pool in pools]
    shots = sorted(zip(ends, pools, strict=True), key=lambda shot: shot[0])
    thought = [chance.uniform(0.002, LONGEST_THOUGHT_SECONDS) for _ in shots]

    def write(first: int) -> None:
        for (write_at, pool), seconds in zip(shots[first::WRITERS], thought[first::WRITERS], strict=True):
            wait_for_instant(write_at - seconds)
            explorer.top_up(pool.pool_id, Rates(su=PLENTY), not_before=write_at)

    with ThreadPoolExecutor(WRITERS) as writers:
        list(writers.map(write, range(WRITERS)))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("trials", [3, pytest.param(20, marks=pytest.mark.faults)])
def test_57_kill_9_while_pools_are_in_grace_neither_shortens_nor_lengthens_it(
    trials: int,
    explorer: Explorer,
    in_grace: Ledger,
    mongo_uri: str,
    chance: random.Random,
    figures: Figures,
    trials_of: Callable[[int], int],
) -> None:
    """Each daemon is killed at any moment; another starts at once, under the same name."""
    trials = trials_of(trials)
    settings = STORM | GRACE | RESTARTED
    with daemon_on(mongo_uri, explorer, **settings):
        wait_for_indexes(explorer)
    pools: list[Purchase] = []
    for _ in range(trials):
        with DaemonProcess(uri=mongo_uri, database_name=explorer.database.name, **settings) as daemon:
            daemon.wait_for_log(lambda said: said["event"] == "expiry_active", within_seconds=30, what="it to act")
            pools += buy_volumes(explorer, 20, in_seconds=2, within_seconds=4)
            wait_for_instant(pools[-1].empty_at - chance.uniform(0, GRACE_SECONDS))
    with daemon_on(mongo_uri, explorer, **settings):
        explorer.wait_until_gone(ids_of(pools), within_seconds=DONE_SECONDS)
    violations = in_grace.violations()
    figures.record(
        57,
        "kill -9 while pools are in grace",
        trials=trials,
        violations=violations,
        figure=f"graces begun: {explorer.events.count_documents({'kind': 'grace_began'}):,}, each once",
    )
    assert violations == []
    assert explorer.events.count_documents({"kind": "grace_began"}) == len(pools)


@pytest.mark.timeout(120)
@pytest.mark.faults
def test_57_a_standby_that_takes_over_keeps_every_grace(
    explorer: Explorer, in_grace: Ledger, mongo_uri: str, figures: Figures
) -> None:
    settings = STORM | GRACE | {"LEASE__SECONDS": "2"}
    name = explorer.database.name
    with DaemonProcess(uri=mongo_uri, database_name=name, LEASE__IDENTITY="first", **settings) as first:
        wait_until(lambda: first.said("lease_acquired"), within_seconds=DONE_SECONDS, what="a holder")
        wait_for_indexes(explorer)
        with daemon_on(mongo_uri, explorer, LEASE__IDENTITY="second", **settings) as second:
            wait_until(lambda: second.said("standby"), within_seconds=DONE_SECONDS, what="a standby")
            pools = buy_volumes(explorer, 100, in_seconds=2, within_seconds=8)
            wait_for_instant(pools[50].empty_at + GRACE_SECONDS - 1)
            first.process.kill()
            explorer.wait_until_gone(ids_of(pools), within_seconds=DONE_SECONDS)
    latest_seconds = max(in_grace.lateness(volumes_of(pools)))
    violations = in_grace.violations()
    figures.record(
        57,
        "holder killed -9 while pools are in grace, lease 2 s",
        trials=len(pools),
        violations=violations,
        figure=f"gone {latest_seconds:.1f} s after it at most",
    )
    assert violations == []


@pytest.mark.timeout(120)
@pytest.mark.faults
@pytest.mark.parametrize("offset_seconds", [3600, -3600])
def test_57_a_clock_that_steps_while_pools_are_in_grace_changes_none(
    offset_seconds: int, wall_clock: WallClock, explorer: Explorer, in_grace: Ledger, mongo_uri: str, figures: Figures
) -> None:
    with daemon_on(mongo_uri, explorer, **STORM, **GRACE) as daemon:
        wait_for_indexes(explorer)
        pools = buy_volumes(explorer, 100, in_seconds=2, within_seconds=4)
        wait_for_instant(pools[-1].empty_at + 1)
        wall_clock.step_to(offset_seconds)
        wait_until(lambda: daemon.said("clock_skew_detected"), within_seconds=20, what="a word about the clock")
        wall_clock.step_to(0)
        explorer.wait_until_gone(ids_of(pools), within_seconds=DONE_SECONDS)
    violations = in_grace.violations()
    figures.record(
        57,
        f"clock steps by {offset_seconds:+,} s while pools are in grace",
        trials=len(pools),
        violations=violations,
        figure="none was shorter, none began anew",
    )
    assert violations == []
    assert explorer.events.count_documents({"kind": "grace_began"}) == len(pools)


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("pools", "top_ups"), [(10, 5), pytest.param(100, 10, marks=pytest.mark.faults)])
def test_58_top_ups_of_a_second_extend_nothing_beyond_the_budget(
    pools: int, top_ups: int, explorer: Explorer, ledger: Ledger, mongo_uri: str, figures: Figures
) -> None:
    """Each pool is topped up by a second, again and again, two seconds after it ran out."""
    budget_seconds = 2 * top_ups - 3
    settings = STORM | {"GRACE__VOLUME": "1d", "GRACE__BUDGET": f"{budget_seconds}s"}
    with daemon_on(mongo_uri, explorer, **settings):
        wait_for_indexes(explorer)
        bought = [explorer.draft(Rates(cu=PLENTY, su=3.0), [VOLUME]) for _ in range(pools)]
        explorer.create(bought)
        for turn in range(top_ups):
            wait_for_instant(bought[0].empty_at + 2 + 3 * turn)
            for pool in bought:
                explorer.top_up(pool.pool_id, Rates(su=1.0))
        explorer.wait_until_gone(ids_of(bought), within_seconds=DONE_SECONDS)
    spent = spent_seconds(ledger, ids_of(bought))
    violations = [f"{each}: {seconds} s" for each, seconds in spent.items() if not 0 <= seconds - budget_seconds < 3]
    figures.record(
        58,
        f"{top_ups} top-ups of a second each, with a budget of {budget_seconds} s",
        trials=pools * top_ups,
        violations=violations,
        figure=f"in grace for {max(spent.values()):.1f} s at most",
    )
    assert violations == []


def spent_seconds(ledger: Ledger, workload_ids: Sequence[int]) -> dict[int, float]:
    """Return for how long each of these workloads has run without storage in all, by the log."""
    account = ledger.read()
    gone = [each for each in account.decommissions if each.workload_id in set(workload_ids)]
    return {
        each.workload_id: each.committed_at
        - each.since["su"]
        + sum(
            outage.until - outage.since
            for outage in account.outages
            if outage.pool_id == each.pool["_id"] and outage.resource == "su" and outage.until <= each.committed_at
        )
        for each in gone
    }


@pytest.mark.timeout(120)
@pytest.mark.parametrize("count", [200, pytest.param(5_000, marks=pytest.mark.faults)])
def test_59_without_settings_no_read_and_no_write_differs(
    count: int, explorer: Explorer, ledger: Ledger, mongo_uri: str, figures: Figures
) -> None:
    with daemon_on(mongo_uri, explorer, **STORM):
        wait_for_indexes(explorer)
        ledger.settle()
    pools = overdue(explorer, count)
    explorer.database.create_collection("system.profile", capped=True, size=2**28)  # the server's own forgets soon
    explorer.database.command({"profile": 2})
    with daemon_on(mongo_uri, explorer, **STORM):
        explorer.wait_until_gone(ids_of(pools), within_seconds=DONE_SECONDS)
    explorer.database.command({"profile": 0})
    batches: defaultdict[tuple[bytes, int], list[tuple[str, str]]] = defaultdict(list)
    updates: Counter[str] = Counter()
    for each in explorer.database["system.profile"].find({"appName": APP_NAME}):
        command, collection = each["command"], each["ns"].partition(".")[2]
        if each["op"] == "update" and "lease" not in collection:  # the server keeps no session of those
            updates[collection] += 1
        elif command.get("autocommit") is False:
            batches[bytes(command["lsid"]["id"]), command["txnNumber"]].append((next(iter(command)), collection))
    unknown = {"pool-daemon-grace", "pool-daemon-policies"}.intersection(explorer.database.list_collection_names())
    violations = ledger.violations()
    violations += [f"a batch sent {sent}" for sent in batches.values() if sent != BATCH]
    violations += [f"there is a collection {name}" for name in unknown]
    if updates != {"capacity-pools": count, "workload": len(batches)}:
        violations.append(f"updates: {updates}")
    figures.record(
        59,
        "a storm without settings of grace",
        trials=count,
        violations=violations,
        figure=f"{len(batches):,} batches, each of the {len(BATCH) + 2} commands that it always had",
    )
    assert violations == []
    assert batches
