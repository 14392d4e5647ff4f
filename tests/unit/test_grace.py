"""Grace, as decided: when a workload goes that may stay a while, and what a pool's record says then."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_daemon.capacity.exhaustion import Resource
from pool_daemon.capacity.grace import (
    MOST_SPENT,
    RECHECK_SECONDS,
    WINDOW_SECONDS,
    Ended,
    GraceDecision,
    GraceEnd,
    GracePolicy,
    PoolGrace,
    View,
    decide,
    grace_end,
    spent_seconds,
    topped_up,
)
from pool_daemon.capacity.pool import Pool, new_pool
from pool_daemon.capacity.workload import WorkloadType

DAY = 86_400
BOUGHT_AT = 1_700_000_000
ENDS_AT = BOUGHT_AT + 100
POLICY = GracePolicy({WorkloadType.VOLUME: 7 * DAY, WorkloadType.VIRTUAL_MACHINE: DAY}, budget_seconds=7 * DAY)

CONTAINER = {"_id": 11, "workload_type": 1, "capcity": {"cpu": 2, "memory": 4096, "disk_size": 0, "disk_type": 1}}
VOLUME = {"_id": 12, "workload_type": 2, "size": 300, "type": 1}
MACHINE = {"_id": 13, "workload_type": 12, "size": 1}


def pool(cus: float = 100, sus: float = 100) -> Pool:
    pool = new_pool(1, 7, 0, None, now=BOUGHT_AT)
    pool.add_capacity(cus, sus, 0, now=BOUGHT_AT)
    pool.add_workload(11, 1, 0, 0, now=BOUGHT_AT)
    pool.add_workload(12, 0, 1, 0, now=BOUGHT_AT)
    return pool


def look(
    as_read: Pool,
    now: int,
    *,
    known: PoolGrace | None = None,
    policy: GracePolicy = POLICY,
    workloads: Sequence[dict[str, Any]] = (CONTAINER, VOLUME),
    in_part: bool = False,
    told: bool = True,
) -> GraceDecision:
    synced = replace(as_read)
    synced.sync_current_capacity(now)
    newest = max(each["_id"] for each in workloads) if workloads else 0
    view = View(as_read, synced, now, known or PoolGrace(), newest, in_part, told)
    return decide(policy, view, workloads)


def rewritten(as_read: Pool, now: int) -> Pool:
    """Write a pool as the explorer does when nothing but time has passed."""
    written = replace(as_read)
    written.sync_current_capacity(now)
    return replace(written, empty_at=min(now, written.empty_at) if as_read.empty_at > now else now)


def refilled(as_read: Pool, now: int, seconds: float) -> Pool:
    written = replace(as_read)
    written.add_capacity(0, seconds * written.active_su, 0, now=now)
    return written


def gone(decision: GraceDecision) -> list[Any]:
    return [each.document["_id"] for each in decision.evaluation.exhausted_workloads]


def test_a_type_without_grace_goes_at_once_and_one_with_it_is_anchored_at_the_second_of_the_end() -> None:
    decision = look(pool(), ENDS_AT + 3)
    assert gone(decision) == [11]
    assert decision.began == (Resource.STORAGE,)
    assert decision.after.since == {Resource.STORAGE: ENDS_AT}
    assert decision.evaluation.look_again_at == ENDS_AT + 7 * DAY


@pytest.mark.parametrize(("at", "going"), [(7 * DAY - 1, [11]), (7 * DAY, [11, 12])])
def test_it_goes_at_the_very_second_of_the_end_of_its_grace(at: int, going: list[int]) -> None:
    known = look(pool(), ENDS_AT).after
    decision = look(rewritten(pool(), ENDS_AT + 1), ENDS_AT + at, known=known)
    assert gone(decision) == going
    assert decision.began == ()


def test_writes_of_the_explorer_move_no_anchor_however_many() -> None:
    known, written = look(pool(), ENDS_AT).after, pool()
    for second in range(1, 200):
        written = rewritten(written, ENDS_AT + second)
        decision = look(written, ENDS_AT + second, known=known)
        assert (decision.after, decision.began, decision.ended) == (known, (), ())
        assert decision.evaluation.look_again_at == ENDS_AT + 7 * DAY


def test_a_stale_write_of_the_explorer_from_before_the_end_moves_no_anchor() -> None:
    known = look(pool(), ENDS_AT).after
    stale = replace(pool(), last_updated=ENDS_AT - 1, cus=1.0, sus=1.4)
    decision = look(stale, ENDS_AT + 5, known=known)
    assert (decision.after, decision.began, decision.ended) == (known, (), ())


def test_a_resource_that_lasts_again_has_a_new_anchor_when_it_runs_out_again() -> None:
    known = look(pool(), ENDS_AT).after
    lasting = refilled(rewritten(pool(), ENDS_AT + 1), ENDS_AT + DAY, 1000)
    assert lasting.empty_at == ENDS_AT + DAY  # for there is no compute left
    decision = look(lasting, ENDS_AT + 2 * DAY, known=known)
    assert decision.ended == (Ended(Resource.STORAGE, ENDS_AT, GraceEnd.TOPPED_UP),)
    assert decision.after.since == {Resource.STORAGE: ENDS_AT + DAY + 1000}
    assert decision.after.spent == ((ENDS_AT, ENDS_AT + DAY),)
    assert decision.evaluation.look_again_at == ENDS_AT + DAY + 1000 + 6 * DAY


def test_a_pool_that_is_not_due_any_more_is_out_of_grace_and_has_spent_what_it_had() -> None:
    known = look(pool(), ENDS_AT).after
    written = refilled(rewritten(pool(), ENDS_AT), ENDS_AT + 50, 1000)
    written.add_capacity(1000, 0, 0, now=ENDS_AT + 50)
    decision = topped_up(POLICY, written, known, now=ENDS_AT + 60)
    assert decision.after == PoolGrace(spent=((ENDS_AT, ENDS_AT + 50),))
    assert [each.reason for each in decision.ended] == [GraceEnd.TOPPED_UP]


def test_what_nothing_uses_any_more_is_over_but_stays_anchored_for_it_is_as_empty_as_before() -> None:
    known = look(pool(), ENDS_AT).after
    written = rewritten(pool(), ENDS_AT + 5)
    written.add_capacity(1000, 0, 0, now=ENDS_AT + 5)
    written.remove_workload(12, 0, 1, 0, now=ENDS_AT + 5)
    assert written.empty_at > ENDS_AT + 5
    decision = topped_up(POLICY, written, known, now=ENDS_AT + 6)
    assert decision.after.since == known.since
    assert decision.after.running == ()


def test_a_pool_whose_end_lies_ahead_by_the_explorers_clock_alone_stays_in_grace() -> None:
    known = look(pool(), ENDS_AT).after
    written = replace(rewritten(pool(), ENDS_AT + 9), last_updated=ENDS_AT + 12, empty_at=ENDS_AT + 12)
    assert topped_up(POLICY, written, known, now=ENDS_AT + 10).after == known


def test_a_grace_that_is_over_runs_on_if_it_spares_something_all_the_same() -> None:
    known = look(pool(), ENDS_AT).after
    over = look(rewritten(pool(), ENDS_AT + 9), ENDS_AT + 9, known=known, workloads=[CONTAINER]).after
    again = look(rewritten(pool(), ENDS_AT + 9), ENDS_AT + 20, known=over).after
    assert again.running == (Resource.STORAGE,)


def test_a_workload_that_was_created_after_the_end_has_no_grace() -> None:
    known = look(pool(), ENDS_AT).after
    late = VOLUME | {"_id": 14}
    assert gone(look(rewritten(pool(), ENDS_AT + 9), ENDS_AT + 9, known=known, workloads=[VOLUME, late])) == [14]


def test_once_nothing_is_left_in_grace_it_is_over_and_counts_no_further() -> None:
    known = look(pool(), ENDS_AT).after
    decision = look(rewritten(pool(), ENDS_AT + 9), ENDS_AT + 9, known=known, workloads=[CONTAINER])
    assert decision.after.over == {Resource.STORAGE: ENDS_AT + 9}
    assert decision.after.spent == ((ENDS_AT, ENDS_AT + 9),)
    again = look(rewritten(pool(), ENDS_AT + 9), ENDS_AT + 50, known=decision.after, workloads=[CONTAINER])
    assert (again.after, again.ended) == (decision.after, ())


def test_a_part_of_a_pool_does_not_tell_that_nothing_is_left_in_grace() -> None:
    known = look(pool(), ENDS_AT).after
    written = rewritten(pool(), ENDS_AT + 9)
    assert look(written, ENDS_AT + 9, known=known, workloads=[CONTAINER], in_part=True).after == known
    assert look(written, ENDS_AT + 7 * DAY, known=known, workloads=[CONTAINER], in_part=True).after.running == ()


def test_a_machine_goes_when_the_first_of_its_resources_is_out_of_grace() -> None:
    known = PoolGrace(since={Resource.COMPUTE: ENDS_AT, Resource.STORAGE: ENDS_AT - 500})
    resources = (Resource.COMPUTE, Resource.STORAGE)
    assert grace_end(POLICY, known, WorkloadType.VIRTUAL_MACHINE, resources, ENDS_AT) == ENDS_AT - 500 + DAY
    assert grace_end(POLICY, known, WorkloadType.CONTAINER, resources, ENDS_AT) == ENDS_AT - 500


def test_an_operator_sets_the_end_of_the_anchors_that_he_saw() -> None:
    known = replace(look(pool(), ENDS_AT).after, operator_until=ENDS_AT + 20 * DAY, operator_at=ENDS_AT + 5)
    later = replace(known, since={Resource.STORAGE: ENDS_AT, Resource.COMPUTE: ENDS_AT + 6})
    assert grace_end(POLICY, known, WorkloadType.VOLUME, [Resource.STORAGE], ENDS_AT) == ENDS_AT + 20 * DAY
    assert grace_end(POLICY, later, WorkloadType.VOLUME, [Resource.COMPUTE], ENDS_AT) == ENDS_AT + 6 + 7 * DAY - 6
    ended = replace(known, operator_until=ENDS_AT + 5)
    decision = look(rewritten(pool(), ENDS_AT + 5), ENDS_AT + 6, known=ended)
    assert gone(decision) == [11, 12]
    assert [each.reason for each in decision.ended] == [GraceEnd.OPERATOR]


def test_the_budget_cuts_what_a_type_may_have_and_comes_back_after_thirty_days() -> None:
    spent = PoolGrace(spent=((ENDS_AT - 10 * DAY, ENDS_AT - 4 * DAY),))
    assert look(pool(), ENDS_AT, known=spent).evaluation.look_again_at == ENDS_AT + DAY
    old = PoolGrace(spent=((ENDS_AT - 40 * DAY, ENDS_AT - 29 * DAY),))
    assert look(pool(), ENDS_AT, known=old).evaluation.look_again_at == ENDS_AT + 6 * DAY
    decision = look(rewritten(pool(), ENDS_AT), ENDS_AT + DAY, known=look(pool(), ENDS_AT, known=spent).after)
    assert gone(decision) == [11, 12]
    assert [each.reason for each in decision.ended] == [GraceEnd.BUDGET]


def test_nothing_that_is_still_to_be_told_goes_before_it_is_told_or_its_time_is_up() -> None:
    policy = replace(POLICY, until_told_seconds=1000)
    known, written = look(pool(), ENDS_AT, policy=policy).after, rewritten(pool(), ENDS_AT)
    end = ENDS_AT + 7 * DAY
    waiting = look(written, end, known=known, policy=policy, told=False)
    assert (gone(waiting), waiting.evaluation.look_again_at) == ([11], end + RECHECK_SECONDS)
    assert gone(look(written, end + 995, known=known, policy=policy, told=False)) == [11]
    assert gone(look(written, end + 1000, known=known, policy=policy, told=False)) == [11, 12]
    assert gone(look(written, end, known=known, policy=policy, told=True)) == [11, 12]


def test_a_document_without_a_time_of_its_own_is_anchored_at_its_end_and_not_long_ago() -> None:
    old = replace(pool(), last_updated=0, sus=0.0, cus=0.0)
    assert look(old, ENDS_AT + 7).after.since == {Resource.STORAGE: ENDS_AT}


@given(st.lists(st.tuples(st.integers(1, 40_000), st.integers(1, 5)), min_size=1, max_size=300))
def test_no_sequence_of_small_top_ups_is_in_grace_for_longer_than_the_budget(turns: list[tuple[int, int]]) -> None:
    policy = replace(POLICY, budget_seconds=100_000)
    now, written, known = ENDS_AT, pool(cus=1e9), PoolGrace()
    times: list[tuple[int, int]] = []
    for waits, lasts in turns:
        decision = look(written, now, known=known, policy=policy, workloads=[VOLUME])
        if not decision.evaluation.in_grace:
            break
        ends_at = decision.evaluation.in_grace[0].grace_ends_at or 0
        known, since = decision.after, decision.after.since[Resource.STORAGE]
        times.append((since, min(ends_at, now + waits)))
        now += waits
        written = refilled(written, now, lasts)
        now += lasts + 1
    assert spent_seconds(times, until=times[0][0] + WINDOW_SECONDS if times else 0) <= 100_000
    assert len(known.spent) <= MOST_SPENT


def test_many_small_times_of_grace_are_kept_as_few_and_none_of_their_seconds_is_lost() -> None:
    known = PoolGrace(spent=tuple((ENDS_AT + 100 * each, ENDS_AT + 100 * each + 7) for each in range(-MOST_SPENT, 0)))
    before = spent_seconds(known.spent, until=ENDS_AT)
    after = look(rewritten(pool(), ENDS_AT), ENDS_AT + 9, known=look(pool(), ENDS_AT, known=known).after, workloads=[])
    assert len(after.after.spent) == MOST_SPENT
    assert spent_seconds(after.after.spent, until=ENDS_AT + 9) == before + 9
