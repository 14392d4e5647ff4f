"""The demo without its processes: the scenario's arithmetic, its customers, and what a person sees."""

import io
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console, RenderableType
from rich.text import Text

from pool_daemon.capacity.pool import NEVER, Pool
from pool_daemon.capacity.workload import cloud_units
from pool_daemon.demo.customer import Customer
from pool_daemon.demo.scenario import HOUR, SCENARIO, PlannedPool, Timetable, Workload
from pool_daemon.demo.scene import DatabaseState, Record, Scene, SceneEvent, Voice
from pool_daemon.demo.screen import PlainScreen, event_line, picture
from pool_daemon.demo.verdict import Finding, report

PLANS = {plan.name: plan for plan in SCENARIO}
OPENED_AT = 1_700_000_000
STARTED_AT = OPENED_AT + 10
TIMETABLE = Timetable(opened_at=OPENED_AT, started_at=STARTED_AT)


class RememberedPools:
    """An explorer whose database is a dictionary."""

    def __init__(self) -> None:
        self.pools: dict[int, Pool] = {}
        self.damage: dict[int, dict[str, Any]] = {}

    async def read_pool(self, pool_id: int) -> Pool:
        return self.pools[pool_id]

    async def write_pool(self, pool: Pool, **damage: Any) -> None:
        self.pools[pool.pool_id] = pool
        self.damage[pool.pool_id] = damage

    async def deploy(self, workload: Workload, *, workload_id: int, pool: Pool, now: int) -> None:
        document = {"_id": workload_id, "workload_type": int(workload.type), **workload.fields}
        pool.add_workload(workload_id, *cloud_units(document), now=now)


class StandingClock:
    """A clock that always shows the same instant."""

    def __init__(self, instant: float) -> None:
        self._instant = instant

    def now(self) -> float:
        return self._instant

    def monotonic(self) -> float:
        return self._instant


async def play(plans: Sequence[PlannedPool], *, now: float) -> tuple[Customer, RememberedPools]:
    """Let the customers do everything at `now`, by which all of it is due."""
    explorer = RememberedPools()
    customer = Customer(
        explorer=explorer,  # type: ignore[arg-type] # stands in for the one with a database
        plans=plans,
        tell=lambda _: None,
        clock=StandingClock(now),
    )
    await customer.buy_what_is_there_before(TIMETABLE)
    await customer.buy_what_is_there_at_first(TIMETABLE)
    await customer.play(TIMETABLE)
    return customer, explorer


@pytest.fixture
async def played() -> RememberedPools:
    return (await play(SCENARIO, now=STARTED_AT + HOUR))[1]


class TestScenario:
    async def test_every_pool_runs_empty_at_the_second_that_the_table_says(self, played: RememberedPools) -> None:
        for plan in SCENARIO:
            if plan.ends is not None:
                assert played.pools[plan.pool_id].empty_at == TIMETABLE.empty_at(plan), plan.name

    async def test_pools_that_must_not_run_empty_last_longer_than_anybody_watches(
        self, played: RememberedPools
    ) -> None:
        last_end = max(plan.ends or 0 for plan in SCENARIO)
        for plan in SCENARIO:
            if plan.ends is None and not plan.damaged:
                assert played.pools[plan.pool_id].empty_at > STARTED_AT + 10 * last_end, plan.name

    async def test_a_pool_of_free_workloads_never_runs_empty(self, played: RememberedPools) -> None:
        assert played.pools[PLANS["gateway"].pool_id].empty_at == NEVER

    async def test_only_the_unreadable_pool_is_damaged(self, played: RememberedPools) -> None:
        damaged = [pool_id for pool_id, damage in played.damage.items() if damage]
        assert damaged == [PLANS["unreadable"].pool_id]

    async def test_every_workload_of_the_table_is_deployed(self, played: RememberedPools) -> None:
        for plan in SCENARIO:
            assert played.pools[plan.pool_id].active_workload_ids == list(plan.all_workloads), plan.name

    def test_ids_and_names_are_unique(self) -> None:
        assert len({plan.pool_id for plan in SCENARIO}) == len(PLANS) == len(SCENARIO)
        workload_ids = [workload_id for plan in SCENARIO for workload_id in plan.all_workloads]
        assert len(set(workload_ids)) == len(workload_ids)

    def test_the_last_top_up_in_time_comes_two_seconds_before_the_end(self) -> None:
        plan = PLANS["topped up"]
        assert [act.at for act in plan.acts] == [plan.paid_until - 2]


