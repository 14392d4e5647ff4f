"""The pool against the explorer's own results, and the rules that no example can show."""

import copy
import dataclasses
import math
from typing import Any

import golden
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_daemon.capacity.pool import NEVER, Pool, new_pool
from pool_daemon.errors import CapacityError, NotFiniteError

START = 1_600_000_000
DOUBLES = ("cus", "sus", "ipv4us", "active_cu", "active_su", "active_ipv4")

amounts = st.floats(0, 1e12)
rates = st.integers(0, 10**7).map(lambda thousandths: thousandths / 1000)
spans = st.integers(0, 10**9)
operations = st.tuples(
    st.sampled_from(["add_capacity", "add_workload", "remove_workload", "sync"]),
    st.integers(1, 5),
    st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * 3) | st.tuples(rates, rates, rates),
    st.integers(START - 10**6, START + 10**9),
)


def a_pool(**changes: Any) -> Pool:
    return dataclasses.replace(new_pool(7, 274, 0, ["a node"], now=START), **changes)


def a_drained_pool() -> Pool:
    pool = new_pool(7, 274, 0, ["a node"], now=START)
    pool.add_capacity(1000, 2000, 3000, now=START)
    pool.add_workload(1, 1, 2, 3, now=START)
    return pool


def apply(pool: Pool, operation: str, workload_id: int, numbers: tuple[float, float, float], at: int) -> None:
    if operation == "sync":
        pool.sync_current_capacity(at)
    elif operation == "add_capacity":
        pool.add_capacity(*numbers, now=at)
    else:
        getattr(pool, operation)(workload_id, *numbers, now=at)


def bits(state: dict[str, Any]) -> dict[str, Any]:
    return {name: float(value).hex() if name in DOUBLES else value for name, value in state.items()}


def test_every_step_of_every_golden_sequence_ends_in_the_explorers_state_bit_for_bit() -> None:
    steps = 0
    for sequence in golden.sequences():
        pool = new_pool(1, 2, 0, None, now=sequence["created_at"])
        for number, step in enumerate(sequence["steps"]):
            do = step["do"]
            apply(pool, do["op"], do.get("id", 0), (do["cu"], do["su"], do["ipv4u"]), do["at"])
            state = {name: value for name, value in pool.to_json().items() if name in step["then"]}
            assert bits(state) == bits(step["then"]), (sequence["name"], number, do)
            steps += 1
    assert steps == 4993


def test_every_golden_pool_is_read_from_json_and_written_as_it_was() -> None:
    documents = [row["json"] for row in golden.table("pool_bson")]
    assert len(documents) == 40
    for document in documents:
        written = Pool.from_json(document).to_json()
        assert written == document
        assert list(written) == list(document)
        assert all(isinstance(written[name], float) for name in DOUBLES)


def test_a_new_pool_is_empty_and_lasts_for_ever() -> None:
    assert new_pool(7, 274, 5, None, now=START).to_json() == {
        "pool_id": 7,
        "cus": 0,
        "sus": 0,
        "ipv4us": 0,
        "node_ids": None,
        "last_updated": START,
        "active_cu": 0,
        "active_su": 0,
        "active_ipv4": 0,
        "empty_at": NEVER,
        "customer_tid": 274,
        "sponsor_tid": 5,
        "active_workload_ids": [],
    }


def test_a_pool_allows_its_own_nodes_only() -> None:
    assert a_pool(node_ids=["a", "b"]).allowed_in_pool("b")
    assert not a_pool(node_ids=["a", "b"]).allowed_in_pool("c")
    assert not a_pool(node_ids=None).allowed_in_pool("a")


def test_the_scarcest_resource_decides_when_a_pool_is_empty() -> None:
    pool = a_pool()
    pool.add_capacity(1000, 500, 0, now=START)
    pool.add_workload(1, 1, 1, 0, now=START)
    assert pool.empty_at == START + 500


def test_a_pool_without_workloads_becomes_lasting_again_when_its_last_one_leaves() -> None:
    pool = a_drained_pool()
    assert pool.empty_at == START + 1000
    pool.remove_workload(1, 1, 2, 3, now=START + 10)
    assert pool.empty_at == NEVER
    assert pool.active_workload_ids == []


def test_the_last_id_takes_the_place_of_the_one_that_goes() -> None:
    pool = a_pool(active_workload_ids=[1, 2, 3, 4])
    pool.remove_workload(2, 0, 0, 0, now=START)
    assert pool.active_workload_ids == [1, 4, 3]
    pool.remove_workload(3, 0, 0, 0, now=START)
    assert pool.active_workload_ids == [1, 4]


def test_a_lowered_rate_that_is_only_rounding_dust_becomes_nothing_and_the_others_stay() -> None:
    pool = a_pool(active_cu=0.000009, active_su=1.000009, active_ipv4=1.00002, active_workload_ids=[1])
    pool.remove_workload(1, 0, 1, 1, now=START)
    assert (pool.active_cu, pool.active_su) == (0.000009, 0)
    assert pool.active_ipv4 == pytest.approx(0.00002)


