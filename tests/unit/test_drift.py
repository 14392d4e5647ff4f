"""What counts as drift, what does not, and what a pool is once it is repaired."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import arithmetic_model as model
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_daemon.capacity import drift as module
from pool_daemon.capacity.drift import Drift, PoolComparison, WorkloadState, is_deleted, repaired
from pool_daemon.capacity.pool import Pool, new_pool
from pool_daemon.capacity.workload import CloudUnits, NextAction
from pool_daemon.errors import NotFiniteError

NOW = 1_700_000_000
COMPUTE = CloudUnits(1.5, 0.0, 0.0)
STORAGE = CloudUnits(0.0, 0.25, 0.0)
ADDRESS = CloudUnits(0.0, 0.0, 1.0)
NOTHING = CloudUnits(0.0, 0.0, 0.0)

units = st.builds(CloudUnits, *[st.integers(0, 100_000).map(lambda thousandths: thousandths / 1000)] * 3)


Units = Mapping[int, CloudUnits | None]


def pool_of(units_of: Units) -> Pool:
    pool = new_pool(7, 274, 0, ["a node"], now=NOW)
    pool.add_capacity(1e6, 2e6, 3e6, now=NOW)
    for workload_id, each in units_of.items():
        pool.add_workload(workload_id, *(each or NOTHING), now=NOW)
    return pool


def find_drift(
    pool: Pool, units_of: Units, *, deleted: Collection[int] = (), missing: Collection[int] = ()
) -> Drift | None:
    """Compare a pool with workloads of those units, in slices of two ids."""
    known = {
        workload_id: WorkloadState(deleted=workload_id in deleted, units=units)
        for workload_id, units in units_of.items()
        if workload_id not in missing
    }
    comparison = PoolComparison(pool)
    ids = pool.active_workload_ids or []
    for start in range(0, len(ids), 2):
        comparison.add(ids[start : start + 2], known)
    assert comparison.missing == len(set(missing).intersection(ids))
    return comparison.drift()


def test_a_pool_that_agrees_with_its_workloads_has_not_drifted() -> None:
    units_of = {1: COMPUTE, 2: STORAGE, 3: ADDRESS, 4: NOTHING}
    assert find_drift(pool_of(units_of), units_of) is None


def test_the_id_of_a_deleted_workload_is_dropped_with_what_it_drained() -> None:
    units_of = {1: COMPUTE, 2: STORAGE, 3: ADDRESS}
    drift = find_drift(pool_of(units_of), units_of, deleted=[1, 3])
    assert drift is not None
    assert drift.dropped == (1, 3)
    assert drift.excess == (1.5, 0.0, 1.0)
    assert drift.rates == STORAGE


def test_the_id_of_a_free_deleted_workload_is_dropped_too() -> None:
    units_of = {1: NOTHING, 2: STORAGE}
    drift = find_drift(pool_of(units_of), units_of, deleted=[1])
    assert drift is not None
    assert (drift.dropped, drift.excess) == ((1,), NOTHING)


def test_of_a_deleted_workload_the_units_need_not_be_known() -> None:
    drift = find_drift(pool_of({1: COMPUTE, 2: STORAGE}), {1: None, 2: STORAGE}, deleted=[1])
    assert drift is not None
    assert (drift.dropped, drift.rates) == ((1,), STORAGE)


@pytest.mark.parametrize("missing", [[1], [2], [3], [1, 2, 3, 4]])
def test_a_missing_document_is_no_evidence_of_anything_in_the_whole_pool(missing: list[int]) -> None:
    units_of = {1: COMPUTE, 2: STORAGE, 3: ADDRESS, 4: NOTHING}
    pool = replace(pool_of(units_of), active_cu=7.0)
    assert find_drift(pool, units_of, missing=missing, deleted=[4]) is None


def test_a_workload_that_the_pool_does_not_list_yet_is_not_added() -> None:
    assert find_drift(pool_of({1: COMPUTE}), {1: COMPUTE, 2: STORAGE}) is None


@pytest.mark.parametrize("action", list(NextAction))
def test_only_a_document_that_says_so_is_that_of_a_deleted_workload(action: NextAction) -> None:
    assert is_deleted({"next_action": int(action)}) == (action is NextAction.DELETED)


@pytest.mark.parametrize("document", [{}, {"next_action": None}, {"next_action": "6"}, {"next_action": float("nan")}])
def test_a_workload_whose_next_action_makes_no_sense_may_still_run_and_counts(document: dict[str, Any]) -> None:
    assert not is_deleted(document)


@pytest.mark.parametrize("rate", ["active_cu", "active_su", "active_ipv4"])
def test_a_rate_that_is_off_by_a_thousandth_has_drifted(rate: str) -> None:
    units_of = {1: COMPUTE, 2: STORAGE, 3: ADDRESS}
    pool = pool_of(units_of)
    drift = find_drift(replace(pool, **{rate: getattr(pool, rate) + 0.001}), units_of)
    assert drift is not None
    assert sorted(drift.excess) == [0.0, 0.0, 0.001]
    assert drift.rates == (1.5, 0.25, 1.0)


@pytest.mark.parametrize(
    ("missing", "drifts"),
    [("active_ipv4", False), ("ipv4us", True), ("last_updated", False), ("sponsor_tid", True)],
)
def test_a_repair_that_would_have_to_add_a_field_is_none(missing: str, drifts: bool) -> None:  # noqa: FBT001 - the example
    """The explorer of old counted no addresses; a write of the daemon adds no field that a document lacks."""
    units_of = {1: COMPUTE, 3: ADDRESS}
    pool = replace(pool_of(units_of), active_ipv4=0.0, missing=frozenset([missing]))
    assert (find_drift(pool, units_of) is not None) == drifts


def test_a_pool_that_lacks_what_nothing_uses_is_repaired() -> None:
    pool = replace(pool_of({1: COMPUTE, 2: COMPUTE}), missing=frozenset(["ipv4us", "active_ipv4"]))
    assert find_drift(pool, {1: COMPUTE, 2: COMPUTE}, deleted=[2]) is not None


def test_nothing_is_said_about_a_pool_with_a_workload_whose_units_are_unknown() -> None:
    assert (
        find_drift(pool_of({1: COMPUTE, 2: STORAGE, 3: ADDRESS}), {1: None, 2: STORAGE, 3: ADDRESS}, deleted=[3])
        is None
    )


def test_an_id_that_is_listed_twice_counts_once() -> None:
    pool = replace(pool_of({1: COMPUTE}), active_workload_ids=[1, 1, 1], active_cu=3.0)
    drift = find_drift(pool, {1: COMPUTE})
    assert drift is not None
    assert (drift.dropped, drift.rates) == ((), COMPUTE)


def test_more_than_a_repair_drops_is_dropped_by_several_and_the_last_corrects_the_rates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MOST_DROPPED", 2)
    units_of = dict.fromkeys(range(1, 6), COMPUTE)
    pool = pool_of(units_of)
    dropped = []
    while drift := find_drift(pool, units_of, deleted=[1, 2, 3, 4]):
        dropped.append(drift.dropped)
        pool = repaired(pool, drift, now=NOW)
        pool.active_workload_ids = [each for each in pool.active_workload_ids or [] if each not in drift.dropped]
    assert dropped == [(1, 2), (3, 4)]
    assert (pool.active_workload_ids, pool.active_cu) == ([5], COMPUTE.cu)


def test_units_below_zero_drain_nothing_as_in_the_explorer() -> None:
    assert find_drift(pool_of({1: CloudUnits(-2.0, 0.5, 0.0)}), {1: CloudUnits(-2.0, 0.5, 0.0)}) is None


@pytest.mark.parametrize("listed", [None, []])
def test_a_pool_without_workloads_keeps_its_kind_of_empty_list(listed: list[int] | None) -> None:
    pool = replace(pool_of({}), active_workload_ids=listed, active_cu=2.0)
    drift = find_drift(pool, {})
    assert drift is not None
    after = repaired(pool, drift, now=NOW)
    assert (after.active_workload_ids, after.active_cu) == (listed, 0.0)


def test_two_drifts_are_the_same_whatever_else_happened_to_the_pool_in_between() -> None:
    units_of = {1: COMPUTE, 2: STORAGE, 3: ADDRESS, 4: COMPUTE}
    before = pool_of({1: COMPUTE, 2: STORAGE, 3: ADDRESS})
    after = replace(before)
    after.add_capacity(5, 5, 5, now=NOW + 9)
    after.add_workload(4, *COMPUTE, now=NOW + 9)
    after.remove_workload(1, *COMPUTE, now=NOW + 9)
    first, second = (find_drift(pool, units_of, deleted=[2]) for pool in (before, after))
    assert first is not None
    assert (first, hash(first)) == (second, hash(second))


def test_another_id_that_is_dropped_is_another_drift() -> None:
    units_of = {1: COMPUTE, 2: COMPUTE}
    pool = pool_of(units_of)
    assert find_drift(pool, units_of, deleted=[1]) != find_drift(pool, units_of, deleted=[2])


@given(st.lists(st.tuples(st.integers(1, 8), units), max_size=60))
def test_what_adding_and_removing_in_any_order_leaves_behind_is_no_drift(steps: list[tuple[int, CloudUnits]]) -> None:
    pool, units_of = pool_of({}), dict[int, CloudUnits]()
    for workload_id, each in steps:
        if workload_id in units_of:
            pool.remove_workload(workload_id, *units_of.pop(workload_id), now=NOW)
        else:
            pool.add_workload(workload_id, *each, now=NOW)
            units_of[workload_id] = each
    assert find_drift(pool, units_of) is None


@given(st.dictionaries(st.integers(1, 8), units, min_size=1), st.data(), st.integers(-100, 10**6))
def test_a_repaired_pool_agrees_and_is_what_the_rules_make_of_it(
    units_of: dict[int, CloudUnits], data: st.DataObject, elapsed_seconds: int
) -> None:
    pool = pool_of(units_of)
    deleted = data.draw(st.sets(st.sampled_from(sorted(units_of)), min_size=1))
    drift = find_drift(pool, units_of, deleted=deleted)
    assert drift is not None
    after = repaired(pool, drift, now=NOW + elapsed_seconds)
    after.active_workload_ids = [each for each in after.active_workload_ids or [] if each not in drift.dropped]

    expected = pool.to_json()
    model.sync(expected, NOW + elapsed_seconds)
    expected.update(active_workload_ids=[each for each in pool.active_workload_ids or [] if each not in deleted])
    for number, name in enumerate(("active_cu", "active_su", "active_ipv4")):
        expected[name] = 0.0
        for workload_id in expected["active_workload_ids"]:
            expected[name] += units_of[workload_id][number]
    model.recompute(expected)
    assert after.to_json() == expected
    assert find_drift(after, units_of) is None


def test_rates_that_no_double_can_hold_are_refused() -> None:
    units_of = {1: CloudUnits(1e308, 0.0, 0.0), 2: CloudUnits(1e308, 0.0, 0.0)}
    pool = replace(pool_of({}), active_workload_ids=[1, 2])
    drift = find_drift(pool, units_of)
    assert drift is not None
    with pytest.raises(NotFiniteError):
        repaired(pool, drift, now=NOW)
