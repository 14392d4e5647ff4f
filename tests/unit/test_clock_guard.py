import asyncio

import pytest
from structlog.testing import capture_logs
from virtual_clock import VirtualClock

from pool_daemon.errors import StoreUnavailableError
from pool_daemon.guards.clock_guard import ClockAgreement, ClockGuard, Comparison
from pool_daemon.settings import sections
from pool_daemon.telemetry.observer import Observer

NOW = 1_700_000_000.0
BOUND = 5.0


def nothing() -> None:
    """Happens while the server answers, unless a test has something else in mind."""


class Server:
    """A database on a machine of its own: its clock goes on with time, is off by as much as told, and is asked."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._started_at = clock.now() - clock.monotonic()
        self.ahead_seconds = 0.0
        self.there_seconds = 0.0
        self.back_seconds = 0.0
        self.away = False
        self.asked = asyncio.Event()
        self.times_asked = 0
        self.meanwhile = nothing

    async def now(self) -> float:
        self.times_asked += 1
        self.asked.set()
        if self.away:
            raise StoreUnavailableError("nobody answers")
        self._clock.pass_time(self.there_seconds)
        read = self._started_at + self._clock.monotonic() + self.ahead_seconds
        self._clock.pass_time(self.back_seconds)
        self.meanwhile()
        return read


class RecordingObserver(Observer):
    """Writes down what it is told, too."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(identity="me", version="0", clock=clock)
        self.heard: list[object] = []

    def clocks_compared(self, difference_seconds: float, *, agree: bool) -> None:
        super().clocks_compared(difference_seconds, agree=agree)
        self.heard.append((round(difference_seconds, 3), agree))

    def put_on_hold(self, reason: str, *, detail: str, pools: int | None = None) -> None:
        super().put_on_hold(reason, detail=detail, pools=pools)
        self.heard.append(("held", reason, detail))

    def taken_off_hold(self, reason: str) -> None:
        super().taken_off_hold(reason)
        self.heard.append(("released", reason))


class Scene:
    """A guard with everything around it."""

    def __init__(self, *, check_seconds: float = 3600) -> None:
        self.clock = VirtualClock(NOW)
        self.server = Server(self.clock)
        self.observer = RecordingObserver(self.clock)
        self.times_opened = 0
        self.guard = ClockGuard(
            read_server_clock=self.server.now,
            clock=self.clock,
            settings=sections.Clock(max_difference_seconds=BOUND, check_seconds=check_seconds),
            opened=self._opened,
            observer=self.observer,
        )

    def _opened(self) -> None:
        self.times_opened += 1


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def test_before_the_clocks_were_ever_compared_nothing_may_be_done(scene: Scene) -> None:
    assert scene.guard.closed_by() == "clock unknown"
    scene.server.away = True
    await scene.guard.check()
    assert scene.guard.closed_by() == "clock unknown"


async def test_clocks_that_agree_open_the_gate_and_tell_whoever_waits(scene: Scene) -> None:
    scene.server.ahead_seconds = -BOUND
    with capture_logs() as logs:
        await scene.guard.check()
    assert scene.guard.closed_by() is None
    assert scene.times_opened == 1
    assert [entry["event"] for entry in logs] == ["clock_skew_resolved"]
    await scene.guard.check()
    assert scene.times_opened == 1


@pytest.mark.parametrize("ahead_seconds", [BOUND + 0.1, -BOUND - 0.1, 86_400.0])
async def test_clocks_that_are_apart_hold_with_one_loud_line_until_they_agree(
    scene: Scene, ahead_seconds: float
) -> None:
    await scene.guard.check()
    scene.server.ahead_seconds = ahead_seconds
    with capture_logs() as logs:
        await scene.guard.check()
        await scene.guard.check()
    assert scene.guard.closed_by() == "clocks apart"
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("clock_skew_detected", "error")]
    assert logs[0]["difference_seconds"] == -ahead_seconds
    scene.server.ahead_seconds = 0
    with capture_logs() as logs:
        await scene.guard.check()
    assert scene.guard.closed_by() is None
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("clock_skew_resolved", "info")]
    assert scene.times_opened == 2


async def test_the_observer_hears_the_difference_the_hold_and_its_end(scene: Scene) -> None:
    scene.server.ahead_seconds = 60
    await scene.guard.check()
    scene.server.ahead_seconds = 1
    await scene.guard.check()
    apart = "this machine's clock and the database's are apart"
    assert scene.observer.heard == [
        (-60.0, False),
        ("held", "clock", apart),
        (-1.0, True),
        ("released", "clock"),
    ]


@pytest.mark.parametrize(("there_seconds", "back_seconds"), [(9.0, 0.0), (0.0, 9.0), (4.0, 4.0), (60.0, 0.0)])
async def test_a_slow_answer_is_no_reason_to_hold(scene: Scene, there_seconds: float, back_seconds: float) -> None:
    await scene.guard.check()
    scene.server.there_seconds, scene.server.back_seconds = there_seconds, back_seconds
    await scene.guard.check()
    assert scene.guard.closed_by() is None


