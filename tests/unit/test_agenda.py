from hypothesis import given
from hypothesis import strategies as st

from pool_daemon.scheduling.agenda import LONG_AGO, MOST_CHANGES, Agenda


def test_the_first_pass_looks_at_everything_overdue() -> None:
    assert Agenda().take(100).after is None


def test_a_pass_reads_only_behind_what_the_one_before_has_looked_at() -> None:
    agenda = Agenda()
    agenda.take(100)
    agenda.finished(100)
    assert agenda.take(160).after == 100


def test_a_rescan_asked_for_during_a_pass_is_not_forgotten_when_the_pass_finishes() -> None:
    agenda = Agenda()
    agenda.take(100)
    agenda.rescan()
    agenda.finished(100)
    assert agenda.take(101).after is None


def test_a_clock_that_steps_back_makes_the_pass_look_at_everything_and_the_watermark_follows_it() -> None:
    """What was written meanwhile was judged by a clock that was wrong."""
    agenda = Agenda()
    agenda.take(1000)
    agenda.finished(1000)
    assert agenda.take(400).after is None
    agenda.finished(400)
    assert agenda.take(401).after == 400


def test_everything_is_looked_at_again_when_the_last_time_was_long_ago() -> None:
    agenda = Agenda(rescan_seconds=600)
    agenda.take(1000)
    agenda.finished(1000)
    agenda.rescanned(1000)
    for now, after in ((1599, 1000), (1600, None), (1601, None)):
        assert agenda.take(now).after == after
    agenda.finished(1601)
    agenda.rescanned(1601)
    assert agenda.take(2200).after == 1601


def test_nothing_can_have_been_missed_while_everything_is_yet_to_be_looked_at_or_being_looked_at() -> None:
    agenda = Agenda()
    agenda.take(1000)
    assert agenda.looked_past is None
    agenda.finished(1000)
    agenda.take(1060)
    assert agenda.looked_past == 1000
    agenda.finished(1060)
    agenda.rescan()
    assert agenda.looked_past is None
    agenda.put_back(agenda.take(1061))
    assert agenda.looked_past is None


def test_a_pass_that_failed_leaves_what_was_looked_at_before_looked_at() -> None:
    agenda = Agenda()
    agenda.take(1000)
    agenda.finished(1000)
    agenda.put_back(agenda.take(1060))
    assert agenda.looked_past == 1000


def test_what_a_standby_forgets_is_made_up_for_by_a_look_at_everything() -> None:
    agenda = Agenda()
    agenda.take(1000)
    agenda.finished(1000)
    agenda.look_again(7, at=900)
    agenda.look_at_workloads([1, 2])
    agenda.forget()
    assert agenda.next_at() is None
    work = agenda.take(1001)
    assert (work.after, work.asked_for, work.workload_ids) == (None, {}, frozenset())


def test_a_pool_is_handed_out_at_its_second_and_not_before() -> None:
    agenda = Agenda()
    agenda.look_again(7, at=50)
    assert agenda.take(49).asked_for == {}
    assert agenda.next_at() == 50
    assert agenda.take(50).asked_for.keys() == {7}
    assert agenda.next_at() is None


def test_of_two_wishes_for_one_pool_the_earlier_stands() -> None:
    agenda = Agenda()
    agenda.look_again(7, at=50)
    agenda.look_again(7, at=20)
    agenda.look_again(7, at=90)
    assert agenda.take(20).asked_for.keys() == {7}
    assert agenda.take(100).asked_for == {}


def test_what_is_added_during_a_pass_is_kept_for_the_next_even_if_it_is_the_same() -> None:
    agenda = Agenda()
    agenda.look_again(7, at=10)
    agenda.take(10)
    agenda.look_again(7, at=10)
    agenda.finished(10)
    assert agenda.take(10).asked_for.keys() == {7}


def test_a_pass_that_failed_gives_everything_back() -> None:
    agenda = Agenda()
    agenda.look_again(7, at=10)
    agenda.look_at_workloads([70])
    work = agenda.take(10)
    agenda.put_back(work)
    assert agenda.take(10) == work


