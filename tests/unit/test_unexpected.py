"""Which pools are unexpected by what was written, how they are counted by owner, and for how long."""

import pytest
from virtual_clock import VirtualClock

from pool_daemon.guards import unexpected
from pool_daemon.guards.unexpected import Census, Kind, UnexpectedPools, measure
from pool_daemon.settings import sections
from pool_daemon.store.pools import DuePool

NOW = 1_800_000_000
NOTICE = 600
SETTINGS = sections.Brake(min_pools=100, per_owner=5, notice_seconds=NOTICE)


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(NOW)


@pytest.fixture
def pools(clock: VirtualClock) -> UnexpectedPools:
    return UnexpectedPools(SETTINGS, clock)


def kind_of(
    pools: UnexpectedPools, empty_at: int, *, pool_id: int = 1, synced: bool = True, full_scan: bool = False
) -> Kind | None:
    """Return as what a pool counts, which nothing but a write makes unexpected unless told otherwise."""
    key = pools.key_of(DuePool(pool_id, empty_at=empty_at, synced=synced), full_scan=full_scan)
    return None if key is None else key[0]


def is_allowed(pools: UnexpectedPools, pool_id: int) -> bool:
    """Return whether a pool that is found overdue is let go as one that was allowed before."""
    return kind_of(pools, NOW - 1, pool_id=pool_id, full_scan=True) is None


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
    pools: UnexpectedPools, end: int, kind: Kind | None
) -> None:
    pools.record(1, end, NOW)
    assert kind_of(pools, end) is kind


def test_where_the_end_was_not_told_the_pool_itself_says_it(pools: UnexpectedPools) -> None:
    pools.record(1, None, NOW)
    assert kind_of(pools, NOW - 3600) is Kind.PAST
    assert kind_of(pools, NOW + 3600) is None


def test_a_pool_that_is_topped_up_or_judged_is_forgotten(pools: UnexpectedPools) -> None:
    pools.record(1, NOW, NOW)
    pools.record(1, NOW + 10 * NOTICE, NOW + 1)
    pools.record(2, NOW, NOW)
    pools.forget(2)
    assert kind_of(pools, NOW) is kind_of(pools, NOW, pool_id=2) is None


def test_pools_that_end_near_their_write_are_counted_once_that_end_has_come(pools: UnexpectedPools) -> None:
    pools.record(1, NOW + 30, NOW)
    pools.record(2, NOW - 3600, NOW)
    assert pools.near(NOW + 29) == {}
    assert pools.near(NOW + 30) == {1: None}


def test_a_workload_that_is_deployed_leaves_the_end_that_was_written_before(pools: UnexpectedPools) -> None:
    pools.record(1, NOW + 30, NOW, 7)
    pools.record(1, None, NOW + 1)
    assert pools.near(NOW + 30) == {1: 7}


def test_the_owner_of_a_written_pool_is_known_once_it_was_told(pools: UnexpectedPools) -> None:
    pools.record(1, NOW + 30, NOW, 7)
    pools.record(1, NOW + 20, NOW + 1)
    pools.record(2, NOW + 20, NOW)
    assert pools.near(NOW + 20) == {1: 7, 2: None}
    pools.record_owners({2: 8, 3: 9})
    assert pools.near(NOW + 20) == {1: 7, 2: 8}


def test_beyond_the_bound_the_oldest_is_forgotten_and_what_ended_by_then_counts_as_unknown(
    pools: UnexpectedPools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unexpected, "MOST_REMEMBERED", 2)
    pools.watching_since(NOW - 7200)
    pools.record(1, NOW - 3600, NOW)
    pools.record(2, NOW - 1800, NOW)
    assert pools.since == NOW - 7200
    pools.record(3, NOW - 900, NOW)
    assert pools.since == NOW - 3599
    assert kind_of(pools, NOW - 3600) is None
    assert kind_of(pools, NOW - 900, pool_id=3) is Kind.PAST


def test_beyond_the_bound_no_end_that_is_yet_to_come_becomes_suspicious(
    pools: UnexpectedPools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unexpected, "MOST_REMEMBERED", 1)
    pools.record(1, NOW + 300, NOW)
    pools.record(2, NOW - 3600, NOW + 5)
    assert pools.since == NOW


def test_a_write_that_nobody_judged_is_forgotten_after_twice_the_notice_and_its_end_counts_as_unknown(
    pools: UnexpectedPools,
) -> None:
    pools.watching_since(NOW - 7200)
    pools.record(1, NOW + 60, NOW)
    pools.record(2, NOW + 2 * NOTICE, NOW + 2 * NOTICE)
    assert (kind_of(pools, NOW + 60), pools.since) == (None, NOW + 61)


