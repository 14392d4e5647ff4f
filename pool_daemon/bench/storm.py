"""Storms: many pools, or many workloads, that all fall due in the same second."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from pool_daemon.bench import references
from pool_daemon.bench.database import BenchDatabase, in_time, wait_until_armed
from pool_daemon.bench.figures import Figure, exponent, median
from pool_daemon.bench.grid import PoolBatch
from pool_daemon.bench.server import Commit
from pool_daemon.errors import BenchError
from pool_daemon.harness import DaemonProcess

SERVERS_LIMIT_MB: Final = 16
"""The largest entry of the server's oplog; a larger transaction is split into several."""

CONSTANT_MB: Final = 5
"""The largest difference at which the daemon's memory counts as constant."""

SATURATING: Final = 10_000
"""Pools from which on a storm keeps as much work in flight as the daemon ever has."""

SLOWEST: Final = 250
"""Workloads a second, the rate of one by one, below which the measurement is abandoned."""


Threads = dict[bool, Sequence[int]]
"""The numbers of threads to try for the raw limit, without transactions (False) and with them (True)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The result of one storm on the daemon."""

    due_at: int
    commits: Sequence[Commit]
    peak_memory_mb: float

    @property
    def seconds(self) -> float:
        """From the second in which all fell due to the last commit."""
        return self.commits[-1].committed_at - self.due_at

    @property
    def first_milliseconds(self) -> float:
        """From the second in which all fell due to the first commit."""
        return (self.commits[0].committed_at - self.due_at) * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Storm:
    """Pools that fall due in the same second, settled by the daemon and by both references on the same documents.

    The daemon is armed before that second. Its first and its last commit are read from the server's oplog, so its rate
    includes how late it began, what it read and what it decided. The rate of one by one is that of its first seconds,
    because it is constant. That of the raw limit is the best of several numbers of threads (in further rounds: of the
    best number), with all documents created before its measurement starts. Of several rounds each figure is the median.
    """

    name: str
    pools: int
    workloads_each: int = 1
    rounds: int = 1
    patience_seconds: float = 10

    @property
    def work(self) -> str:
        """A description of the work."""
        return f"storm: {self._lot(0).described} due in the same second"

    def measure(self, stage: BenchDatabase) -> Sequence[Figure]:
        """Let the daemon and both references do the work, each on fresh data."""
        threads: Threads = {False: references.THREADS, True: references.THREADS}
        rounds = [self._round(stage, threads) for _ in range(self.rounds)]
        return [
            replace(first, value=median([figure.value for figure in (first, *others)]))
            for first, *others in zip(*rounds, strict=True)
        ]

    def _round(self, stage: BenchDatabase, threads: Threads) -> Sequence[Figure]:
        workloads = self.pools * self.workloads_each
        run = storm_on_daemon(stage, self._lot(0))
        daemon_pace = workloads / run.seconds
        raw_pace = workloads / self._raw_limit(stage, threads, transactions=False)
        atomic_pace = workloads / self._raw_limit(stage, threads, transactions=True)
        plain_pace = self._one_by_one(stage)
        largest = max(run.commits, key=lambda commit: commit.size_bytes)
        return [
            Figure("first decommissioning after the second", run.first_milliseconds, "ms", at_least=0, at_most=100),
            Figure("pace", daemon_pace / plain_pace, "× one by one", at_least=15),
            Figure("pace", daemon_pace / raw_pace, "× raw limit", at_least=0.8),
            Figure("pace", daemon_pace / atomic_pace, "× raw limit in transactions"),
            Figure("largest transaction", largest.size_bytes / 1e6, "MB", at_most=SERVERS_LIMIT_MB),
            Figure("largest transaction", largest.writes, "writes"),
            Figure("daemon", daemon_pace, "workloads/s"),
            Figure("raw limit", raw_pace, "workloads/s"),
            Figure("raw limit in transactions", atomic_pace, "workloads/s"),
            Figure("one by one", plain_pace, "workloads/s"),
        ]

    def _lot(self, due_at: int) -> PoolBatch:
        return PoolBatch(pools=self.pools, workloads_each=self.workloads_each, empty_at=due_at)

    def _raw_limit(self, stage: BenchDatabase, threads: Threads, *, transactions: bool) -> float:
        """Return the shortest duration of all numbers of threads, in seconds; later rounds try only the best number."""
        now = int(time.time())
        batches: Sequence[references.WriteBatch] = ()
        seconds: dict[int, float] = {}
        for number in threads[transactions]:
            stage.tell(f"the raw limit{' in transactions' if transactions else ''} with {number} threads")
            stage.fill(self._lot(now))
            batches = batches or references.prepare(stage.database, now=now)
            seconds[number] = references.write(stage.database, batches, threads=number, transactions=transactions)
        best, fewest = min(seconds.items(), key=lambda item: item[1])
        threads[transactions] = (best,)
        return fewest

    def _one_by_one(self, stage: BenchDatabase) -> float:
        stage.tell("one by one")
        now = int(time.time())
        stage.fill(self._lot(now))
        return references.one_by_one(stage.database, now=now, patience_seconds=self.patience_seconds)


