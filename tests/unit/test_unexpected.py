"""Which pools are unexpected by what was written, how they are counted by owner, and for how long."""

import pytest

from pool_daemon.guards import unexpected
from pool_daemon.guards.unexpected import Census, Kind, Lost, Notes, counted, pools_of
from pool_daemon.settings import sections
from pool_daemon.store.pools import DuePool

NOW = 1_800_000_000
NOTICE = 600
SETTINGS = sections.Brake(min_pools=100, per_owner=5, notice_seconds=NOTICE)


@pytest.fixture
def notes() -> Notes:
    return Notes(SETTINGS)


def kind_of(notes: Notes, empty_at: int, *, pool_id: int = 1) -> Kind | None:
    return notes.kind(DuePool(pool_id, empty_at=empty_at))


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
def test_a_write_is_judged_by_how_far_the_end_lay_ahead_of_it(notes: Notes, end: int, kind: Kind | None) -> None:
    notes.note_write(1, end, NOW)
    assert kind_of(notes, end) is kind


def test_where_the_end_was_not_told_the_pool_itself_says_it(notes: Notes) -> None:
    notes.note_write(1, None, NOW)
    assert kind_of(notes, NOW - 3600) is Kind.PAST
    assert kind_of(notes, NOW + 3600) is None


def test_a_pool_that_is_topped_up_or_judged_is_forgotten(notes: Notes) -> None:
    notes.note_write(1, NOW, NOW)
    notes.note_write(1, NOW + 10 * NOTICE, NOW + 1)
    notes.note_write(2, NOW, NOW)
    notes.forget(2)
    assert kind_of(notes, NOW) is kind_of(notes, NOW, pool_id=2) is None


def test_pools_that_end_near_their_write_are_due_then_and_those_written_past_it_at_once(notes: Notes) -> None:
    notes.note_write(1, NOW + 30, NOW)
    notes.note_write(2, NOW - 3600, NOW)
    assert notes.due(NOW + 29) == ([], 1)
    assert notes.due(NOW + 30) == ([1], 1)


def test_beyond_the_bound_the_oldest_is_forgotten_and_what_ended_by_then_counts_as_unknown(
    notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unexpected, "MOST_NOTES", 2)
    notes.note_watching(NOW - 7200)
    notes.note_write(1, NOW - 3600, NOW)
    notes.note_write(2, NOW - 1800, NOW)
    assert notes.since == NOW - 7200
    notes.note_write(3, NOW - 900, NOW)
    assert notes.since == NOW - 3599
    assert kind_of(notes, NOW - 3600) is None
    assert kind_of(notes, NOW - 900, pool_id=3) is Kind.PAST


def test_beyond_the_bound_no_end_that_is_yet_to_come_becomes_suspicious(
    notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unexpected, "MOST_NOTES", 1)
    notes.note_write(1, NOW + 300, NOW)
    notes.note_write(2, NOW - 3600, NOW + 5)
    assert notes.since == NOW


def test_a_note_that_nobody_judged_is_forgotten_after_twice_the_notice_and_its_end_counts_as_unknown(
    notes: Notes,
) -> None:
    notes.note_watching(NOW - 7200)
    notes.note_write(1, NOW + 60, NOW)
    notes.note_write(2, NOW + 2 * NOTICE, NOW + 2 * NOTICE)
    assert (kind_of(notes, NOW + 60), notes.since) == (None, NOW + 61)


def test_the_stream_counts_as_followed_since_it_was_last_opened_anew(notes: Notes) -> None:
    assert notes.since is None
    notes.note_watching(NOW)
    notes.note_watching(NOW + 60)
    assert notes.since == NOW + 60


def test_one_owner_counts_for_a_few_of_what_customers_can_arrange_and_in_full_of_what_they_cannot() -> None:
    census = Census({(Kind.NEAR, 1): 1000, (Kind.NEAR, 2): 3, (Kind.OVERDUE, 1): 1000, (Kind.PAST, 1): 1000})
    assert counted(census, SETTINGS) == 5 + 3 + 25 + 1000
    assert pools_of(census, SETTINGS) == 5 + 3 + 1000 + 1000


def test_no_single_owner_exceeds_the_number_by_what_he_can_arrange() -> None:
    census = Census({(Kind.NEAR, 1): 10**6, (Kind.OVERDUE, 1): 10**6})
    assert counted(census, SETTINGS) <= SETTINGS.min_pools


def test_what_a_backup_brings_counts_for_a_day_and_what_purchases_bring_for_twenty_minutes() -> None:
    lost = Lost()
    for kind in Kind:
        lost.add(kind, 1, at=0)
    assert lost.census(1199).total() == 3
    assert lost.census(1200) == Census({(Kind.PAST, 1): 1, (Kind.OVERDUE, 1): 1})
    assert lost.census(86_400) == Census()