def test_the_stream_counts_as_followed_since_it_was_last_opened_anew(pools: UnexpectedPools) -> None:
    assert pools.since is None
    pools.watching_since(NOW)
    pools.watching_since(NOW + 60)
    assert pools.since == NOW + 60


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
    pools: UnexpectedPools,
    end: int,
    synced: bool,  # noqa: FBT001 - a row of the table
    kind: Kind | None,
) -> None:
    pools.watching_since(NOW - 7200)
    pools.known_through = NOW
    assert kind_of(pools, end, synced=synced, full_scan=True) is kind


def test_what_ended_before_the_stream_was_followed_is_overdue(pools: UnexpectedPools) -> None:
    assert kind_of(pools, NOW, full_scan=True) is Kind.UNSEEN
    pools.watching_since(NOW)
    assert kind_of(pools, NOW - 1, full_scan=True) is Kind.UNSEEN
    assert kind_of(pools, NOW, full_scan=True) is None


def test_one_owner_counts_for_a_few_of_what_customers_can_arrange_and_in_full_of_what_they_cannot() -> None:
    census = Census({(Kind.NEAR, 1): 1000, (Kind.NEAR, 2): 3, (Kind.UNSEEN, 1): 1000, (Kind.PAST, 1): 1000})
    assert measure(census, SETTINGS) == (5 + 3 + 25 + 1000, 5 + 3 + 1000 + 1000)


def test_no_single_owner_exceeds_the_number_by_what_he_can_arrange() -> None:
    census = Census({(Kind.NEAR, 1): 10**6, (Kind.UNSEEN, 1): 10**6})
    assert measure(census, SETTINGS)[0] <= SETTINGS.min_pools


def test_what_a_backup_brings_counts_for_a_day_and_what_purchases_bring_for_twenty_minutes(
    pools: UnexpectedPools, clock: VirtualClock
) -> None:
    for pool_id, kind in enumerate(Kind):
        pools.allow(pool_id, (kind, 1))
    pools.settled(range(3), lost=range(3))
    clock.pass_time(1199)
    assert pools.census(*Kind).total() == 3
    clock.pass_time(1)
    assert pools.census(*Kind) == Census({(Kind.PAST, 1): 1, (Kind.UNSEEN, 1): 1})
    clock.pass_time(86_400 - 1200)
    assert pools.census(*Kind) == Census()


def test_a_pool_counts_from_when_it_is_allowed_and_no_longer_once_it_was_settled_and_lost_nothing(
    pools: UnexpectedPools,
) -> None:
    pools.allow(1, (Kind.PAST, 7))
    pools.allow(2, None)
    assert pools.census(*Kind) == Census({(Kind.PAST, 7): 1})
    assert pools.census(Kind.NEAR) == Census()
    pools.settled([1, 2], lost=[])
    assert pools.census(*Kind) == Census()
    assert not is_allowed(pools, 1)


def test_a_pool_that_is_settled_in_portions_counts_once(pools: UnexpectedPools) -> None:
    pools.allow(1, (Kind.PAST, 7))
    for done in ([], [], [1]):
        pools.allow(1, None)
        pools.settled(done, lost=[1])
    assert pools.census(*Kind) == Census({(Kind.PAST, 7): 1})


def test_a_pool_that_failed_stays_allowed_and_counts_for_as_long_as_if_it_had_lost_something(
    pools: UnexpectedPools, clock: VirtualClock
) -> None:
    pools.allow(1, (Kind.NEAR, 7))
    pools.allow(1, None)
    assert pools.census(*Kind).total() == 1
    clock.pass_time(1200)
    assert pools.census(*Kind).total() == 0
    assert is_allowed(pools, 1)


def test_what_was_allowed_is_judged_anew_after_a_day_unless_it_was_tried_again(
    pools: UnexpectedPools, clock: VirtualClock
) -> None:
    """What another daemon has settled since, or a top-up has saved, is never reported as settled here."""
    for pool_id in (1, 2):
        pools.allow(pool_id, (Kind.PAST, 7))
    clock.pass_time(86_399)
    pools.allow(2, None)
    clock.pass_time(1)
    assert [is_allowed(pools, pool_id) for pool_id in (1, 2)] == [False, True]
    assert pools.census(*Kind) == Census({(Kind.PAST, 7): 1})


def test_no_more_pools_are_remembered_as_allowed_than_the_bound(
    pools: UnexpectedPools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unexpected, "MOST_REMEMBERED", 2)
    for pool_id in (1, 2, 3):
        pools.allow(pool_id, None)
    assert [is_allowed(pools, pool_id) for pool_id in (1, 2, 3)] == [False, True, True]