def test_dust_below_zero_stays_where_nothing_is_lowered_and_decides_the_end_as_it_does_for_the_explorer() -> None:
    pool = a_pool(cus=10.0, active_cu=-(2.0**-54), active_su=1.0, sus=5.0, active_workload_ids=[1, 2])
    pool.remove_workload(1, 0, 0.5, -1, now=START)
    assert (pool.active_cu, pool.active_su, pool.active_ipv4) == (-(2.0**-54), 0.5, 0)
    assert pool.empty_at == START - 10 * 2**54


@pytest.mark.parametrize("dust", [0.0000099, -0.0000099, 5e-324, -5e-324, 0.0])
def test_rounding_dust_drains_nothing_in_a_decision(dust: float) -> None:
    pool = a_pool(active_cu=dust, active_su=0.00001, active_ipv4=2.0)
    assert pool.draining == (0.0, 0.00001, 2.0)
    assert pool.active_cu == dust


def test_a_null_list_of_workloads_takes_a_workload_and_loses_none() -> None:
    pool = a_pool(active_workload_ids=None)
    pool.remove_workload(1, 1, 1, 1, now=START)
    assert pool.active_workload_ids is None
    pool.add_workload(1, 1, 1, 1, now=START)
    assert pool.active_workload_ids == [1]


def test_a_workload_added_twice_or_removed_twice_counts_once() -> None:
    pool = a_drained_pool()
    before = copy.deepcopy(pool)
    pool.add_workload(1, 5, 5, 5, now=START + 50)
    pool.remove_workload(2, 5, 5, 5, now=START + 50)
    assert pool == before


def test_a_shallow_copy_keeps_its_workloads_when_the_pool_changes() -> None:
    pool = a_drained_pool()
    kept = dataclasses.replace(pool)
    pool.add_workload(2, 1, 1, 1, now=START)
    pool.remove_workload(1, 1, 2, 3, now=START)
    assert kept.active_workload_ids == [1]


def test_a_clock_that_steps_back_credits_nothing() -> None:
    pool = a_drained_pool()
    before = copy.deepcopy(pool)
    pool.sync_current_capacity(START - 3600)
    assert pool == before
    pool.add_capacity(1, 0, 0, now=START - 3600)
    assert (pool.cus, pool.sus, pool.last_updated) == (1001, 2000, START)
    assert pool.empty_at == START + 1000


def test_an_amount_used_up_beyond_what_a_double_holds_leaves_nothing() -> None:
    pool = a_pool(cus=1e308, active_cu=1e308)
    pool.sync_current_capacity(START + 1000)
    assert pool.cus == 0


@pytest.mark.parametrize(
    ("operation", "workload_id"), [("add_capacity", 0), ("add_workload", 2), ("remove_workload", 1)]
)
@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 10**400])
def test_a_number_that_is_not_finite_is_refused_and_changes_nothing(
    number: float, place: int, operation: str, workload_id: int
) -> None:
    numbers = [1.0, 1.0, 1.0]
    numbers[place] = number
    pool = a_drained_pool()
    before = copy.deepcopy(pool)
    with pytest.raises(NotFiniteError, match=r"pool 7: .* must be finite"):
        apply(pool, operation, workload_id, (numbers[0], numbers[1], numbers[2]), START + 10)
    assert pool == before


@pytest.mark.parametrize("name", DOUBLES)
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 10**400])
def test_no_pool_is_made_with_a_number_that_is_not_finite(name: str, number: float) -> None:
    with pytest.raises(NotFiniteError):
        a_pool(**{name: number})


def test_a_sum_that_overflows_is_refused_and_changes_nothing() -> None:
    full = a_pool(cus=1.7e308, active_su=1.7e308)
    before = copy.deepcopy(full)
    with pytest.raises(NotFiniteError):
        full.add_capacity(1.7e308, 5, 5, now=START + 10)
    with pytest.raises(NotFiniteError):
        full.add_workload(1, 1, 1.7e308, 1, now=START + 10)
    assert full == before


def test_a_negative_rate_from_a_damaged_document_cannot_sync_a_pool_to_infinity() -> None:
    damaged = a_pool(cus=1.0, active_cu=-1e308)
    before = copy.deepcopy(damaged)
    with pytest.raises(NotFiniteError):
        damaged.sync_current_capacity(START + 1000)
    assert damaged == before


def test_whole_numbers_become_doubles_so_that_they_are_saved_as_such() -> None:
    pool = a_pool(cus=100, active_cu=1)
    pool.sync_current_capacity(START + 10)
    pool.add_capacity(5, 0, 0, now=START + 10)
    assert all(isinstance(getattr(pool, name), float) for name in DOUBLES)


