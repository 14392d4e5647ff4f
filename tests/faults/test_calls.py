"""Each call of a pass to the database goes wrong in turn: it fails, its answer is lost, it hangs."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple

import pytest
from arithmetic_model import Document, Rates
from daemon_process import DaemonProcess
from explorer import CONTAINER, Explorer
from fail_point import APP_NAME
from faults.daemons import IMPATIENT, daemon_on
from faults.figures import Figures
from faults.proxy import Command, Fate, Proxy
from ledger import Ledger
from pymongo import MongoClient

Client = MongoClient[Document]

NOT_OF_A_PASS = frozenset({"pool-daemon-lease", "$cmd.aggregate"})
WRITES = frozenset({"update", "commitTransaction"})

LEAD_SECONDS = 0.3
"""The pools of a trial are created at least so long before the first of them runs empty."""

PASS_SECONDS = 0.9
"""In this time the pass is looked for: it ends before the second pool of a trial runs empty."""

LATEST_SECONDS = 20
"""Nothing that goes wrong once may delay a pool by more; what it was is in the table."""

SETTINGS = IMPATIENT | {"LOG__LEVEL": "debug"}


class Fault(NamedTuple):
    """What happens to a call: a fate on the network, or an error of the server's."""

    name: str
    fate: Fate
    error_code: int | None = None


AWAY = Fault("error 50, too slow", Fate.PASS, 50)
WRONG = Fault("error 8, unknown", Fate.PASS, 8)
ANSWER_CUT_OFF = Fault("reply lost, connection cut", Fate.CUT_REPLY)
ANSWER_SWALLOWED = Fault("reply lost in silence", Fate.SWALLOW_REPLY)
HANGS = Fault("hanging call", Fate.SWALLOW_REQUEST)


class Call(NamedTuple):
    """A call of a pass: what it is, and the how-many-eth of its kind in this pass."""

    name: str
    collection: str | None
    number: int


class Aim:
    """Lets the first call of a pass that is not among the `spared` go wrong; the pass begins at `begins_at`."""

    def __init__(
        self, fault: Fault, counts: Callable[[Command], bool], *, begins_at: float, spared: set[Call], mongo: Client
    ) -> None:
        self._fault = fault
        self._counts = counts
        self._begins_at = begins_at
        self._spared = spared
        self._mongo = mongo
        self._seen: Counter[tuple[str, str | None]] = Counter()
        self.hit: Call | None = None
        self.hit_at = 0.0

    def judge(self, command: Command) -> Fate:
        """Give a command its fate."""
        is_in_time = self._begins_at <= time.time() < self._begins_at + PASS_SECONDS
        if self.hit or not is_in_time or not self._counts(command):
            return Fate.PASS
        kind = (command.name, command.collection)
        self._seen[kind] += 1
        call = Call(*kind, self._seen[kind])
        if call in self._spared:
            return Fate.PASS
        self.hit, self.hit_at = call, time.time()
        if self._fault.error_code is not None:
            fail_once(self._mongo, command.name, self._fault.error_code)
        return self._fault.fate


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("fault", "most"),
    [(AWAY, 1), *(pytest.param(fault, math.inf, marks=pytest.mark.faults) for fault in (AWAY, WRONG))],
)
def test_3_whichever_call_of_a_pass_fails_there_is_another_pass(
    fault: Fault, most: float, explorer: Explorer, ledger: Ledger, mongo: Client, network: Proxy, figures: Figures
) -> None:
    """The second pool is due a second after the first: it is missed if the timer is not armed after the error."""
    with daemon_on(network.uri, explorer, **SETTINGS) as daemon:
        trials = Trials(daemon, explorer, ledger, network, mongo)
        trials.run(fault, is_of_a_pass, most=most, pools=2)
    violations = ledger.violations()
    figures.record(
        3,
        f"a call fails: {fault.name}",
        trials=len(trials.hit),
        violations=violations,
        figure=f"the next pass was over {trials.largest_gap_seconds:.2f} s later at most; "
        f"pools late by {trials.latest_seconds:.2f} s at most",
    )
    assert violations == []


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("fault", "most"),
    [
        (ANSWER_CUT_OFF, 1),
        *(pytest.param(fault, math.inf, marks=pytest.mark.faults) for fault in (ANSWER_CUT_OFF, ANSWER_SWALLOWED)),
    ],
)
def test_6_a_write_whose_answer_is_lost_happens_once(
    fault: Fault, most: float, explorer: Explorer, ledger: Ledger, mongo: Client, network: Proxy, figures: Figures
) -> None:
    with daemon_on(network.uri, explorer, **SETTINGS) as daemon:
        trials = Trials(daemon, explorer, ledger, network, mongo)
        trials.run(fault, is_write_of_a_pass, most=most)
    violations = ledger.violations()
    figures.record(
        6,
        f"a write is done, its {fault.name}",
        trials=len(trials.hit),
        violations=violations,
        figure=f"late by {trials.latest_seconds:.2f} s at most",
    )
    assert violations == []


