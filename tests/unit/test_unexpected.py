"""Which pools are unexpected by what was written, how they are counted by owner, and for how long."""

import pytest
from virtual_clock import VirtualClock

from pool_daemon.guards import unexpected
from pool_daemon.guards.unexpected import Census, Kind, RecentWrites, UnexpectedExpirations, measure
from pool_daemon.settings import sections
from pool_daemon.store.pools import DuePool

NOW = 1_800_000_000
NOTICE = 600
SETTINGS = sections.Brake(min_pools=100, per_owner=5, notice_seconds=NOTICE)


@pytest.fixture
def writes() -> RecentWrites:
    return RecentWrites(SETTINGS)


def kind_of(writes: RecentWrites, empty_at: int, *, pool_id: int = 1) -> Kind | None:
    return writes.kind_of(DuePool(pool_id, empty_at=empty_at), known=True)


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        (NOW - 61, Kind.PAST),
        (NOW - 60, Kind.NEAR),
        (NOW, Kind.NEAR),
        (NOW + NOTICE, Kind.NEAR),
        (NOW + NOTICE + 1, None),
    ],
)
def test_a_write_is_judged_by_how_far_the_end_lay_ahead_of_it(
    writes: RecentWrites, end: int, kind: Kind | None
) -> None:
    writes.record(1, end, NOW)
    assert kind_of(writes, end) is kind


def test_where_the_end_was_not_told_the_pool_itself_says_it(writes: RecentWrites) -> None:
    writes.record(1, None, NOW)
    assert kind_of(writes, NOW - 3600) is Kind.PAST
    assert kind_of(writes, NOW + 3600) is None


def test_a_pool_that_is_topped_up_or_judged_is_forgotten(writes: RecentWrites) -> None:
    writes.record(1, NOW, NOW)
    writes.record(1, NOW + 10 * NOTICE, NOW + 1)
    writes.record(2, NOW, NOW)
    writes.forget(2)
    assert kind_of(writes, NOW) is kind_of(writes, NOW, pool_id=2) is None


def test_pools_that_end_near_their_write_are_counted_once_that_end_has_come(writes: RecentWrites) -> None:
    writes.record(1, NOW + 30, NOW)
    writes.record(2, NOW - 3600, NOW)
    assert writes.near(NOW + 29) == {}
    assert writes.near(NOW + 30) == {1: None}


def test_a_workload_that_is_deployed_leaves_the_end_that_was_written_before(writes: RecentWrites) -> None:
    writes.record(1, NOW + 30, NOW, 7)
    writes.record(1, None, NOW + 1)
    assert writes.near(NOW + 30) == {1: 7}


def test_the_owner_of_a_written_pool_is_known_once_it_was_told(writes: RecentWrites) -> None:
    writes.record(1, NOW + 30, NOW, 7)
    writes.record(1, NOW + 20, NOW + 1)
    writes.record(2, NOW + 20, NOW)
    assert writes.near(NOW + 20) == {1: 7, 2: None}
    writes.record_owners({2: 8, 3: 9})
    assert writes.near(NOW + 20) == {1: 7, 2: 8}


def test_beyond_the_bound_the_oldest_is_forgotten_and_what_ended_by_then_counts_as_unknown(
    writes: RecentWrites, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unexpected, "MOST_REMEMBERED", 2)
    writes.watching_since(NOW - 7200)
    writes.record(1, NOW - 3600, NOW)
    writes.record(2, NOW - 1800, NOW)
    assert writes.since == NOW - 7200
    writes.record(3, NOW - 900, NOW)
    assert writes.since == NOW - 3599
    assert kind_of(writes, NOW - 3600) is None
    assert kind_of(writes, NOW - 900, pool_id=3) is Kind.PAST


def test_beyond_the_bound_no_end_that_is_yet_to_come_becomes_suspicious(
    writes: RecentWrites, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unexpected, "MOST_REMEMBERED", 1)
    writes.record(1, NOW + 300, NOW)
    writes.record(2, NOW - 3600, NOW + 5)
    assert writes.since == NOW


def test_a_write_that_nobody_judged_is_forgotten_after_twice_the_notice_and_its_end_counts_as_unknown(
    writes: RecentWrites,
) -> None:
    writes.watching_since(NOW - 7200)
    writes.record(1, NOW + 60, NOW)
    writes.record(2, NOW + 2 * NOTICE, NOW + 2 * NOTICE)
    assert (kind_of(writes, NOW + 60), writes.since) == (None, NOW + 61)


def test_the_stream_counts_as_followed_since_it_was_last_opened_anew(writes: RecentWrites) -> None:
    assert writes.since is None
    writes.watching_since(NOW)
    writes.watching_since(NOW + 60)
    assert writes.since == NOW + 60


