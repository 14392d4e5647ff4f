"""What operators credit: once, whoever is killed, and beside an explorer that writes the same pool all the time."""

import math
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from queue import Empty, Queue
from typing import NamedTuple, Self

import pytest
from arithmetic_model import Document, Rates
from explorer import CONTAINER, Explorer, Purchase
from faults.figures import Figures
from indexes import build_indexes
from pymongo import MongoClient
from reservations_command import add_users, saved
from rewriting import Rewriting

from pool_daemon.store.client import Database, connect
from pool_daemon.store.pool_changes import Author
from pool_daemon.store.pool_edits import Edit, PoolEdits
from pool_daemon.store.reservation_credits import ReservationCredits, Terms

APPLYING = Path(__file__).with_name("applying.py")

WORKLOADS = 50
"""They make a credit long enough to be killed in its midst."""

MIDST_SECONDS = 0.02
"""From the claim of the pool to the commit it takes longer."""

RESERVATION = 1

AMOUNT = 3600.0


class Crowd(NamedTuple):
    """How many processes apply one reservation, and how many times each."""

    processes: int
    times: int


class Applying:
    """One process that applies a reservation; what it says goes to `heard`, with itself."""

    def __init__(
        self, uri: str, explorer: Explorer, reservation_id: int, times: int, heard: "Queue[tuple[Applying, str]]"
    ) -> None:
        words = (sys.executable, APPLYING, uri, explorer.database.name, str(reservation_id), str(times))
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._heard = heard
        self._listener = threading.Thread(target=self._listen, name="listener")
        self._ready = threading.Event()

    def __enter__(self) -> Self:
        self._listener.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.kill()
        self._listener.join()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def wait_until_ready(self) -> None:
        assert self._ready.wait(120)

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    @property
    def is_at_work(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill it, and wait until it is gone."""
        self._process.kill()
        self._process.wait()

    def wait(self) -> None:
        """Wait until all of its applications have been answered."""
        assert self._process.wait(timeout=120) == 0

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line == "ready\n":
                self._ready.set()
            else:
                self._heard.put((self, line.strip()))


class Kills:
    """Kills processes that apply one reservation, and counts in which part of the credit each kill fell.

    `before` the transaction that credits, `within` it: the process had claimed the pool, and nothing was credited when
    it was killed, though its commit may be on its way; or `after` it, while the process still had answers to get.
    """

    def __init__(self, explorer: Explorer, reservation_id: int, heard: "Queue[tuple[Applying, str]]") -> None:
        self._applied = explorer.database["pool-daemon-applied"]
        self._reservation_id = reservation_id
        self._heard = heard
        self._claimed: set[Applying] = set()
        self.victims: list[Applying] = []
        self.counted: Counter[str] = Counter()

    @property
    def is_credited(self) -> bool:
        return self._applied.find_one({"_id": self._reservation_id}) is not None

    def kill(self, victim: Applying) -> None:
        credited, was_at_work = self.is_credited, victim.is_at_work
        self._hear_what_was_said()
        victim.kill()
        self.victims.append(victim)
        if was_at_work:
            self.counted["after" if credited else "within" if victim in self._claimed else "before"] += 1

    def kill_when_one_says(self, what: str, *, pause_seconds: float) -> None:
        """Kill the process that has come so far, a moment later; none if the reservation is credited first."""
        deadline = time.monotonic() + 60
        while not self.is_credited:
            assert time.monotonic() < deadline
            with suppress(Empty):
                speaker, said = self._hear(timeout_seconds=0.05)
                if said == what and speaker.is_at_work:
                    time.sleep(pause_seconds)
                    self.kill(speaker)
                    return

    def wait_until_credited(self) -> None:
        deadline = time.monotonic() + 60
        while not self.is_credited:
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def _hear_what_was_said(self) -> None:
        with suppress(Empty):
            while True:
                self._hear(timeout_seconds=0)

    def _hear(self, *, timeout_seconds: float) -> tuple[Applying, str]:
        speaker, said = self._heard.get(block=timeout_seconds > 0, timeout=timeout_seconds or None)
        if said == "claimed":
            self._claimed.add(speaker)
        return speaker, said


@pytest.fixture
def short_locks(mongo: MongoClient[Document]) -> Iterator[None]:
    """Let the server end within seconds what a killed process has left open; by default it takes a minute."""
    mongo.admin.command("setParameter", 1, transactionLifetimeLimitSeconds=1)
    yield
    mongo.admin.command("setParameter", 1, transactionLifetimeLimitSeconds=60)


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("short_locks")
@pytest.mark.parametrize("crowd", [Crowd(4, 20), pytest.param(Crowd(8, 125), marks=pytest.mark.faults)], ids=str)
def test_51_a_reservation_is_credited_once_whoever_applies_it_and_is_killed(
    crowd: Crowd, explorer: Explorer, mongo_uri: str, chance: random.Random, figures: Figures
) -> None:
    build_indexes(mongo_uri, explorer.database.name)
    add_users(explorer.database)
    pool = order(explorer, RESERVATION)
    heard: Queue[tuple[Applying, str]] = Queue()
    kills = Kills(explorer, RESERVATION, heard)
    with ExitStack() as stack:
        appliers, successors = (
            [stack.enter_context(Applying(mongo_uri, explorer, RESERVATION, crowd.times, heard)) for _ in range(count)]
            for count in (crowd.processes, math.ceil(crowd.processes / 2))
        )
        for each in (*appliers, *successors):
            each.wait_until_ready()
        for each in appliers:
            each.go()
        kills.kill(chance.choice(appliers))
        for _ in range(crowd.processes // 4):
            kills.kill_when_one_says("claimed", pause_seconds=chance.uniform(0, MIDST_SECONDS))
        kills.kill_when_one_says("committing", pause_seconds=0)
        kills.wait_until_credited()
        for each in successors:
            each.go()
        kills.kill(successors[0])
        for each in (*appliers, *successors):
            if each not in kills.victims:
                each.wait()
    violations = list(credited_otherwise_than_once(explorer, pool, RESERVATION))
    counted, credited = kills.counted, explorer.events.count_documents({"kind": "applied"})
    figures.record(
        51,
        f"kill -9 among {crowd.processes} processes that apply one reservation {crowd.times} times each",
        trials=crowd.processes * crowd.times,
        violations=violations,
        figure=f"credits: {credited}; killed: {counted['before']} before the transaction that credits, "
        f"{counted['within']} within it, {counted['after']} after it",
    )
    assert violations == []
    assert counted["within"]
    assert counted["after"]


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
    add_users(explorer.database)
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
