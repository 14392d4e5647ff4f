"""Told to stop in the middle of a storm, a daemon finishes what it has in hand, hands over, and exits with 0."""

import random
import threading
import time
from contextlib import ExitStack

import pytest
from daemon_process import DaemonProcess
from deadline import wait_for_instant, wait_until
from explorer import Explorer
from faults.daemons import STORM, daemon_on, wait_for_indexes
from faults.figures import Figures
from faults.pools import overdue
from faults.proxy import Command, Fate, Proxy
from faults.transactions import open_transactions
from ledger import Ledger

IN_SMALL_STEPS = STORM | {"EXPIRY__BATCH_WORKLOADS": "20"}

DRAIN_SECONDS = 20
"""What `expiry.drain_seconds` is unless the settings say otherwise."""

LONGEST_LIFE_SECONDS = 0.2
"""From the first batch of a storm on; the storm lasts longer."""

DONE_SECONDS = 60

TRIP_SECONDS = 0.2
"""How long a message takes where a batch is to be in hand for long enough."""


class Witness:
    """Sees which batches were in hand when the daemon was told to stop, and which of those were committed after that.

    `writing` is set as soon as there are several, and one of them is being written. A batch is known by its session.
    """

    def __init__(self) -> None:
        self.writing = threading.Event()
        self.in_hand: frozenset[bytes] = frozenset()
        self.committed: set[bytes] = set()
        self._begun: set[bytes] = set()

    def judge(self, command: Command) -> Fate:
        """Watch; everything passes."""
        body = command.body
        if "autocommit" not in body:
            return Fate.PASS
        session = bytes(body["lsid"]["id"])
        if command.name == "commitTransaction":
            self._begun.discard(session)
            self.committed.add(session)
        else:
            self._begun.add(session)
        if command.name == "update" and len(self._begun) > 1:
            self.writing.set()
        return Fate.PASS

    def told_to_stop(self) -> None:
        """Note what is in hand now; what was committed before does not count."""
        self.committed.clear()
        self.in_hand = frozenset(self._begun)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("trials", "count"), [(1, 2_000), pytest.param(6, 2_000, marks=pytest.mark.faults)])
def test_21_a_daemon_that_is_stopped_in_a_storm_leaves_the_rest_to_the_next(
    trials: int,
    count: int,
    explorer: Explorer,
    ledger: Ledger,
    mongo_uri: str,
    chance: random.Random,
    figures: Figures,
) -> None:
    """The next stands by already, as in a rolling upgrade, and stands still until it is seen what is left open."""
    left_open: set[bytes] = set()
    stopped_after: list[float] = []
    taken_over_after: list[float] = []
    with ExitStack() as daemons:

        def launched(event: str) -> DaemonProcess:
            process = DaemonProcess(uri=mongo_uri, database_name=explorer.database.name, **IN_SMALL_STEPS)
            daemon = daemons.enter_context(process)
            wait_until(lambda: daemon.said(event), within_seconds=DONE_SECONDS, what=event)
            return daemon

        daemon = launched("lease_acquired")
        for _ in range(trials):
            relief = launched("standby")
            overdue(explorer, count - explorer.running())
            wait_until(lambda: explorer.running() < count, within_seconds=DONE_SECONDS, what="the storm to begin")
            wait_for_instant(time.time() + chance.uniform(0, LONGEST_LIFE_SECONDS))
            assert explorer.running() > 0, "the storm was over before the daemon was stopped"
            asked_at = time.monotonic()
            with relief.frozen():
                daemon.stop()
                stopped_after.append(time.monotonic() - asked_at)
                left_open |= open_transactions(explorer.database.client)
            wait_until(
                lambda: relief.said("lease_acquired"),  # noqa: B023  # called in this round only
                within_seconds=DONE_SECONDS,
                what="the next to take over",
            )
            taken_over_after.append(time.monotonic() - asked_at)
            assert daemon.said("lease_released")
            daemon = relief
        wait_until(lambda: explorer.running() == 0, within_seconds=DONE_SECONDS, what="the storm to be over")
        daemon.stop()
    violations = ledger.violations()
    figures.record(
        21,
        "SIGTERM in a storm",
        trials=trials,
        violations=violations,
        figure=f"exit 0 within {max(stopped_after):.2f} s, the next took over within {max(taken_over_after):.2f} s",
    )
    assert violations == []
    assert left_open == set()
    assert max(stopped_after) < DRAIN_SECONDS


def test_21_what_is_in_hand_when_the_stop_comes_is_finished(
    explorer: Explorer, ledger: Ledger, network: Proxy, figures: Figures
) -> None:
    """The network is slow, so that batches are sure to be under way; all that comes after them is left alone."""
    count = 150
    witness = Witness()
    with daemon_on(network.uri, explorer):
        wait_for_indexes(explorer)
    network.delay(TRIP_SECONDS)
    network.judge_commands(witness.judge)
    overdue(explorer, count)
    with DaemonProcess(uri=network.uri, database_name=explorer.database.name, **IN_SMALL_STEPS) as daemon:
        assert witness.writing.wait(DONE_SECONDS)
        witness.told_to_stop()
        asked_at = time.monotonic()
        daemon.stop()
        stopped_after = time.monotonic() - asked_at
    left_open = open_transactions(explorer.database.client)
    left_running = explorer.running()
    network.heal()
    with daemon_on(network.uri, explorer, **STORM):
        wait_until(lambda: explorer.running() == 0, within_seconds=DONE_SECONDS, what="the next to do the rest")
    violations = ledger.violations()
    figures.record(
        21,
        "SIGTERM while batches are written",
        trials=1,
        violations=violations,
        figure=f"all that was in hand was committed, exit 0 within {stopped_after:.2f} s",
    )
    assert witness.in_hand
    assert witness.in_hand <= witness.committed
    assert 0 < left_running < count
    assert left_open == set()
    assert violations == []
