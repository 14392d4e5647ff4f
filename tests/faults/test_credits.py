"""What operators credit: once, whoever is killed, and beside an explorer that writes the same pool all the time."""

import math
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, Self

import pytest
from arithmetic_model import Document, Rates
from explorer import CONTAINER, Explorer, Purchase
from faults.figures import Figures
from indexes import build_indexes
from pymongo import MongoClient
from reservations_command import saved
from rewriting import Rewriting

from pool_daemon.store.client import Database, connect
from pool_daemon.store.pool_changes import Author
from pool_daemon.store.pool_edits import Edit, PoolEdits
from pool_daemon.store.reservation_credits import ReservationCredits, Terms

APPLYING = Path(__file__).with_name("applying.py")

WORKLOADS = 50
"""They make a credit long enough to be killed in its midst."""

KILLED_WITHIN_SECONDS = 0.2

AMOUNT = 3600.0


class Crowd(NamedTuple):
    """How many reservations are applied, each by so many processes, so many times by each."""

    reservations: int
    processes: int
    times: int


class Applying:
    """One process that applies a reservation."""

    def __init__(self, uri: str, explorer: Explorer, reservation_id: int, times: int) -> None:
        words = (sys.executable, APPLYING, uri, explorer.database.name, str(reservation_id), str(times))
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.kill()
        self._process.communicate()

    def wait_until_ready(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def kill(self) -> bool:
        """Kill it; return whether it was at work."""
        was_at_work = self._process.poll() is None
        self._process.kill()
        return was_at_work

    def wait(self) -> None:
        """Wait until all of its applications have been answered."""
        self._process.communicate(timeout=120)
        assert self._process.returncode == 0


@pytest.fixture
def short_locks(mongo: MongoClient[Document]) -> Iterator[None]:
    """Let the server end within seconds what a killed process has left open; by default it takes a minute."""
    mongo.admin.command("setParameter", 1, transactionLifetimeLimitSeconds=3)
    yield
    mongo.admin.command("setParameter", 1, transactionLifetimeLimitSeconds=60)


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("short_locks")
@pytest.mark.parametrize("crowd", [Crowd(1, 3, 20), pytest.param(Crowd(1, 8, 125), marks=pytest.mark.faults)], ids=str)
def test_51_a_reservation_is_credited_once_whoever_applies_it_and_is_killed(
    crowd: Crowd, explorer: Explorer, mongo_uri: str, chance: random.Random, figures: Figures
) -> None:
    build_indexes(mongo_uri, explorer.database.name)
    killed = before = 0
    violations: list[str] = []
    for reservation_id in range(1, crowd.reservations + 1):
        pool = order(explorer, reservation_id)
        victims = chance.sample(range(crowd.processes), math.ceil(crowd.processes / 2))
        with ExitStack() as stack:
            appliers, successors = (
                [stack.enter_context(Applying(mongo_uri, explorer, reservation_id, crowd.times)) for _ in range(count)]
                for count in (crowd.processes, len(victims))
            )
            for each in (*appliers, *successors):
                each.wait_until_ready()
            for each in appliers:
                each.go()
            began = time.monotonic()
            for at, victim in zip(
                sorted(chance.uniform(0, KILLED_WITHIN_SECONDS) for _ in victims), victims, strict=True
            ):
                time.sleep(max(0.0, began + at - time.monotonic()))
                killed += appliers[victim].kill()
                before += explorer.database["pool-daemon-applied"].find_one({"_id": reservation_id}) is None
            for each in successors:
                each.go()
            for each in (
                *(appliers[number] for number in range(crowd.processes) if number not in victims),
                *successors,
            ):
                each.wait()
        violations += credited_otherwise_than_once(explorer, pool, reservation_id)
    credited = explorer.events.count_documents({"kind": "applied"})
    figures.record(
        51,
        f"kill -9 of half of {crowd.processes} processes that apply one reservation {crowd.times} times each",
        trials=crowd.reservations * crowd.processes * crowd.times,
        violations=violations,
        figure=f"reservations: {crowd.reservations}, credits: {credited}; killed: {killed}, {before} of them "
        "before the credit",
    )
    assert violations == []


@pytest.mark.timeout(600)
@pytest.mark.parametrize("rewrites", [150, pytest.param(5_000, marks=pytest.mark.faults)])
@pytest.mark.parametrize("command", ["reservations apply", "pools top-up"])
async def test_52_nothing_is_lost_between_an_operator_and_an_explorer_that_rewrites_the_pool(
    command: str,
    rewrites: int,
    explorer: Explorer,
    mongo_uri: str,
    trials_of: Callable[[int], int],
    figures: Figures,
) -> None:
    rewrites = trials_of(rewrites)
    pool = explorer.buy(Rates(), [])
    database = connect(uri=mongo_uri, name=explorer.database.name)
    made = kept = 0
    with Rewriting(explorer, pool.pool_id, times=rewrites) as theirs:
        while not theirs.is_over:
            made += 1
            edit = await changed(command, database, explorer, pool, made)
            await theirs.until_it_has_written_twice()
            kept += await PoolEdits(database=database, author=author(made)).stands(edit, int(time.time()))
    database.close()
    stored = explorer.stored(explorer.pools, pool.pool_id)
    expected = {"cus": AMOUNT * kept, "sus": AMOUNT * kept + rewrites, "ipv4us": 0.0}
    violations = [f"{name}: {stored[name]}, not {value}" for name, value in expected.items() if stored[name] != value]
    figures.record(
        52,
        f"the explorer rewrites the pool beside `{command}`",
        trials=rewrites,
        violations=violations,
        figure=f"of {made:,} changes {made - kept:,} were overwritten by the explorer, and told; of its own none",
    )
    assert violations == []
    assert 0 < kept <= made


def order(explorer: Explorer, reservation_id: int) -> Purchase:
    """Have a pool with workloads that wait for a reservation, and do not drain it yet."""
    pool = explorer.buy(Rates(), [])
    waiting = [explorer.new_workload(pool.pool_id, CONTAINER, next_action=2) for _ in range(WORKLOADS)]
    explorer.workloads.insert_many(waiting)
    pool.workloads.extend(waiting)
    document = saved(reservation_id, pool_id=pool.pool_id, cus=int(AMOUNT))
    explorer.database["capacity-reservations"].insert_one(document)
    return pool


def credited_otherwise_than_once(explorer: Explorer, pool: Purchase, reservation_id: int) -> Iterator[str]:
    """Say what was not done exactly once for a reservation."""
    credited = [event["amounts"][0] for event in explorer.events.find({"reservation_id": reservation_id})]
    if credited != [AMOUNT]:
        yield f"reservation {reservation_id}: recorded as credited {len(credited)} times"
    if explorer.database["pool-daemon-applied"].count_documents({"_id": reservation_id}) != 1:
        yield f"reservation {reservation_id}: does not count as applied"
    cus = explorer.stored(explorer.pools, pool.pool_id)["cus"]
    if cus != AMOUNT:
        yield f"reservation {reservation_id}: the pool has {cus}, not {AMOUNT}"
    if explorer.next_actions(pool.workload_ids) != [3] * WORKLOADS:
        yield f"reservation {reservation_id}: not all workloads were deployed"
    orders = explorer.orders.count_documents({"_id": {"$in": pool.workload_ids}, "next_action": 3})
    if orders != WORKLOADS:
        yield f"reservation {reservation_id}: {orders} orders of {WORKLOADS}"


async def changed(command: str, database: Database, explorer: Explorer, pool: Purchase, number: int) -> Edit:
    """Change a pool as that command does."""
    now = int(time.time())
    if command == "pools top-up":
        return await PoolEdits(database=database, author=author(number)).top_up(
            pool.pool_id, (AMOUNT, AMOUNT, 0.0), now
        )
    document = saved(number, pool_id=pool.pool_id, cus=int(AMOUNT), sus=int(AMOUNT))
    explorer.database["capacity-reservations"].insert_one(document)
    made = await ReservationCredits(database=database, author=author(number)).apply(number, Terms(now=now))
    assert made.edit is not None
    return made.edit


def author(number: int) -> Author:
    return Author(identity="an operator", version="1", key=f"change {number}", reason="a ticket")