@pytest.mark.parametrize(
    ("end", "synced", "kind"),
    [
        (NOW - 61, False, Kind.PAST),
        (NOW - 61, True, Kind.UNSEEN),
        (NOW - 60, False, Kind.UNSEEN),
        (NOW, False, Kind.UNSEEN),
        (NOW + 1, False, None),
    ],
)
def test_what_turns_up_behind_what_was_settled_is_unexpected_and_long_behind_it_was_written_since(
    writes: RecentWrites,
    end: int,
    synced: bool,  # noqa: FBT001 - a row of the table
    kind: Kind | None,
) -> None:
    writes.watching_since(NOW - 7200)
    writes.known_through = NOW
    assert writes.kind_of(DuePool(1, empty_at=end, synced=synced), known=False) is kind


def test_what_ended_before_the_stream_was_followed_is_overdue(writes: RecentWrites) -> None:
    assert writes.kind_of(DuePool(1, empty_at=NOW), known=False) is Kind.UNSEEN
    writes.watching_since(NOW)
    assert writes.kind_of(DuePool(1, empty_at=NOW - 1), known=False) is Kind.UNSEEN
    assert writes.kind_of(DuePool(1, empty_at=NOW), known=False) is None


def test_one_owner_counts_for_a_few_of_what_customers_can_arrange_and_in_full_of_what_they_cannot() -> None:
    census = Census({(Kind.NEAR, 1): 1000, (Kind.NEAR, 2): 3, (Kind.UNSEEN, 1): 1000, (Kind.PAST, 1): 1000})
    assert measure(census, SETTINGS) == (5 + 3 + 25 + 1000, 5 + 3 + 1000 + 1000)


def test_no_single_owner_exceeds_the_number_by_what_he_can_arrange() -> None:
    census = Census({(Kind.NEAR, 1): 10**6, (Kind.UNSEEN, 1): 10**6})
    assert measure(census, SETTINGS)[0] <= SETTINGS.min_pools


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(NOW)


@pytest.fixture
def expirations(clock: VirtualClock) -> UnexpectedExpirations:
    return UnexpectedExpirations(clock)


def test_what_a_backup_brings_counts_for_a_day_and_what_purchases_bring_for_twenty_minutes(
    expirations: UnexpectedExpirations, clock: VirtualClock
) -> None:
    for pool_id, kind in enumerate(Kind):
        expirations.mark_in_flight(pool_id, (kind, 1))
    expirations.settled(range(3), lost=range(3))
    clock.pass_time(1199)
    assert expirations.census(*Kind).total() == 3
    clock.pass_time(1)
    assert expirations.census(*Kind) == Census({(Kind.PAST, 1): 1, (Kind.UNSEEN, 1): 1})
    clock.pass_time(86_400 - 1200)
    assert expirations.census(*Kind) == Census()


def test_a_pool_counts_from_when_it_is_allowed_and_no_longer_once_it_was_settled_and_lost_nothing(
    expirations: UnexpectedExpirations,
) -> None:
    expirations.mark_in_flight(1, (Kind.PAST, 7))
    expirations.mark_in_flight(2)
    assert expirations.census(*Kind) == Census({(Kind.PAST, 7): 1})
    assert expirations.census(Kind.NEAR) == Census()
    expirations.settled([1, 2])
    assert expirations.census(*Kind) == Census()
    assert not expirations.is_allowed(1)


def test_a_pool_that_is_settled_in_portions_counts_once(expirations: UnexpectedExpirations) -> None:
    expirations.mark_in_flight(1, (Kind.PAST, 7))
    for done in ([], [], [1]):
        expirations.mark_in_flight(1)
        expirations.settled(done, lost=[1])
    assert expirations.census(*Kind) == Census({(Kind.PAST, 7): 1})


def test_a_pool_that_failed_stays_allowed_and_counts_for_as_long_as_if_it_had_lost_something(
    expirations: UnexpectedExpirations, clock: VirtualClock
) -> None:
    expirations.mark_in_flight(1, (Kind.NEAR, 7))
    expirations.mark_in_flight(1)
    assert expirations.census(*Kind).total() == 1
    clock.pass_time(1200)
    assert expirations.census(*Kind).total() == 0
    assert expirations.is_allowed(1)


def test_what_was_allowed_is_judged_anew_after_a_day_unless_it_was_tried_again(
    expirations: UnexpectedExpirations, clock: VirtualClock
) -> None:
    """What another daemon has settled since, or a top-up has saved, is never reported as settled here."""
    for pool_id in (1, 2):
        expirations.mark_in_flight(pool_id, (Kind.PAST, 7))
    clock.pass_time(86_399)
    expirations.mark_in_flight(2)
    clock.pass_time(1)
    assert [expirations.is_allowed(pool_id) for pool_id in (1, 2)] == [False, True]
    assert expirations.census(*Kind) == Census({(Kind.PAST, 7): 1})


def test_no_more_pools_are_remembered_as_allowed_than_the_bound(
    expirations: UnexpectedExpirations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unexpected, "MOST_REMEMBERED", 2)
    for pool_id in (1, 2, 3):
        expirations.mark_in_flight(pool_id)
    assert [expirations.is_allowed(pool_id) for pool_id in (1, 2, 3)] == [False, True, True]