def test_a_pool_comes_to_it_at_the_second_for_which_a_look_was_asked() -> None:
    agenda = Agenda()
    agenda.look_again(7, at=10)
    assert agenda.take(15).asked_for == {7: 10}


def test_a_pool_that_is_tried_again_came_to_it_when_it_did_before() -> None:
    agenda = Agenda()
    agenda.look_again(7, at=10)
    for at in (10, 20, 30):
        assert agenda.take(at).asked_for == {7: 10}
        agenda.try_again({7: at + 10})
    assert agenda.next_at() == 40


def test_a_pool_that_is_tried_again_and_never_was_asked_for_came_to_it_long_ago() -> None:
    agenda = Agenda()
    agenda.try_again({7: 20})
    agenda.look_again(7, at=10)
    assert agenda.next_at() == 10
    assert agenda.take(10).asked_for == {7: LONG_AGO}
    agenda.look_again(7, at=30)
    assert agenda.take(30).asked_for == {7: 30}


def test_what_others_have_written_is_told_from_what_comes_by_itself() -> None:
    agenda = Agenda()
    agenda.look_again_at_all({6: 10, 7: 20})
    agenda.look_again(7, at=10)
    agenda.try_again({8: 10})
    for at in (10, 20):
        work = agenda.take(at)
        assert (work.asked_for.keys(), work.written) == ({6, 7, 8}, {7})
        agenda.try_again(dict.fromkeys((6, 7, 8), at + 10))


def test_a_pool_that_was_missed_came_to_it_long_ago_and_somebody_has_written_it() -> None:
    agenda = Agenda()
    agenda.look_at_missed(7, at=10)
    assert agenda.next_at() == 10
    work = agenda.take(10)
    assert (work.asked_for, work.written) == ({7: LONG_AGO}, {7})


def test_a_pool_that_is_tried_again_and_given_back_keeps_its_second() -> None:
    agenda = Agenda()
    agenda.try_again({7: 20})
    agenda.put_back(agenda.take(20))
    assert agenda.next_at() == 20


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 100))), st.integers(0, 100))
def test_every_pool_is_handed_out_exactly_once_at_its_earliest_wish(wishes: list[tuple[int, int]], now: int) -> None:
    agenda = Agenda()
    earliest: dict[int, int] = {}
    for pool_id, at in wishes:
        agenda.look_again(pool_id, at=at)
        earliest[pool_id] = min(at, earliest.get(pool_id, at))
    due = {pool_id for pool_id, at in earliest.items() if at <= now}
    assert agenda.take(now).asked_for.keys() == due
    assert agenda.next_at() == min((at for at in earliest.values() if at > now), default=None)
    assert agenda.take(100).asked_for.keys() == earliest.keys() - due


def test_any_pool_is_awaited_while_a_pass_is_at_work_and_afterwards_only_those_asked_for() -> None:
    """What it read may have changed before it could ask for a later look."""
    agenda = Agenda()
    for end in (lambda _: agenda.finished(100), agenda.put_back):
        work = agenda.take(100)
        assert agenda.awaits(7)
        end(work)
        assert not agenda.awaits(7)
    agenda.look_again_at_all({7: 200})
    assert agenda.awaits(7)
    assert not agenda.awaits(8)


def test_where_very_many_pools_change_a_full_scan_takes_their_place() -> None:
    agenda = Agenda()
    agenda.take(1)
    agenda.finished(1)
    for pool_id in range(2 * MOST_CHANGES):
        agenda.look_again(pool_id, at=1)
    assert agenda.rescan_wanted
    assert len(agenda.take(1).asked_for) == MOST_CHANGES


def test_where_very_many_workloads_change_a_full_scan_takes_their_place() -> None:
    agenda = Agenda()
    agenda.take(1)
    agenda.finished(1)
    agenda.look_at_workloads(range(MOST_CHANGES + 1))
    assert agenda.rescan_wanted
    assert not agenda.take(1).workload_ids
