"""The round around the pass: whatever a pass does, the alarm is armed after it."""

import asyncio
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from pool_daemon.clock import SystemClock
from pool_daemon.errors import StoreUnavailableError
from pool_daemon.expiry.expiry_pass import PassReport
from pool_daemon.scheduling.alarm import Alarm
from pool_daemon.scheduling.gate import STOPPING
from pool_daemon.scheduling.rounds import Rounds
from pool_daemon.telemetry.observer import Observer
from pool_daemon.telemetry.snapshot import PassOutcome


class Passes:
    """Stands in for the expirer: each pass does the next thing it was given, and the last of them stops the rounds."""

    def __init__(self, *outcomes: PassReport | Exception, meanwhile: Callable[[Alarm], None] | None = None) -> None:
        self.stop = asyncio.Event()
        self.made = 0
        self.alarm = Alarm(clock=SystemClock(), safety_seconds=60)
        self.observer = Observer(identity="me", version="0", clock=SystemClock())
        self._outcomes = outcomes
        self._meanwhile = meanwhile

    async def run_pass(self, _now: int) -> PassReport:
        outcome = self._outcomes[self.made]
        self.made += 1
        if self._meanwhile is not None and self.made == 1:
            self._meanwhile(self.alarm)
        if self.made == len(self._outcomes):
            self.stop.set()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


async def go_round(passes: Passes, *, within_seconds: float = 5) -> Alarm:
    alarm = passes.alarm
    alarm.start()
    rounds = Rounds(
        expirer=passes,  # type: ignore[arg-type] # it has the one method that is called
        alarm=alarm,
        clock=SystemClock(),
        stop=passes.stop,
        observer=passes.observer,
    )
    running = asyncio.create_task(rounds.run())
    stopped = asyncio.create_task(passes.stop.wait())
    async with asyncio.timeout(within_seconds):
        await stopped
        alarm.wake()
        await running
    alarm.stop()
    return alarm


@pytest.mark.parametrize("error", [StoreUnavailableError("away"), ValueError("a bug")])
async def test_after_a_pass_that_failed_the_next_comes_soon_and_by_itself(error: Exception) -> None:
    passes = Passes(error, error, PassReport())
    with capture_logs() as logs:
        await go_round(passes)
    assert passes.made == 3
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["pass_failed", "pass_failed"]


async def test_the_alarm_is_armed_for_what_the_pass_found_next() -> None:
    later = int(SystemClock().now()) + 40
    alarm = await go_round(Passes(PassReport(next_at=later, next_pool_id=7)))
    assert (alarm.deadline, alarm.pool_id) == (later, 7)


async def test_a_deadline_reached_meanwhile_brings_the_next_pass_at_once() -> None:
    passes = Passes(PassReport(next_at=int(SystemClock().now())), PassReport())
    await go_round(passes)
    assert passes.made == 2


async def test_a_wake_that_comes_during_a_pass_brings_another_at_once() -> None:
    """What woke may have changed after the pass had read it."""
    passes = Passes(PassReport(), PassReport(), meanwhile=Alarm.wake)
    await go_round(passes)
    assert passes.made == 2


async def test_a_deadline_heard_of_during_a_pass_is_not_lost_to_a_later_one_that_the_pass_had_read() -> None:
    now = SystemClock().now()
    passes = Passes(PassReport(next_at=int(now) + 50), PassReport(), meanwhile=lambda alarm: alarm.expect(now + 30))
    await go_round(passes)
    assert passes.made == 2


async def test_it_says_once_that_a_gate_has_closed_and_once_that_it_has_opened() -> None:
    closed = PassReport(cut_short_by="standby", next_at=1)
    opened = PassReport(next_at=1)
    with capture_logs() as logs:
        await go_round(Passes(closed, closed, opened, opened))
    said = [entry["event"] for entry in logs if entry["event"] in {"acting", "not_acting"}]
    assert said == ["not_acting", "acting"]


async def test_the_first_pass_says_that_the_daemon_acts() -> None:
    with capture_logs() as logs:
        await go_round(Passes(PassReport(next_at=1), PassReport(next_at=1)))
    assert [entry["event"] for entry in logs if entry["event"] in {"acting", "not_acting"}] == ["acting"]


@pytest.mark.parametrize(
    ("cut_short_by", "outcome"),
    [
        (None, PassOutcome.COMPLETED),
        ("clocks apart", PassOutcome.HELD),
        ("standby", PassOutcome.HELD),
        (STOPPING, PassOutcome.STOPPED),
    ],
)
async def test_a_pass_that_a_closed_gate_cut_short_has_not_completed(
    cut_short_by: str | None, outcome: PassOutcome
) -> None:
    passes = Passes(PassReport(cut_short_by=cut_short_by, next_at=1))
    await go_round(passes)
    last = passes.observer.status.snapshot.last_pass
    assert last is not None
    assert (last.outcome, last.reason) == (outcome, cut_short_by)
