"""What systemd hears, on a socket like its own."""

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from deadline import until
from telemetry_scene import PATIENCE, make_ready
from virtual_clock import NOW, VirtualClock

from pool_daemon.clock import SystemClock
from pool_daemon.guards.leadership import Role
from pool_daemon.telemetry.heartbeat import TICK_SECONDS, Heartbeat, Notifier
from pool_daemon.telemetry.observer import Observer


class Manager:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, line: socket.socket, address: str) -> None:
        line.settimeout(0)
        self._line = line
        self.environ = {"NOTIFY_SOCKET": address}

    def heard(self) -> list[dict[str, str]]:
        """Take what has arrived, one mapping a message."""
        messages: list[dict[str, str]] = []
        while True:
            try:
                text = self._line.recv(4096).decode()
            except BlockingIOError:
                return messages
            messages.append(dict(line.split("=", 1) for line in text.split("\n")))


@pytest.fixture(params=["file", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    name = str(tmp_path / "notify") if request.param == "file" else f"@pool-daemon-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(name.replace("@", "\0"))
        yield Manager(line, name)


def heartbeat(observer: Observer, clock: VirtualClock, **environ: str) -> Heartbeat:
    return Heartbeat(observer=observer, staleness_limits=lambda: PATIENCE, notifier=Notifier(environ), clock=clock)


def test_every_message_has_the_words_of_the_protocol(manager: Manager) -> None:
    notifier = Notifier(manager.environ)
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert notifier.ready("armed")
    assert notifier.waiting("waits for: database", patience_seconds=60)
    assert notifier.status("standing by")
    assert notifier.alive()
    assert notifier.reloading()
    assert notifier.stopping()
    ready, waiting, status, alive, reloading, stopping = manager.heard()
    assert ready == {"READY": "1", "STATUS": "armed"}
    assert waiting == {"STATUS": "waits for: database", "EXTEND_TIMEOUT_USEC": "60000000"}
    assert status == {"STATUS": "standing by"}
    assert alive == {"WATCHDOG": "1"}
    assert reloading["RELOADING"] == "1"
    assert before <= int(reloading["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert stopping == {"STOPPING": "1", "STATUS": "stopping"}


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"WATCHDOG_USEC": "1000000"}])
def test_without_systemd_nothing_happens(environ: dict[str, str]) -> None:
    notifier = Notifier(environ)
    assert notifier.ready("armed")
    assert notifier.watchdog_seconds is None


def test_a_manager_that_has_gone_is_no_reason_to_fail(tmp_path: Path) -> None:
    assert not Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).ready("armed")


@pytest.mark.parametrize(
    ("watchdog", "seconds"),
    [
        ({"WATCHDOG_USEC": "10000000"}, 5.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": str(os.getpid())}, 5.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "often"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_fed_at_half_of_its_time_if_it_is_ours(
    manager: Manager, watchdog: dict[str, str], seconds: float | None
) -> None:
    assert Notifier(manager.environ | watchdog).watchdog_seconds == seconds


def test_a_start_that_waits_for_its_database_is_not_given_up(
    manager: Manager, observer: Observer, clock: VirtualClock
) -> None:
    pulse = heartbeat(observer, clock, **manager.environ)
    for _ in range(240):
        clock.pass_time(0.5)
        pulse.beat(0.0)
    heard = manager.heard()
    without = "waits for: database, catch-up, stream, clocks, lease"  # indexes are not waited for for ever
    assert {message["STATUS"] for message in heard} == {without.replace("database", "database, indexes"), without}
    assert all(int(message["EXTEND_TIMEOUT_USEC"]) == 60_000_000 for message in heard)
    assert 4 <= len(heard) <= 5


def test_the_start_is_over_once_and_then_only_news_is_told(
    manager: Manager, observer: Observer, clock: VirtualClock
) -> None:
    pulse = heartbeat(observer, clock, **manager.environ)
    pulse.beat(0.0)
    make_ready(observer)
    for _ in range(3):
        pulse.beat(0.0)
    observer.armed(NOW, pool_id=17)
    for _ in range(3):
        pulse.beat(0.0)
    _, ready, armed = manager.heard()
    assert ready == {"READY": "1", "STATUS": "nothing is known to fall due"}
    assert armed == {"STATUS": "armed for 2023-11-14 22:13:20 UTC, when pool 17 runs empty"}


def test_a_start_that_nobody_heard_of_is_told_again(observer: Observer, clock: VirtualClock, tmp_path: Path) -> None:
    make_ready(observer)
    pulse = heartbeat(observer, clock, NOTIFY_SOCKET=str(tmp_path / "notify"))
    pulse.beat(0.0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(str(tmp_path / "notify"))
        pulse.beat(0.0)
        assert line.recv(4096).startswith(b"READY=1\n")


def test_every_beat_feeds_the_watchdog_in_time(manager: Manager, observer: Observer, clock: VirtualClock) -> None:
    make_ready(observer)
    pulse = heartbeat(observer, clock, WATCHDOG_USEC="10000000", **manager.environ)
    fed = []
    for _ in range(60):
        pulse.beat(0.0)
        if any("WATCHDOG" in message for message in manager.heard()):
            fed.append(clock.now())
        clock.pass_time(0.5)
    gaps = [later - earlier for earlier, later in pairwise(fed)]
    assert len(fed) >= 6
    assert max(gaps) <= 5


async def test_a_loop_that_stood_still_is_measured(observer: Observer) -> None:
    clock = SystemClock()
    pulse = Heartbeat(observer=observer, staleness_limits=lambda: PATIENCE, notifier=Notifier({}), clock=clock)
    began_monotonic = clock.monotonic()
    beating = asyncio.create_task(pulse.run())
    await asyncio.sleep(0)  # the first beat is due in half a second
    time.sleep(1)  # noqa: ASYNC251 - what is being tried
    await until(lambda: measured(observer, "count"), within_seconds=5, what="a beat")
    beating.cancel()
    assert 0.4 < measured(observer, "sum") <= clock.monotonic() - began_monotonic - TICK_SECONDS


def measured(observer: Observer, what: str) -> float:
    lag = observer.metrics.registry.get_sample_value(f"pool_daemon_event_loop_lag_seconds_{what}")
    assert lag is not None
    return lag


class Lease:
    """Who leads, as far as a test says."""

    def __init__(self) -> None:
        self.term: int | None = 3
        self.holder: str | None = "me"
        self.held_monotonic: float | None = 5000.0
        self.role = Role.LEADER


def test_leadership_that_ends_by_itself_is_seen_with_the_next_beat(observer: Observer, clock: VirtualClock) -> None:
    lease = Lease()
    pulse = Heartbeat(
        observer=observer, staleness_limits=lambda: PATIENCE, notifier=Notifier({}), clock=clock, leadership=lease
    )
    pulse.beat(0.0)
    assert observer.status.snapshot.role == "leader"
    lease.role, lease.term, lease.holder = Role.STANDBY, None, "other"
    pulse.beat(0.0)
    assert (observer.status.snapshot.role, observer.status.snapshot.leader) == ("standby", "other")
    assert observer.status.snapshot.lease_monotonic == 5000


def test_without_a_lease_a_daemon_acts(observer: Observer, clock: VirtualClock) -> None:
    heartbeat(observer, clock).beat(0.0)
    now = observer.status.snapshot
    assert (now.role, now.term) == ("leader", None)
    assert [event.text for event in now.events] == ["acts without a lease"]
