"""What counts as drift, what does not, and what a pool is once its books are right."""

from dataclasses import replace
from typing import Any

import arithmetic_model as model
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_daemon.capacity.cloud_units import CloudUnits
from pool_daemon.capacity.drift import Known, counts, find_drift, mended
from pool_daemon.capacity.pool import Pool, new_pool
from pool_daemon.capacity.workload import NextAction
from pool_daemon.errors import NotFiniteError

NOW = 1_700_000_000
COMPUTE = CloudUnits(1.5, 0.0, 0.0)
STORAGE = CloudUnits(0.0, 0.25, 0.0)
ADDRESS = CloudUnits(0.0, 0.0, 1.0)
NOTHING = CloudUnits(0.0, 0.0, 0.0)

units = st.builds(CloudUnits, *[st.integers(0, 100_000).map(lambda thousandths: thousandths / 1000)] * 3)


def pool_of(known: Known) -> Pool:
    pool = new_pool(7, 274, 0, ["a node"], now=NOW)
    pool.add_capacity(1e6, 2e6, 3e6, now=NOW)
    for workload_id, each in known.items():
        pool.add_workload(workload_id, *(each or NOTHING), now=NOW)
    return pool


def test_books_that_agree_with_the_workloads_have_not_drifted() -> None:
    known = {1: COMPUTE, 2: STORAGE, 3: ADDRESS, 4: NOTHING}
    assert find_drift(pool_of(known), known) is None


def test_the_id_of_a_workload_that_is_gone_is_dropped_with_what_it_drained() -> None:
    drift = find_drift(pool_of({1: COMPUTE, 2: STORAGE, 3: ADDRESS}), {2: STORAGE})
    assert drift is not None
    assert drift.dropped == (1, 3)
    assert drift.excess == (1.5, 0.0, 1.0)
    assert (drift.workload_ids, drift.rates) == ((2,), STORAGE)


def test_the_id_of_a_free_workload_that_is_gone_is_dropped_too() -> None:
    drift = find_drift(pool_of({1: NOTHING, 2: STORAGE}), {2: STORAGE})
    assert drift is not None
    assert (drift.dropped, drift.excess) == ((1,), NOTHING)


def test_a_workload_that_the_pool_does_not_list_yet_is_not_added() -> None:
    assert find_drift(pool_of({1: COMPUTE}), {1: COMPUTE, 2: STORAGE}) is None


@pytest.mark.parametrize("action", list(NextAction))
def test_only_a_deleted_workload_counts_no_more(action: NextAction) -> None:
    assert counts({"next_action": int(action)}) == (action is not NextAction.DELETED)


@pytest.mark.parametrize("document", [{}, {"next_action": None}, {"next_action": "6"}, {"next_action": float("nan")}])
def test_a_workload_whose_next_action_makes_no_sense_may_still_run_and_counts(document: dict[str, Any]) -> None:
    assert counts(document)


@pytest.mark.parametrize("rate", ["active_cu", "active_su", "active_ipv4"])
def test_a_rate_that_is_off_by_a_thousandth_has_drifted(rate: str) -> None:
    known = {1: COMPUTE, 2: STORAGE, 3: ADDRESS}
    pool = pool_of(known)
    drift = find_drift(replace(pool, **{rate: getattr(pool, rate) + 0.001}), known)
    assert drift is not None
    assert sorted(drift.excess) == [0.0, 0.0, 0.001]
    assert drift.rates == (1.5, 0.25, 1.0)


def test_nothing_is_said_about_a_pool_with_a_workload_whose_units_are_unknown() -> None:
    assert find_drift(pool_of({1: COMPUTE, 2: STORAGE, 3: ADDRESS}), {1: None, 2: STORAGE}) is None


def test_an_id_that_is_listed_twice_counts_once() -> None:
    pool = replace(pool_of({1: COMPUTE}), active_workload_ids=[1, 1])
    drift = find_drift(pool, {1: COMPUTE})
    assert drift is not None
    assert (drift.dropped, drift.workload_ids, drift.rates) == ((1,), (1,), COMPUTE)


def test_units_below_zero_drain_nothing_as_in_the_explorer() -> None:
    assert find_drift(pool_of({1: CloudUnits(-2.0, 0.5, 0.0)}), {1: CloudUnits(-2.0, 0.5, 0.0)}) is None


@pytest.mark.parametrize("listed", [None, []])
def test_a_pool_without_workloads_keeps_its_kind_of_empty_list(listed: list[int] | None) -> None:
    pool = replace(pool_of({}), active_workload_ids=listed, active_cu=2.0)
    drift = find_drift(pool, {})
    assert drift is not None
    after = mended(pool, drift, now=NOW)
    assert (after.active_workload_ids, after.active_cu) == (listed, 0.0)


def test_two_drifts_are_the_same_whatever_else_happened_to_the_pool_in_between() -> None:
    known = {1: COMPUTE, 3: ADDRESS}
    before = pool_of({1: COMPUTE, 2: STORAGE, 3: ADDRESS})
    after = replace(before)
    after.add_capacity(5, 5, 5, now=NOW + 9)
    after.add_workload(4, *COMPUTE, now=NOW + 9)
    after.remove_workload(1, *COMPUTE, now=NOW + 9)
    first, second = find_drift(before, known), find_drift(after, known | {4: COMPUTE})
    assert first is not None
    assert (first, hash(first)) == (second, hash(second))


def test_another_id_gone_is_another_drift() -> None:
    pool = pool_of({1: COMPUTE, 2: COMPUTE})
    assert find_drift(pool, {1: COMPUTE}) != find_drift(pool, {2: COMPUTE})


@given(st.lists(st.tuples(st.integers(1, 8), units), max_size=60))
def test_what_adding_and_removing_in_any_order_leaves_behind_is_no_drift(steps: list[tuple[int, CloudUnits]]) -> None:
    pool, known = pool_of({}), dict[int, CloudUnits]()
    for workload_id, each in steps:
        if workload_id in known:
            pool.remove_workload(workload_id, *known.pop(workload_id), now=NOW)
        else:
            pool.add_workload(workload_id, *each, now=NOW)
            known[workload_id] = each
    assert find_drift(pool, known) is None


@given(st.dictionaries(st.integers(1, 8), units, min_size=1), st.data(), st.integers(-100, 10**6))
def test_mended_books_agree_and_the_pool_is_what_the_rules_make_of_it(
    known: dict[int, CloudUnits], data: st.DataObject, elapsed_seconds: int
) -> None:
    pool = pool_of(known)
    for gone in data.draw(st.sets(st.sampled_from(sorted(known)), min_size=1)):
        del known[gone]
    drift = find_drift(pool, known)
    assert drift is not None
    after = mended(pool, drift, now=NOW + elapsed_seconds)

    expected = pool.to_json()
    model.sync(expected, NOW + elapsed_seconds)
    expected.update(active_workload_ids=[each for each in pool.active_workload_ids or [] if each in known])
    for number, name in enumerate(("active_cu", "active_su", "active_ipv4")):
        expected[name] = 0.0
        for workload_id in expected["active_workload_ids"]:
            expected[name] += known[workload_id][number]
    model.recompute(expected)
    assert after.to_json() == expected
    assert find_drift(after, known) is None


def test_rates_that_no_double_can_hold_are_refused() -> None:
    known = {1: CloudUnits(1e308, 0.0, 0.0), 2: CloudUnits(1e308, 0.0, 0.0)}
    pool = replace(pool_of({}), active_workload_ids=[1, 2])
    drift = find_drift(pool, known)
    assert drift is not None
    with pytest.raises(NotFiniteError):
        mended(pool, drift, now=NOW)