class TestCustomer:
    async def test_one_who_acts_within_the_second_is_in_time(self) -> None:
        newcomer = PLANS["newcomer"]
        customer, _ = await play([newcomer], now=STARTED_AT + newcomer.appears + 0.999)
        assert customer.belated == set()

    async def test_one_who_acts_a_second_later_is_belated(self) -> None:
        newcomer = PLANS["newcomer"]
        customer, _ = await play([newcomer], now=STARTED_AT + newcomer.appears + 1)
        assert customer.belated == {newcomer.pool_id}

    async def test_one_who_buys_after_the_beginning_is_belated(self) -> None:
        container = PLANS["container"]
        customer, _ = await play([container], now=STARTED_AT + 1)
        assert customer.belated == {container.pool_id}


def scene(second: float, *, records: Sequence[Record] = (), events: Sequence[SceneEvent] = ()) -> Scene:
    """The whole scenario at one of its seconds, nothing in it changed by anybody but the daemon."""
    pools = {plan.pool_id: {"empty_at": TIMETABLE.empty_at(plan) or NEVER} for plan in SCENARIO}
    snapshot = DatabaseState(pools=pools, records=records)
    return Scene(plans=SCENARIO, timetable=TIMETABLE, now=STARTED_AT + second, snapshot=snapshot, events=events)


def record(name: str, workload_id: int, *, late: timedelta = timedelta(milliseconds=4)) -> Record:
    empty_at = TIMETABLE.empty_at(PLANS[name]) or STARTED_AT
    return Record(workload_id, ("cu",), empty_at, datetime.fromtimestamp(empty_at, UTC) + late)


def rendered(renderable: RenderableType, *, columns: int = 80) -> list[str]:
    written = io.StringIO()
    Console(file=written, width=columns, force_terminal=True, color_system="standard").print(renderable)
    return Text.from_ansi(written.getvalue()).plain.splitlines()


def line_of(name: str, scene: Scene) -> str:
    return next(line for line in rendered(picture(scene, lines=23, columns=80)) if line.startswith(f"{name} "))


