"""Connections that stay open while what is written to them vanishes: nothing fails, nothing answers."""

import threading
import time

import pytest
from arithmetic_model import Rates
from deadline import wait_until
from explorer import CONTAINER, YEAR_SECONDS, Explorer
from faults.daemons import IMPATIENT, STORM, daemon_on
from faults.figures import Figures
from faults.pools import ids_of, overdue
from faults.proxy import Command, Direction, Fate, Proxy
from faults.streams import DEAF, expire, wait_for_stream
from faults.transactions import transactions_expiring
from ledger import Ledger

QUICK = {"DATABASE__TIMEOUT_SECONDS": "2", "DATABASE__SERVER_SELECTION_SECONDS": "1"}

LATEST_SECONDS = 30
"""Far above the time-outs of these daemons, for what has to be noticed first on a busy machine."""


class DeadStream:
    """Lets what is asked of one stream vanish, or the answer; a stream that is opened later works."""

    def __init__(self, fate: Fate) -> None:
        self.silent = threading.Event()
        self._fate = fate
        self._cursor: int | None = None

    def judge(self, command: Command) -> Fate:
        """Give the first stream's commands their fate."""
        if command.name != "getMore" or command.collection != "$cmd.aggregate":
            return Fate.PASS
        self._cursor = self._cursor or command.body["getMore"]
        if command.body["getMore"] != self._cursor:
            return Fate.PASS
        self.silent.set()
        return self._fate


@pytest.mark.faults
@pytest.mark.parametrize("fate", [Fate.SWALLOW_REQUEST, Fate.SWALLOW_REPLY], ids=["requests", "replies"])
def test_17_a_stream_that_is_half_open_is_given_up_for_another(
    fate: Fate, explorer: Explorer, ledger: Ledger, network: Proxy, figures: Figures
) -> None:
    trials = 5
    late: list[float] = []
    with daemon_on(network.uri, explorer, **DEAF, **QUICK) as daemon:
        ledger.settle()
        for trial in range(trials):
            pool = explorer.buy(Rates(cu=YEAR_SECONDS), [CONTAINER])
            wait_for_stream(daemon, trial + 1)
            dead = DeadStream(fate)
            network.judge_commands(dead.judge)
            assert dead.silent.wait(LATEST_SECONDS)
            expired_at = expire(explorer, pool)
            (gone,) = ledger.wait_for_decommissions(pool.workload_ids, within_seconds=LATEST_SECONDS)
            late.append(gone.committed_at - expired_at)
            wait_for_stream(daemon, trial + 2)
            network.heal()
    violations = ledger.violations()
    figures.record(
        17,
        f"stream half open, {named(fate)} vanish",
        trials=trials,
        violations=violations,
        figure=f"a change is acted on within {max(late):.1f} s (time-out 2 s)",
    )
    assert violations == []


@pytest.mark.parametrize(
    ("direction", "trials", "count"),
    [
        (Direction.REPLIES, 1, 1_000),
        *(pytest.param(direction, 4, 1_000, marks=pytest.mark.faults) for direction in Direction),
    ],
)
def test_17_connections_that_are_half_open_in_a_storm_are_given_up(
    direction: Direction,
    trials: int,
    count: int,
    explorer: Explorer,
    ledger: Ledger,
    network: Proxy,
    figures: Figures,
) -> None:
    """What the server has begun for the daemon and hears no more of, it gives up by itself: after 60 s, here 2."""
    late: list[float] = []
    with (
        transactions_expiring(explorer.database.client, after_seconds=2),
        daemon_on(network.uri, explorer, **STORM, **IMPATIENT, EXPIRY__BATCH_WORKLOADS="5") as daemon,
    ):
        ledger.settle()
        for _ in range(trials):
            storm = overdue(explorer, count)
            wait_until(lambda: explorer.running() < count, within_seconds=LATEST_SECONDS, what="the storm to begin")
            network.swallow(direction)
            assert explorer.running() > 0, "the storm was over before the connections died"
            complaints = len(daemon.complaints())
            wait_until(
                lambda: len(daemon.complaints()) > complaints,  # noqa: B023  # called in this round only
                within_seconds=LATEST_SECONDS,
                what="a complaint",
            )
            network.heal()
            healed_at = time.time()
            explorer.wait_until_gone(ids_of(storm), within_seconds=LATEST_SECONDS)
            late.append(ledger.read().decommissions[-1].committed_at - healed_at)
    violations = ledger.violations()
    figures.record(
        17,
        f"all half open, {direction.name.lower()} vanish",
        trials=trials,
        violations=violations,
        figure=f"all was done within {max(late):.1f} s of its end (time-out 1 s)",
    )
    assert violations == []


def named(fate: Fate) -> str:
    return "requests" if fate is Fate.SWALLOW_REQUEST else "replies"