@pytest.mark.parametrize(("there_seconds", "back_seconds"), [(9.0, 0.0), (0.0, 9.0)])
async def test_a_slow_answer_is_no_reason_to_trust_a_clock_either(
    scene: Scene, there_seconds: float, back_seconds: float
) -> None:
    scene.server.there_seconds, scene.server.back_seconds = there_seconds, back_seconds
    await scene.guard.check()
    assert scene.guard.closed_by() == "clock unknown"
    scene.server.there_seconds = scene.server.back_seconds = 0
    scene.server.ahead_seconds = 7
    await scene.guard.check()
    scene.server.there_seconds, scene.server.back_seconds = there_seconds, back_seconds
    await scene.guard.check()
    assert scene.guard.closed_by() == "clocks apart"


async def test_an_answer_that_is_slow_but_proves_them_apart_holds(scene: Scene) -> None:
    scene.server.ahead_seconds = 3600
    scene.server.there_seconds = 9
    await scene.guard.check()
    assert scene.guard.closed_by() == "clocks apart"


@pytest.mark.parametrize("seconds", [BOUND + 0.1, -BOUND - 0.1, 3600.0])
async def test_a_step_of_the_local_clock_between_checks_is_noticed_when_the_gate_is_asked(
    scene: Scene, seconds: float
) -> None:
    await scene.guard.check()
    scene.clock.pass_time(10)
    scene.clock.step(seconds)
    with capture_logs() as logs:
        assert scene.guard.closed_by() == "clocks apart"
        assert scene.guard.closed_by() == "clocks apart"
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("clock_skew_detected", "error")]
    assert logs[0]["difference_seconds"] == seconds


async def test_time_that_goes_by_awake_or_asleep_is_no_step(scene: Scene) -> None:
    await scene.guard.check()
    scene.clock.pass_time(30 * 86_400)
    assert scene.guard.closed_by() is None


async def test_a_step_that_leaves_the_clocks_within_the_bound_is_none(scene: Scene) -> None:
    scene.server.ahead_seconds = 4
    await scene.guard.check()
    scene.clock.step(8)
    assert scene.guard.closed_by() is None
    await scene.guard.check()
    assert scene.guard.closed_by() is None


async def test_small_steps_that_add_up_are_noticed(scene: Scene) -> None:
    await scene.guard.check()
    for _ in range(2):
        scene.clock.step(3)
        closed_by = scene.guard.closed_by()
    assert closed_by == "clocks apart"


async def test_after_a_step_only_a_comparison_opens_the_gate(scene: Scene) -> None:
    await scene.guard.check()
    scene.clock.step(60)
    assert scene.guard.closed_by() is not None
    scene.server.away = True
    scene.clock.step(-60)
    await scene.guard.check()
    assert scene.guard.closed_by() == "clocks apart"
    scene.server.away = False
    await scene.guard.check()
    assert scene.guard.closed_by() is None


async def test_while_the_database_is_away_the_last_comparison_holds_good(scene: Scene) -> None:
    await scene.guard.check()
    scene.server.away = True
    with capture_logs() as logs:
        for _ in range(100):
            scene.clock.pass_time(60)
            await scene.guard.check()
    assert scene.guard.closed_by() is None
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("clock_not_compared", "warning")]
    scene.clock.step(-60)
    assert scene.guard.closed_by() == "clocks apart"


async def test_a_local_clock_that_steps_while_the_server_answers_counts_as_it_is_afterwards(scene: Scene) -> None:
    scene.server.meanwhile = lambda: scene.clock.step(60)
    await scene.guard.check()
    assert scene.guard.closed_by() == "clocks apart"


async def test_a_step_has_the_clocks_compared_at_once_and_not_at_the_next_interval() -> None:
    scene = Scene(check_seconds=3600)
    task = asyncio.create_task(scene.guard.run())
    async with asyncio.timeout(5):
        await scene.server.asked.wait()
        scene.server.asked.clear()
        scene.clock.step(60)
        scene.server.ahead_seconds = 60
        assert scene.guard.closed_by() == "clocks apart"
        await scene.server.asked.wait()
    assert scene.guard.closed_by() is None
    task.cancel()


async def test_the_clocks_are_compared_again_and_again_whether_the_database_is_there_or_not() -> None:
    scene = Scene(check_seconds=0.1)
    task = asyncio.create_task(scene.guard.run())
    async with asyncio.timeout(5):
        for away in (False, True, False, False):
            scene.server.away = away
            scene.server.asked.clear()
            await scene.server.asked.wait()
    assert not task.done()
    task.cancel()


def test_a_comparison_knows_what_it_proves() -> None:
    def verdict(difference: float, uncertainty: float) -> ClockAgreement:
        return Comparison(NOW + difference, NOW, 0, uncertainty).agreement(BOUND)

    assert verdict(4.5, 0.5) is ClockAgreement.AGREE
    assert verdict(-4.5, 0.6) is ClockAgreement.UNSURE
    assert verdict(5.5, 0.6) is ClockAgreement.UNSURE
    assert verdict(-5.5, 0.4) is ClockAgreement.APART