@dataclass(frozen=True, slots=True)
class StormGrowth:
    """The same storm of single pools in several sizes, on the daemon alone: the growth of its cost.

    Seconds are those from the second in which all fell due to the last commit in the server's oplog. Memory is the peak
    of the process, which must not depend on the number of due pools once there are enough to keep all batches in flight
    full; between smaller sizes there is no bound.
    """

    sizes: tuple[int, ...]
    name: str = "storm-growth"

    @property
    def work(self) -> str:
        """A description of the work."""
        return f"storm in sizes: {', '.join(f'{size:,}' for size in self.sizes)} pools with one container"

    def measure(self, stage: BenchDatabase) -> Sequence[Figure]:
        """Let the daemon settle one size after the other, each on fresh data."""
        runs = {size: storm_on_daemon(stage, PoolBatch(pools=size, empty_at=0)) for size in self.sizes}
        seconds = {size: run.seconds for size, run in runs.items()}
        saturating = [size for size in self.sizes if size >= SATURATING]
        base = min(saturating or self.sizes)
        return [
            *(Figure(f"{size:,} pools", value, "s") for size, value in seconds.items()),
            Figure("grows with the exponent", exponent(seconds), ""),
            *(Figure(f"peak memory at {size:,} pools", run.peak_memory_mb, "MB") for size, run in runs.items()),
            Figure(
                f"peak memory above that at {base:,} pools",
                runs[max(self.sizes)].peak_memory_mb - runs[base].peak_memory_mb,
                "MB",
                at_most=CONSTANT_MB if saturating else None,
            ),
        ]


def storm_on_daemon(stage: BenchDatabase, lot: PoolBatch) -> Run:
    """Let all of a lot fall due in the same second on a daemon that waits for it.

    Raises BenchError if the machine is too busy to create the data in time, or the daemon does not finish.
    """
    return in_time([lot], lambda due_at: _storm_at(stage, lot, due_at))


def _storm_at(stage: BenchDatabase, lot: PoolBatch, due_at: int) -> Run:
    stage.tell("the daemon")
    stage.fill(replace(lot, empty_at=due_at))
    commits = stage.commits()
    with stage.daemon() as daemon:
        wait_until_armed(daemon, due_at)
        _until_done(daemon, due_at, lot.workloads)
        peak_memory_mb = daemon.peak_memory_mb()
    return Run(due_at=due_at, commits=commits.decommissionings(), peak_memory_mb=peak_memory_mb)


def _until_done(daemon: DaemonProcess, due_at: int, workloads: int) -> None:
    time.sleep(max(0.0, due_at - time.time()))
    report = daemon.first(
        "pass_completed", holds=lambda entry: bool(entry["settled"]), within_seconds=30 + workloads / SLOWEST
    )
    if report["decommissioned"] != workloads:
        raise BenchError(f"the daemon decommissioned {report['decommissioned']} of {workloads} workloads")
