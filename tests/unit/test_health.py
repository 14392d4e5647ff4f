"""Alive, started, ready: what each state of the daemon comes to."""

from dataclasses import replace

import pytest
from telemetry_scene import PATIENCE, make_ready, new_observer
from virtual_clock import VirtualClock

from pool_daemon.errors import StoreError
from pool_daemon.expiry.pass_report import PassOutcome, PassReport
from pool_daemon.guards.gate import Closed
from pool_daemon.guards.leadership import Role
from pool_daemon.store.quarantine import Quarantined
from pool_daemon.telemetry.health import StalenessLimits, headline, liveness, readiness, startup
from pool_daemon.telemetry.observer import Observer
from pool_daemon.telemetry.snapshot import (
    Clocks,
    Decommissions,
    FinishedPass,
    OnHold,
    Snapshot,
    Stream,
    StreamState,
    Undone,
)

NOW = 1_700_000_000.0


def snapshot(**changes: object) -> Snapshot:
    observer = new_observer(VirtualClock(NOW))
    make_ready(observer)
    return replace(observer.status.snapshot, **changes)  # type: ignore[arg-type] # each test names fields that exist


TICK = snapshot().beat_monotonic
FAILED = FinishedPass(NOW, 5, PassOutcome.FAILED, reason="not primary")

SETTLED = (Decommissions(TICK - 590, TICK - 570, 30, 60), Decommissions(TICK - 10, TICK - 4, 20, 80))


@pytest.mark.parametrize(
    ("changes", "problems"),
    [
        pytest.param({}, [], id="all is well"),
        pytest.param({"role": Role.STANDBY, "term": None}, [], id="a standby is ready"),
        pytest.param({"role": Role.STARTING}, [], id="as is one that knows no leader"),
        pytest.param({"stopping": True}, ["is stopping"], id="stopping"),
        pytest.param({"database_monotonic": None}, ["waits for MongoDB"], id="never reached"),
        pytest.param({"database_monotonic": TICK - 30}, [], id="database answered just in time"),
        pytest.param({"database_monotonic": TICK - 31}, ["MongoDB last answered 31 s ago"], id="database silent"),
        pytest.param({"completed_monotonic": None}, ["waits for the first pass"], id="catching up"),
        pytest.param({"failures": 2, "passes": (FAILED,)}, [], id="two failures are an election"),
        pytest.param(
            {"failures": 3, "passes": (FAILED,)}, ["3 passes failed in a row: not primary"], id="three are not"
        ),
        pytest.param({"progress_monotonic": TICK - 151}, ["no pass has come on for 151 s"], id="a dead timer"),
        pytest.param({"completed_monotonic": TICK - 9999}, [], id="a long pass that comes on"),
        pytest.param({"stream": Stream()}, ["waits for the change stream"], id="no stream yet"),
        pytest.param({"stream": Stream(StreamState.CLOSED, TICK - 5)}, [], id="a stream just lost"),
        pytest.param(
            {"stream": Stream(StreamState.CLOSED, TICK - 41)},
            ["the change stream is silent for 41 s"],
            id="stream lost",
        ),
        pytest.param(
            {"stream": Stream(StreamState.OPEN, TICK - 41)}, ["the change stream is silent for 41 s"], id="stream dead"
        ),
        pytest.param({"stream": Stream(StreamState.CLOSED, TICK - 35, TICK - 30)}, [], id="a stream away as briefly"),
        pytest.param(
            {"stream": Stream(StreamState.CLOSED, TICK - 35, TICK - 31, reason="no privilege")},
            ["the change stream has been closed for 31 s: no privilege"],
            id="a stream away for too long",
        ),
        pytest.param({"clocks": None}, ["waits for a look at the database's clock"], id="clocks not compared"),
        pytest.param(
            {"clocks": Clocks(-4.2, agree=False, compared_monotonic=TICK)},
            ["this machine's clock and the database's are 4.200 s apart"],
            id="clocks apart",
        ),
        pytest.param({"lease_monotonic": None}, ["waits for somebody to hold the lease"], id="no lease yet"),
        pytest.param({"lease_monotonic": TICK - 30}, [], id="a lease that may just be changing hands"),
        pytest.param(
            {"lease_monotonic": TICK - 31}, ["nobody is known to have held the lease for 31 s"], id="nobody acts"
        ),
        pytest.param({"holds": (OnHold("brake", "too many", NOW),)}, [], id="a brake is for people, not for probes"),
        pytest.param({"beat_monotonic": TICK - 9999}, [], id="the loop is liveness's business"),
    ],
)
def test_readiness(changes: dict[str, object], problems: list[str]) -> None:
    health = readiness(snapshot(**changes), TICK, PATIENCE)
    assert health.problems == problems
    assert health.is_good == (not problems)