class TestLiveTable:
    @pytest.mark.parametrize("columns", [80, 100, 200])
    def test_it_fits_its_terminal_and_cuts_nothing_that_matters(self, columns: int) -> None:
        lines = rendered(picture(scene(4.5), lines=23, columns=columns), columns=columns)
        assert max(map(len, lines)) <= columns
        for plan in SCENARIO:
            assert any(plan.name in line and plan.shows in line for line in lines), plan.name

    def test_it_takes_no_more_lines_than_it_is_given(self) -> None:
        events = [SceneEvent(second, Voice.DAEMON, "something") for second in range(50)]
        for lines in (23, 40):
            assert len(rendered(picture(scene(4.5, events=events), lines=lines, columns=80))) == lines

    def test_on_a_small_terminal_the_pools_that_change_next_leave_room_for_the_log(self) -> None:
        events = [SceneEvent(second, Voice.DAEMON, f"event {second}") for second in range(50)]
        shown = rendered(picture(scene(4.5, events=events), lines=14, columns=60), columns=60)
        assert len(shown) == 14
        assert max(map(len, shown)) <= 60
        assert [line.rpartition("  ")[2] for line in shown[-3:]] == ["event 47", "event 48", "event 49"]
        assert "and 9 more; a taller terminal shows all" in shown
        left = {plan.name: scene(4.5).seconds_left(plan) or 0 for plan in SCENARIO}
        soonest = min((name for name in left if left[name] > 0), key=lambda name: left[name])
        assert any(line.startswith(f"{soonest} ") and "running" in line for line in shown)

    def test_what_the_daemon_says_never_moves_the_cursor(self) -> None:
        line = event_line(SceneEvent(1, Voice.WARNING, "pool \x1b[2J\n[/nope]"))
        assert rendered(line, columns=80)[0].endswith(r"pool \x1b[2J\n[/nope]")

    def test_a_pool_counts_down_to_its_end(self) -> None:
        assert "2.5 s  running  ━━" in line_of("volume", scene(2.5))

    def test_a_pool_that_nothing_drains_lasts_for_ever(self) -> None:
        assert "for ever" in line_of("gateway", scene(2.5))

    def test_a_pool_that_was_stopped_in_time_shows_how_late(self) -> None:
        assert "✓ stopped, 4 ms late" in line_of("container", scene(3.2, records=[record("container", 301)]))

    def test_a_pool_that_loses_only_some_shows_how_many(self) -> None:
        assert "✓ stopped 1 of 2, 4 ms late" in line_of("network", scene(14, records=[record("network", 801)]))

    def test_a_pool_that_was_overdue_shows_no_lateness(self) -> None:
        assert "✓ stopped at once" in line_of("overdue", scene(0, records=[record("overdue", 101)]))

    def test_a_pool_nobody_stopped_shows_that_it_still_runs(self) -> None:
        assert "✗ still running" in line_of("container", scene(4.1))

    def test_a_pool_stopped_too_early_or_too_late_is_marked(self) -> None:
        early = record("container", 301, late=timedelta(milliseconds=-900))
        late = record("container", 301, late=timedelta(seconds=1.5))
        assert "✗ stopped 900 ms early" in line_of("container", scene(2.5, records=[early]))
        assert "✗ stopped 1500 ms late" in line_of("container", scene(4.6, records=[late]))

    def test_a_workload_stopped_although_it_must_stay_is_marked(self) -> None:
        assert "✗ stopped, must run on" in line_of("topped up", scene(18, records=[record("topped up", 1001)]))

    def test_a_pool_not_bought_yet_says_so(self) -> None:
        nothing = Scene(plans=SCENARIO, timetable=Timetable(opened_at=OPENED_AT), now=OPENED_AT)
        assert "not bought yet" in line_of("newcomer", nothing)

    def test_the_clock_tells_where_the_demo_is(self) -> None:
        before = Scene(plans=SCENARIO, timetable=Timetable(opened_at=OPENED_AT), now=OPENED_AT)
        clocks = [
            rendered(picture(shown, lines=23, columns=80))[0] for shown in (before, scene(-0.5), scene(4.9), scene(99))
        ]
        assert [clock.split("   ")[-1].strip() for clock in clocks] == [
            "getting ready",
            "second 0 of 27",
            "second 4 of 27",
            "stopping",
        ]


class TestPlainLines:
    def test_each_event_is_printed_once_and_cut_at_the_width(self) -> None:
        written = io.StringIO()
        screen = PlainScreen(console=Console(file=written, width=100))
        first, second = SceneEvent(None, Voice.STAGE, "begins"), SceneEvent(3.004, Voice.WARNING, "long " * 100)
        screen.show(scene(1, events=[first]))
        screen.show(scene(3, events=[first, second]))
        [line_of_first, line_of_second] = written.getvalue().splitlines()
        assert line_of_first.split() == ["demo", "begins"]
        assert line_of_second.startswith("  3.004 s  warning   long long")
        assert len(line_of_second) == 100


class TestReport:
    GOOD = Finding("container", "a container", "stops at 3 s", "stops, 4 ms late", timedelta(milliseconds=4), ())
    BAD = Finding("gateway", "is free", "runs on", "stops, unrecorded", None, ("it is gone", "and more"))

    def test_what_held_is_marked_and_summed_up(self) -> None:
        lines = [line.rstrip() for line in rendered(report([self.GOOD]))]
        assert any(line.startswith("container") and line.endswith("✓") for line in lines)
        assert lines[-1] == "All 1 held: nothing stopped early, and nothing more than 4 ms late."

    def test_what_did_not_hold_is_marked_and_every_fault_named(self) -> None:
        lines = [line.rstrip() for line in rendered(report([self.GOOD, self.BAD]))]
        assert any(line.startswith("gateway") and line.endswith("✗") for line in lines)
        assert lines[-3:] == ["✗ gateway: it is gone", "✗ gateway: and more", "1 of 2 did not hold."]

    def test_the_longest_verdict_fits_80_columns_without_wrapping(self) -> None:
        findings = [
            Finding(plan.name, plan.shows, "12 stop at 25 s", "12 stop, 999 ms late", None, ()) for plan in SCENARIO
        ]
        lines = [line.rstrip() for line in rendered(report(findings))]
        assert sum(line.endswith("12 stop, 999 ms late  ✓") for line in lines) == len(SCENARIO)