@pytest.mark.timeout(400)
@pytest.mark.faults
def test_8_a_call_that_hangs_is_given_up(
    explorer: Explorer, ledger: Ledger, mongo: Client, network: Proxy, figures: Figures
) -> None:
    with daemon_on(network.uri, explorer, **SETTINGS) as daemon:
        trials = Trials(daemon, explorer, ledger, network, mongo)
        trials.run(HANGS, is_of_a_pass)
    violations = ledger.violations()
    figures.record(
        8,
        "a call hangs, time-out 1 s",
        trials=len(trials.hit),
        violations=violations,
        figure=f"late by {trials.latest_seconds:.2f} s at most",
    )
    assert violations == []


class Trials:
    """Trial after trial on one daemon, each with pools of its own and one call of the pass that deals with them."""

    def __init__(
        self, daemon: DaemonProcess, explorer: Explorer, ledger: Ledger, network: Proxy, mongo: Client
    ) -> None:
        self.hit: set[Call] = set()
        self.latest_seconds = self.largest_gap_seconds = 0.0
        self._daemon = daemon
        self._explorer = explorer
        self._ledger = ledger
        self._network = network
        self._mongo = mongo

    def run(self, fault: Fault, counts: Callable[[Command], bool], *, most: float = math.inf, pools: int = 1) -> None:
        """Let one call after the other go wrong, until a pass has no more of them or `most` of them did."""
        self._ledger.settle()
        while len(self.hit) < most and (call := self._tried(fault, counts, pools)):
            self.hit.add(call)
        assert self.hit

    def _tried(self, fault: Fault, counts: Callable[[Command], bool], pools: int) -> Call | None:
        """Let a call that has not gone wrong yet go wrong; return which, or None if the pass had no such call."""
        bought_at = math.ceil(time.time() + LEAD_SECONDS) - 1
        purchases = [
            self._explorer.draft(Rates(cu=1.5 + number), [CONTAINER], bought_at=bought_at) for number in range(pools)
        ]
        workload_ids = [workload_id for purchase in purchases for workload_id in purchase.workload_ids]
        aim = Aim(fault, counts, begins_at=purchases[0].empty_at, spared=self.hit, mongo=self._mongo)
        with judged(self._network, self._mongo, aim.judge):
            self._explorer.create(purchases)
            gone = self._ledger.wait_for_decommissions(workload_ids, within_seconds=pools + LATEST_SECONDS)
        self.latest_seconds = max(self.latest_seconds, *(each.committed_at - each.pool["empty_at"] for each in gone))
        if aim.hit:
            self._note_gap(aim.hit_at)
        return aim.hit

    def _note_gap(self, hit_at: float) -> None:
        """Find the first pass since then that came to its end."""

        def is_armed_since(record: dict[str, Any]) -> bool:
            return record["event"] == "armed" and instant(record) >= hit_at

        self._daemon.wait_for_log(is_armed_since, within_seconds=LATEST_SECONDS, what="an armed timer")
        armed_at = next(instant(record) for record in self._daemon.records if is_armed_since(record))
        self.largest_gap_seconds = max(self.largest_gap_seconds, armed_at - hit_at)


@contextmanager
def judged(network: Proxy, mongo: Client, judge: Callable[[Command], Fate]) -> Iterator[None]:
    """Judge commands, and leave network and server as they were."""
    network.judge_commands(judge)
    try:
        yield
    finally:
        network.judge_commands(None)
        mongo.admin.command({"configureFailPoint": "failCommand", "mode": "off"})


def fail_once(mongo: Client, command_name: str, error_code: int) -> None:
    """Let the server refuse the daemon's next command of that name, which the network is about to hand over."""
    data = {"failCommands": [command_name], "appName": APP_NAME, "errorCode": error_code}
    mongo.admin.command({"configureFailPoint": "failCommand", "mode": {"times": 1}, "data": data})


def is_of_a_pass(command: Command) -> bool:
    """Tell whether a command may be one of a pass: neither the driver's own, nor the stream's, nor the lease's."""
    if command.name in {"commitTransaction", "killCursors"}:  # the driver asks for the latter, and ignores the answer
        return command.name == "commitTransaction"
    return command.collection is not None and command.collection not in NOT_OF_A_PASS


def is_write_of_a_pass(command: Command) -> bool:
    return command.name in WRITES and is_of_a_pass(command)


def instant(record: dict[str, Any]) -> float:
    """Return when a record was logged, in unix seconds."""
    return datetime.fromisoformat(record["timestamp"]).timestamp()