def test_a_pass_that_a_gate_holds_cures_nothing() -> None:
    observer = new_observer(VirtualClock(NOW))
    make_ready(observer)
    for _ in range(3):
        observer.pass_failed(StoreError("no space left on device"), seconds=1, retry_seconds=1)
    observer.role_seen(Role.STANDBY, term=7, leader=None)
    hold(observer)
    assert readiness(observer.status.snapshot, TICK, PATIENCE).problems == [
        "3 passes failed in a row: no space left on device"
    ]


def test_the_failures_of_a_leader_end_when_another_daemon_acts() -> None:
    observer = new_observer(VirtualClock(NOW))
    make_ready(observer)
    for _ in range(3):
        observer.pass_failed(StoreError("no space left on device"), seconds=1, retry_seconds=1)
    observer.role_seen(Role.STANDBY, leader="host-2:1:ff")
    assert readiness(observer.status.snapshot, TICK, PATIENCE).is_good
    observer.pass_failed(StoreError("not primary"), seconds=1, retry_seconds=1)
    hold(observer)
    assert observer.status.snapshot.failures == 0


def hold(observer: Observer) -> None:
    observer.pass_finished(PassReport(cut_short_by=Closed.STANDBY), seconds=0.01)


@pytest.mark.parametrize(
    ("changes", "alive"),
    [
        ({"beat_monotonic": TICK}, True),
        ({"beat_monotonic": TICK - 30}, True),
        ({"beat_monotonic": TICK - 31}, False),
        ({"database_monotonic": None, "clocks": None, "stream": Stream(), "completed_monotonic": None}, True),
        ({"stopping": True}, True),
    ],
)
def test_liveness_is_the_loops_heartbeat_and_nothing_else(changes: dict[str, object], alive: bool) -> None:  # noqa: FBT001 - a column
    assert liveness(snapshot(**changes), TICK).is_good == alive


@pytest.mark.parametrize(
    ("changes", "problems"),
    [
        ({}, []),
        ({"indexes_made": False}, ["waits for indexes"]),
        ({"indexes_made": False, "database_monotonic": None}, ["waits for MongoDB", "waits for indexes"]),
        ({"indexes_made": False, "started_monotonic": TICK - 60}, ["waits for indexes"]),
        ({"indexes_made": False, "started_monotonic": TICK - 61}, []),
        ({"database_monotonic": TICK - 9999, "completed_monotonic": None}, []),
    ],
)
def test_a_start_is_over_once_the_database_was_reached_and_has_its_indexes(
    changes: dict[str, object], problems: list[str]
) -> None:
    assert startup(snapshot(**changes), TICK).problems == problems


def test_a_probe_is_answered_check_by_check() -> None:
    text = readiness(snapshot(clocks=None), TICK, PATIENCE).as_text()
    assert text.splitlines()[0] == "+ running: ok"
    assert text.splitlines()[-2] == "- clocks: waits for a look at the database's clock"


def test_what_is_configured_to_be_silent_is_given_time() -> None:
    staleness_limits = StalenessLimits.of(stall_seconds=100, max_sleep_seconds=3600, lease_seconds=20)
    assert staleness_limits == StalenessLimits(
        database_seconds=15, stream_seconds=110, passes_seconds=7230, lease_seconds=20
    )


