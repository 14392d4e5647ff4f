"""Who acts, on real servers and with real processes: dying, stopping, starting anew, standing still, cut off."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from deadline import soonest_of, until, wait_until
from fail_point import fail_point
from pymongo import MongoClient
from replica_set import EmbeddedReplicaSet
from telemetry_scene import LogOnly

from pool_daemon.clock import SystemClock
from pool_daemon.guards.leadership import RENEWALS_PER_LEASE, Leadership
from pool_daemon.store.client import Database, connect
from pool_daemon.store.lease import LEASE, LeaseStore

Client = MongoClient[dict[str, Any]]

LONG_SECONDS = 60.0
"""Nobody waits for such a lease to expire within a test."""

SHORT_SECONDS = 2.0
PATIENCE_SECONDS = 20.0
LOOK_SECONDS = 0.002
ELECTION_SECONDS = 60.0
"""An election takes a second or two; with its source of changes frozen, the other secondary takes ten to follow."""

ROOT = Path(__file__).parents[2]


class Contender:
    """A process's leadership, run in this one; an async context manager that kills it."""

    def __init__(self, database: Database, identity: str, *, seconds: float) -> None:
        store = LeaseStore(database=database, identity=identity, seconds=seconds)
        self.opened = asyncio.Event()
        self.leadership = Leadership(store=store, clock=SystemClock(), on_acquired=self.opened.set, observer=LogOnly())

    @property
    def is_open(self) -> bool:
        return self.leadership.closed_by() is None

    async def opens(self, *, within_seconds: float = PATIENCE_SECONDS) -> None:
        async with asyncio.timeout(within_seconds):
            await self.opened.wait()

    async def closes(self, *, within_seconds: float = PATIENCE_SECONDS) -> None:
        await until(lambda: not self.is_open, within_seconds=within_seconds, what="the gate shuts")
        self.opened.clear()

    async def kill(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self.leadership.run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.kill()


async def test_a_lease_is_taken_over_once_it_has_expired_by_the_database_s_clock(
    database: Database, mongo: Client
) -> None:
    leases = mongo[database.name][LEASE]
    async with Contender(database, "a", seconds=SHORT_SECONDS) as leader:
        await leader.opens()
        async with Contender(database, "b", seconds=SHORT_SECONDS) as standby:
            await until(lambda: standby.leadership.holder, within_seconds=PATIENCE_SECONDS, what="it stands by")
            await leader.kill()
            left = leases.find_one() or {}
            await standby.opens()
            taken = leases.find_one() or {}
    assert (taken["holder"], taken["term"]) == ("b", 2)
    assert left["expires_at"] <= taken["acquired_at"] < left["expires_at"] + timedelta(seconds=5)


async def test_a_lease_that_was_released_is_taken_within_a_second(database: Database) -> None:
    names = ["a", "b"]

    async def took() -> float:
        async with Contender(database, names[0], seconds=LONG_SECONDS) as leader:
            await leader.opens()
            async with Contender(database, names[1], seconds=LONG_SECONDS) as standby:
                await until(lambda: standby.leadership.holder, within_seconds=PATIENCE_SECONDS, what="it stands by")
                await leader.leadership.release()
                released_at = time.monotonic()
                await standby.opens()
                assert not leader.is_open
        names.reverse()  # the next leader is the one that was killed as such, and takes its place at once
        return time.monotonic() - released_at

    await soonest_of(took, within_seconds=1, what="the standby to take over")


async def test_a_daemon_killed_and_restarted_under_its_name_takes_its_place_at_once(database: Database) -> None:
    async with Contender(database, "a", seconds=LONG_SECONDS) as killed:
        await killed.opens()
        await killed.kill()
    async with Contender(database, "a", seconds=LONG_SECONDS) as restarted:
        await restarted.opens(within_seconds=5)
        assert restarted.leadership.term == 2


async def test_the_older_of_two_of_one_name_stops_acting_at_its_next_renewal(database: Database) -> None:
    async with Contender(database, "a", seconds=SHORT_SECONDS) as older:
        await older.opens()
        async with Contender(database, "a", seconds=SHORT_SECONDS) as newer:
            await newer.opens(within_seconds=5)
            await older.closes(within_seconds=SHORT_SECONDS)
            await renewals(database)
            await until(lambda: newer.is_open, within_seconds=PATIENCE_SECONDS, what="the newer acts, or acts again")
            assert not older.is_open


async def test_a_holder_that_cannot_renew_stops_acting_and_goes_on_when_it_can(
    database: Database, mongo: Client
) -> None:
    async with Contender(database, "a", seconds=SHORT_SECONDS) as leader:
        await leader.opens()
        with fail_point(mongo, "findAndModify", mode="alwaysOn", closeConnection=True):
            await leader.closes(within_seconds=SHORT_SECONDS)
        await leader.opens()
        assert leader.leadership.term == 1


async def test_of_fifty_daemons_that_start_at_once_one_acts(database: Database, mongo: Client) -> None:
    async with contextlib.AsyncExitStack() as stack:
        contenders = [
            await stack.enter_async_context(Contender(database, f"contender-{number}", seconds=LONG_SECONDS))
            for number in range(50)
        ]
        await until(
            lambda: all(contender.leadership.holder for contender in contenders),
            within_seconds=PATIENCE_SECONDS,
            what="every one has heard of the lease",
        )
        [leader] = [contender for contender in contenders if contender.is_open]
        lease = mongo[database.name][LEASE].find_one() or {}
        assert (leader.leadership.holder, leader.leadership.term) == (lease["holder"], 1)


async def test_at_no_instant_two_act_while_the_primary_goes_dark_and_another_is_elected(tmp_path: Path) -> None:
    async with EmbeddedReplicaSet(folder=tmp_path) as members:
        database = connect(uri=members.uri, name="explorer", timeout_seconds=2)
        async with (
            Contender(database, "a", seconds=SHORT_SECONDS) as first,
            Contender(database, "b", seconds=SHORT_SECONDS) as second,
        ):
            contenders = [first, second]
            seen = [0]
            watching = asyncio.create_task(count_acting(contenders, seen))
            await until(lambda: seen[-1] == 1, within_seconds=PATIENCE_SECONDS, what="one acts")
            with (await members.primary()).frozen():
                await until(lambda: seen[-1] == 0, within_seconds=PATIENCE_SECONDS, what="none acts")
                await until(lambda: seen[-1] == 1, within_seconds=ELECTION_SECONDS, what="one acts again")
            await renewals(database)
            watching.cancel()
            assert max(seen) == 1
        database.close()


async def renewals(database: Database) -> None:
    """Wait until the lease has been renewed so often that every rival has looked at it, too."""
    renewed_at: set[Any] = set()

    async def is_often() -> bool:
        renewed_at.add((await database.collection(LEASE).find_one({}) or {}).get("renewed_at"))
        return len(renewed_at) > RENEWALS_PER_LEASE + 1

    await until(is_often, within_seconds=PATIENCE_SECONDS, what="renewals", every_seconds=LOOK_SECONDS)


async def count_acting(contenders: list[Contender], seen: list[int]) -> None:
    while True:
        seen.append(sum(contender.is_open for contender in contenders))
        await asyncio.sleep(LOOK_SECONDS)


class HolderProcess:
    """A process that holds the lease or stands by; `open_at` are the instants at which it said that it may act."""

    def __init__(self, *, uri: str, database: str, identity: str, seconds: float) -> None:
        self._arguments = [uri, database, identity, str(seconds)]
        self.looked_at: list[float] = []
        self.open_at: list[float] = []
        self._reader = threading.Thread(target=self._read, name=f"looks of {identity}", daemon=True)

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.lease_holder", *self._arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
        )
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        if self._process.stdout:
            self._process.stdout.close()

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop the process as SIGSTOP does; it goes on at the end."""
        os.kill(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._process.pid, signal.SIGCONT)

    def _read(self) -> None:
        for line in self._process.stdout or ():
            instant, closed_by = line.split()
            self.looked_at.append(float(instant))
            if closed_by == "None":
                self.open_at.append(float(instant))


def test_a_process_that_was_stopped_finds_the_gate_shut_from_the_first_look_on(
    mongo_uri: str, database_name: str
) -> None:
    options: dict[str, Any] = {"uri": mongo_uri, "database": database_name, "seconds": SHORT_SECONDS}
    with HolderProcess(identity="a", **options) as first:
        wait_until(lambda: first.open_at, within_seconds=PATIENCE_SECONDS, what="the first acts")
        with HolderProcess(identity="b", **options) as second:
            wait_until(lambda: second.looked_at, within_seconds=PATIENCE_SECONDS, what="the second stands by")
            with first.stopped():
                wait_until(lambda: second.open_at, within_seconds=PATIENCE_SECONDS, what="the second acts")
            looks = len(first.looked_at)
            wait_until(lambda: len(first.looked_at) > looks + 100, within_seconds=PATIENCE_SECONDS, what="a 100 looks")
    assert max(first.open_at) < min(second.open_at)
    assert max(second.open_at) > first.looked_at[looks]
