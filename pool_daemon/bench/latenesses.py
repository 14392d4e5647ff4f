"""The lateness of small, frequent work: single pools, and deadlines brought forward."""

import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bson import Int64

from pool_daemon.bench.database import BenchDatabase
from pool_daemon.bench.figures import Figure, percentile
from pool_daemon.bench.grid import PoolBatch, add_pool
from pool_daemon.bench.server import Commit
from pool_daemon.harness import DaemonProcess, logged_at
from pool_daemon.store.pools import CAPACITY_POOLS

DAY_SECONDS: Final = 86_400
FIRST_TRIAL_ID: Final = 5_000_000

SOON_SECONDS: Final = 30
"""A deadline brought forward to this distance is near enough for the daemon to set its timer to it."""

FAR_SECONDS: Final = 30 * DAY_SECONDS


def bystanders(now: float, *, pools: int = 10_000) -> PoolBatch:
    """Return the pools beside those of a trial; none of them falls due while it lasts."""
    return PoolBatch(pools=pools, empty_at=int(now) + FAR_SECONDS, apart_seconds=5, missing_each=1)


@dataclass(frozen=True, slots=True)
class OneAtATime:
    """One pool after the other falls due, each bought at a random moment of the second before its last.

    Lateness is counted from `empty_at` to the transaction's wall time in the server's oplog, exact to the millisecond.
    """

    trials: int
    name: str = "one-at-a-time"

    @property
    def work(self) -> str:
        """A description of the work."""
        return f"one pool at a time: {self.trials} trials, a second apart"

    def measure(self, stage: BenchDatabase) -> Sequence[Figure]:
        """Let the trials fall due on an otherwise idle daemon."""
        stage.fill(bystanders(time.time()))
        commits = stage.commits()
        with stage.daemon() as daemon:
            daemon.first("armed")
            due_at = fall_due_one_by_one(stage, trials=self.trials)
        return lateness_figures(milliseconds_late(commits.decommissionings(), due_at), half_at_most=15, most_at_most=50)


def fall_due_one_by_one(stage: BenchDatabase, *, trials: int) -> Mapping[int, int]:
    """Let single pools fall due, a second apart, and return the unix second of each by its id."""
    rng = random.Random(trials)  # noqa: S311 - an offset within a second
    first = int(time.time()) + 2
    due_at = {FIRST_TRIAL_ID + trial: first + trial for trial in range(trials)}
    for pool_id, second in due_at.items():
        time.sleep(max(0.0, second - rng.uniform(0.1, 0.9) - time.time()))
        add_pool(stage.database, pool_id, empty_at=second)
    time.sleep(max(0.0, first + trials + 1 - time.time()))
    return due_at


def milliseconds_late(commits: Sequence[Commit], due_at: Mapping[int, int]) -> list[float]:
    """Return the lateness of each of the pools; infinite for a pool that was never settled."""
    settled_at: dict[int, float] = {}
    for commit in commits:
        for pool_id in commit.pool_ids:
            settled_at.setdefault(pool_id, commit.committed_at)
    return [(settled_at.get(pool_id, math.inf) - second) * 1000 for pool_id, second in due_at.items()]


def lateness_figures(milliseconds: Sequence[float], *, half_at_most: float | None, most_at_most: float) -> list[Figure]:
    """Return the figures on the lateness of single pools: the median, and the 99th percentile."""
    return [
        Figure("lateness, half of them", percentile(milliseconds, 50), "ms", at_most=half_at_most),
        Figure("lateness, 99 of 100", percentile(milliseconds, 99), "ms", at_most=most_at_most),
        Figure("earliest", min(milliseconds), "ms", at_least=0),
        Figure("latest", max(milliseconds), "ms"),
    ]


@dataclass(frozen=True, slots=True)
class Rearming:
    """Another writer brings the next deadline forward: the time from that commit until the daemon is armed for it.

    The commit's wall time is that of the server's oplog; the daemon logs when it is armed. Each deadline is put back
    afterwards, so that the next one comes first again.
    """

    trials: int
    name: str = "re-arming"

    @property
    def work(self) -> str:
        """A description of the work."""
        return f"re-arming: a deadline brought forward from outside, {self.trials} trials"

    def measure(self, stage: BenchDatabase) -> Sequence[Figure]:
        """Bring deadlines forward on an otherwise idle daemon."""
        stage.fill(bystanders(time.time()))
        with stage.daemon() as daemon:
            daemon.first("armed")
            milliseconds = rearm(stage, daemon, trials=self.trials, apart_seconds=0.1)
        return [
            Figure("from the commit to the armed timer, half of them", percentile(milliseconds, 50), "ms", at_most=10),
            Figure("from the commit to the armed timer, 99 of 100", percentile(milliseconds, 99), "ms", at_most=50),
        ]


def rearm(stage: BenchDatabase, daemon: DaemonProcess, *, trials: int, apart_seconds: float) -> list[float]:
    """Bring a deadline forward and put it back, `trials` times, and return how long the daemon took to be armed."""
    rng = random.Random(trials)  # noqa: S311 - an offset within a second
    commits = stage.commits()
    wanted = {}
    for trial in range(trials):
        pool_id = FIRST_TRIAL_ID + trial
        wanted[pool_id] = int(time.time()) + SOON_SECONDS
        add_pool(stage.database, pool_id, empty_at=int(time.time()) + FAR_SECONDS)
        for empty_at in (wanted[pool_id], wanted[pool_id] + FAR_SECONDS):
            time.sleep(rng.uniform(0.5, 1.5) * apart_seconds)
            _move_deadline(stage, pool_id, empty_at)
    moved_at = {pool_id: instants[0] for pool_id, instants in commits.updates().items()}
    armed_at = {
        entry["pool"]: logged_at(entry) for entry in daemon.entries("armed") if entry["at"] == wanted.get(entry["pool"])
    }
    return [(armed_at.get(pool_id, math.inf) - moved_at[pool_id]) * 1000 for pool_id in wanted]


def _move_deadline(stage: BenchDatabase, pool_id: int, empty_at: int) -> None:
    left = float(empty_at - int(time.time()))
    change = {"cus": left, "last_updated": Int64(int(time.time())), "empty_at": Int64(empty_at)}
    stage.database[CAPACITY_POOLS].update_one({"_id": Int64(pool_id)}, {"$set": change})