def test_without_a_lease_nobody_has_to_hold_it() -> None:
    staleness_limits = StalenessLimits.of(stall_seconds=30, max_sleep_seconds=60, lease_seconds=None)
    assert readiness(snapshot(lease_monotonic=None), TICK, staleness_limits).is_good


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "nothing is known to fall due"),
        ({"next_at": NOW}, "armed for 2023-11-14 22:13:20 UTC"),
        ({"next_at": NOW, "next_pool_id": 17}, "armed for 2023-11-14 22:13:20 UTC, when pool 17 runs empty"),
        ({"next_at": 2.0**62, "next_pool_id": 17}, "armed for 4611686018427387904, when pool 17 runs empty"),
        (
            {"role": Role.STANDBY, "leader": "host-2:1:ff"},
            "stands by for host-2:1:ff; nothing is known to fall due",
        ),
        ({"role": Role.STANDBY, "leader": None}, "stands by; nothing is known to fall due"),
        ({"role": Role.DRY_RUN}, "only looks on; nothing is known to fall due"),
        ({"database_monotonic": None, "clocks": None}, "waits for: database, clocks"),
        (
            {"holds": (OnHold("clock", "it has stepped", NOW),)},
            "held by the clock: it has stepped; nothing else is known to fall due",
        ),
        (
            {"holds": (OnHold("brake", "a backup", NOW, 500),), "next_at": NOW},
            "500 pools held by the brake: a backup; armed for 2023-11-14 22:13:20 UTC",
        ),
        (
            {
                "quarantined": 1,
                "quarantine": (Quarantined(17, "poison", 5, 0, 60, "me"),),
                "database_monotonic": None,
            },
            "1 pool in quarantine: poison; waits for: database",
        ),
        (
            {"undone": (Undone("failing", 3, TICK),), "failures": 1, "passes": (FAILED,)},
            "passes fail: not primary; 3 pools failing: see the log; nothing else is known to fall due",
        ),
        (
            {"lately_decommissioned": SETTLED, "quarantined": 1},
            (
                "1 pool in quarantine: see `pool-daemon quarantine list`; "
                "80 workloads of 20 pools decommissioned in the last 5 minutes; nothing else is known to fall due"
            ),
        ),
        ({"http_problem": "taken"}, "no HTTP: taken; nothing is known to fall due"),
        (
            {"settings_problem": "log.level: loud"},
            "settings refused, the old ones stay in force: log.level: loud; nothing is known to fall due",
        ),
        ({"in_grace": 99}, "nothing is known to fall due"),
        ({"in_grace": 1234}, "at least 100 pools are in grace; nothing is known to fall due"),
        ({"stopping": True, "database_monotonic": None}, "stopping"),
    ],
)
def test_one_line_says_what_the_daemon_waits_for(changes: dict[str, object], line: str) -> None:
    assert headline(snapshot(**changes), TICK, PATIENCE) == line


def test_the_line_does_not_change_with_time_alone() -> None:
    now = snapshot(next_at=NOW + 60, database_monotonic=None)
    assert headline(now, TICK, PATIENCE) == headline(now, TICK + 3, PATIENCE)


LONG_AGO = TICK - 121


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        pytest.param({}, None, id="nothing is undone"),
        pytest.param({"undone": (Undone("quarantine", 1, LONG_AGO),)}, None, id="one faulty document"),
        pytest.param(
            {"undone": (Undone("quarantine", 2, LONG_AGO),), "quarantined": 2},
            "2 pools due and undone for minutes, 0 settled: 2 pools in quarantine: see `pool-daemon quarantine list`",
            id="nothing but the quarantine",
        ),
        pytest.param({"undone": (Undone("quarantine", 99, TICK - 119),)}, None, id="not for minutes yet"),
        pytest.param(
            {
                "undone": (Undone("quarantine", 20, LONG_AGO), Undone("failing", 29, LONG_AGO)),
                "lately_decommissioned": SETTLED,
            },
            None,
            id="less than half",
        ),
        pytest.param(
            {
                "undone": (Undone("brake", 20, LONG_AGO), Undone("failing", 30, LONG_AGO)),
                "holds": (OnHold("brake", "a backup", NOW, 20),),
                "lately_decommissioned": SETTLED,
            },
            "50 pools due and undone for minutes, 50 settled: 20 pools held by the brake: a backup; "
            "30 pools failing: see the log",
            id="half of it, for two reasons",
        ),
        pytest.param(
            {
                "undone": (Undone("brake", 2, LONG_AGO),),
                "lately_decommissioned": (Decommissions(TICK - 601, TICK - 601, 50, 50),),
                "quarantined": 0,
            },
            "2 pools due and undone for minutes, 0 settled: see the log",
            id="what was settled long ago does not count",
        ),
        pytest.param(
            {"undone": (Undone("brake", 99, LONG_AGO),), "role": Role.STANDBY}, None, id="another daemon's to do"
        ),
    ],
)
def test_a_daemon_is_not_ready_while_half_of_what_it_has_to_do_stays_undone(
    changes: dict[str, object], problem: str | None
) -> None:
    problems = readiness(snapshot(**changes), TICK, PATIENCE).problems
    assert problems == ([] if problem is None else [problem])