def test_json_is_read_leniently() -> None:
    document = a_pool().to_json() | {"pool_id": 7.0, "cus": 5, "surprise": [1]}
    del document["node_ids"]
    pool = Pool.from_json(document)
    assert (pool.pool_id, pool.cus, pool.node_ids) == (7, 5.0, None)
    assert isinstance(pool.pool_id, int)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("pool_id", "7", "pool_id is of type str, not a whole number"),
        ("pool_id", True, "pool_id is of type bool, not a whole number"),
        ("pool_id", 7.5, "pool_id is 7.5, not a whole number"),
        ("pool_id", math.inf, "pool_id is inf, not a whole number"),
        ("empty_at", 2**63, "empty_at does not fit an int64"),
        ("empty_at", 1e300, "empty_at does not fit an int64"),
        ("last_updated", None, "last_updated is null, not a whole number"),
        ("cus", "5", "cus is of type str, not a number"),
        ("cus", False, "cus is of type bool, not a number"),
        ("cus", 2**80, "cus does not fit an int64"),
        ("cus", math.nan, "must be finite"),
        ("node_ids", "a", "node_ids is of type str, not an array"),
        ("node_ids", ["a", 5], "node_ids is of type int, not a string"),
        ("active_workload_ids", [5, "a"], "active_workload_ids is of type str, not a whole number"),
    ],
)
def test_json_with_a_wrong_field_is_refused_by_name(field: str, value: object, reason: str) -> None:
    with pytest.raises(CapacityError, match=reason):
        Pool.from_json(a_pool().to_json() | {field: value})


def test_json_without_a_number_has_0_there_but_an_id_there_must_be() -> None:
    document = a_pool(sus=5.0, sponsor_tid=9).to_json()
    del document["sus"], document["sponsor_tid"], document["customer_tid"]
    pool = Pool.from_json(document)
    assert (pool.sus, pool.sponsor_tid, pool.customer_tid) == (0.0, 0, 0)
    assert isinstance(pool.sus, float)
    with pytest.raises(CapacityError, match="pool_id is missing"):
        Pool.from_json({})


@given(st.lists(operations, max_size=20))
def test_whatever_happens_nothing_becomes_negative_or_not_finite_and_no_id_is_there_twice(
    done: list[tuple[str, int, tuple[float, float, float], int]],
) -> None:
    pool = a_pool()
    for operation in done:
        before = copy.deepcopy(pool)
        try:
            apply(pool, *operation)
        except NotFiniteError:
            assert pool == before
        assert all(0 <= getattr(pool, name) < math.inf for name in DOUBLES)
        assert pool.last_updated >= before.last_updated
        assert START <= pool.empty_at <= NEVER
        assert pool.active_workload_ids is not None
        assert len(set(pool.active_workload_ids)) == len(pool.active_workload_ids)


@given(
    st.lists(st.tuples(rates, rates, rates), max_size=12).flatmap(
        lambda used: st.tuples(st.just(used), st.permutations(range(len(used))))
    )
)
def test_workloads_that_leave_in_any_order_leave_nothing_behind(
    workloads: tuple[list[tuple[float, float, float]], list[int]],
) -> None:
    used, order = workloads
    pool = a_pool(cus=1e9)
    for workload_id, units in enumerate(used):
        pool.add_workload(workload_id, *units, now=START)
    for workload_id in order:
        pool.remove_workload(workload_id, *used[workload_id], now=START)
    assert pool.active_workload_ids == []
    assert (pool.active_cu, pool.active_su, pool.active_ipv4) == (0, 0, 0)


@given(left=amounts, rate=rates, first=spans, second=spans)
def test_a_sync_in_two_steps_leaves_what_one_step_leaves(left: float, rate: float, first: int, second: int) -> None:
    at_once, in_two = a_pool(cus=left, active_cu=rate), a_pool(cus=left, active_cu=rate)
    at_once.sync_current_capacity(START + first + second)
    in_two.sync_current_capacity(START + first)
    in_two.sync_current_capacity(START + first + second)
    assert in_two.cus == pytest.approx(at_once.cus, abs=1e-3)


@given(left=amounts, rate=rates, first=spans, second=spans)
def test_a_sync_never_adds_and_doing_it_again_changes_nothing(
    left: float, rate: float, first: int, second: int
) -> None:
    pool = a_pool(cus=left, active_cu=rate, empty_at=5)
    pool.sync_current_capacity(START + first)
    synced = copy.deepcopy(pool)
    pool.sync_current_capacity(START + first)
    assert pool == synced
    pool.sync_current_capacity(START + first + second)
    assert 0 <= pool.cus <= synced.cus <= left
    assert pool.empty_at == 5


@given(left=amounts, rate=rates.filter(bool))
def test_at_empty_at_less_than_a_second_is_left_and_a_second_before_that_there_was_more(
    left: float, rate: float
) -> None:
    pool = a_pool()
    pool.add_capacity(left, 0, 0, now=START)
    pool.add_workload(1, rate, 0, 0, now=START)
    margin = max(left, 1) * 1e-9
    pool.sync_current_capacity(pool.empty_at - 1)
    assert pool.cus >= rate - margin or pool.empty_at == START
    pool.sync_current_capacity(max(pool.empty_at, START))
    assert pool.cus < rate + margin
