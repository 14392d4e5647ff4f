"""How often what lies ahead is looked at."""

from collections.abc import Callable, Mapping

import pytest
from virtual_clock import NOW, VirtualClock

from pool_daemon.errors import StoreError, StoreUnavailableError
from pool_daemon.guards.leadership import Role
from pool_daemon.store.density import HORIZON, Density, Interval
from pool_daemon.store.events import RecentEvents, RecordedPool
from pool_daemon.store.pool_counts import PoolCounts, Upcoming
from pool_daemon.telemetry.forecast import Forecast
from pool_daemon.telemetry.metric_table import HORIZONS
from pool_daemon.telemetry.observer import Observer


class CountedHorizon(PoolCounts):
    """A database that counts how often it is asked, and may be away."""

    def __init__(self) -> None:
        self.counts = 0
        self.densities = 0
        self.is_whole = False
        self.lists = 0
        self.overdue_asked: list[tuple[int | None, int]] = []
        self.away = False

    async def expiring_counts(self, now: int, horizons: Mapping[str, int]) -> dict[str, int]:
        self.counts += 1
        return {name: now + seconds for name, seconds in horizons.items()}

    async def density(self, now: int) -> Density:
        self.densities += 1
        return Density(now, now + HORIZON * self.is_whole, (Interval(now, now + 10, 4985),))

    async def due_count(self, *, after: int | None, until: int) -> int:
        self.overdue_asked.append((after, until))
        return 5

    async def upcoming(self, now: int, *, limit: int) -> list[Upcoming]:
        self.lists += 1
        if self.away:
            raise StoreUnavailableError("away")
        return [Upcoming(17, 7, now + limit)]


class Records(RecentEvents):
    """Records of the daemon before, which can be read at the second try."""

    def __init__(self) -> None:
        self.asked = 0
        self.away = False

    async def last(self, *, records: int) -> list[RecordedPool]:
        self.asked += 1
        if self.away:
            raise StoreUnavailableError("away")
        assert records >= 50
        return [
            RecordedPool(16, NOW - 86_400, ("cu", "ipv4u"), 3),
            RecordedPool(17, NOW + 1, ("cu",), 1),  # by this daemon, which has told of it
        ]


@pytest.fixture
def horizon() -> CountedHorizon:
    return CountedHorizon()


@pytest.fixture
def records() -> Records:
    return Records()


@pytest.fixture
def forecast(horizon: CountedHorizon, records: Records, observer: Observer, clock: VirtualClock) -> Forecast:
    return Forecast(
        pool_counts=horizon, recent_events=records, observer=observer, clock=clock, watermark=lambda: int(NOW) - 60
    )


async def test_nobody_looks_and_the_database_is_asked_once_a_minute(
    forecast: Forecast, horizon: CountedHorizon, observer: Observer, clock: VirtualClock
) -> None:
    for _ in range(120):
        await forecast.look()
        clock.pass_time(1)
    assert (horizon.counts, horizon.densities, horizon.lists) == (2, 2, 2)
    assert observer.status.snapshot.expiring == {name: int(NOW) + 60 + seconds for name, seconds in HORIZONS.items()}


async def test_somebody_looks_and_the_list_is_kept_fresh_but_nothing_is_counted_more_often(
    forecast: Forecast, horizon: CountedHorizon, observer: Observer, clock: VirtualClock
) -> None:
    for _ in range(60):
        observer.status.looked_at()
        await forecast.look()
        clock.pass_time(1)
    assert (horizon.counts, horizon.densities, horizon.lists) == (1, 1, 30)
    assert observer.status.snapshot.upcoming == (Upcoming(17, 7, int(NOW) + 58 + 20),)


async def test_where_the_count_by_intervals_is_whole_nothing_is_counted_twice(
    forecast: Forecast, horizon: CountedHorizon, observer: Observer
) -> None:
    horizon.is_whole = True
    await forecast.look()
    assert horizon.counts == 0
    assert observer.status.snapshot.expiring == dict.fromkeys(HORIZONS, 4985)
    assert observer.status.snapshot.density == Density(
        int(NOW), int(NOW) + HORIZON, (Interval(int(NOW), int(NOW) + 10, 4985),)
    )


async def test_a_database_that_is_away_is_not_asked_more_often_for_it(
    forecast: Forecast, horizon: CountedHorizon, observer: Observer, clock: VirtualClock
) -> None:
    horizon.away = True
    with pytest.raises(StoreUnavailableError):
        await forecast.look()
    await forecast.look()
    assert horizon.lists == 1
    horizon.away = False
    clock.pass_time(60)
    await forecast.look()
    assert observer.status.snapshot.upcoming != ()


async def test_what_is_overdue_since_the_last_complete_pass_is_the_backlog(
    forecast: Forecast, horizon: CountedHorizon, observer: Observer, clock: VirtualClock
) -> None:
    observer.role_seen(Role.LEADER, term=1, leader="me")
    for _ in range(20):
        await forecast.look()
        clock.pass_time(1)
    assert horizon.overdue_asked == [(int(NOW) - 60, int(NOW)), (int(NOW) - 60, int(NOW) + 10)]
    assert observer.status.snapshot.backlog == 5


async def test_while_the_next_end_is_yet_to_come_there_is_no_backlog_and_nobody_is_asked(
    forecast: Forecast, horizon: CountedHorizon, observer: Observer
) -> None:
    observer.role_seen(Role.LEADER, term=1, leader="me")
    observer.armed(NOW + 30, pool_id=7)
    await forecast.look()
    assert horizon.overdue_asked == []
    assert observer.status.snapshot.backlog == 0


@pytest.mark.parametrize(
    "trouble",
    [
        lambda observer: observer.put_on_hold("clock", detail="apart"),
        lambda observer: observer.pass_failed(StoreError("away"), seconds=1, retry_seconds=1),
    ],
)
async def test_while_something_keeps_the_daemon_from_its_work_the_backlog_is_counted(
    forecast: Forecast, horizon: CountedHorizon, observer: Observer, trouble: Callable[[Observer], None]
) -> None:
    observer.role_seen(Role.LEADER, term=1, leader="me")
    observer.armed(NOW + 30, pool_id=7)
    trouble(observer)
    await forecast.look()
    assert len(horizon.overdue_asked) == 1


async def test_a_standby_does_not_know_what_its_leader_has_yet_to_do(
    forecast: Forecast, horizon: CountedHorizon, observer: Observer
) -> None:
    observer.role_seen(Role.STANDBY, leader="other")
    await forecast.look()
    assert horizon.overdue_asked == []
    assert observer.status.snapshot.backlog is None


async def test_what_the_daemon_before_did_is_read_once_and_stands_before_what_this_one_does(
    forecast: Forecast, records: Records, observer: Observer, clock: VirtualClock
) -> None:
    observer.drift_repaired(pool_id=3, dropped=(), excess={"cu": 1.0})
    records.away = True
    with pytest.raises(StoreUnavailableError):
        await forecast.look()
    records.away = False
    for _ in range(4):
        clock.pass_time(61)
        await forecast.look()
    assert records.asked == 2
    first, *others = observer.status.snapshot.events
    assert (first.pool_id, first.text, first.at) == (16, "cu and ipv4u ran out, 3 workloads", NOW - 86_400)
    assert first.lateness_seconds is None
    assert [event.pool_id for event in others] == [3]
