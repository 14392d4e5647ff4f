"""What would become of a pool: the explorer's own results, and its two questions before a deployment."""

import copy
from typing import Any

import golden
import pytest

from pool_daemon.capacity.outlook import outlook
from pool_daemon.capacity.pool import NEVER, Pool, new_pool
from pool_daemon.capacity.what_if import Change, Changes, has_capacity, is_allowed, staying, unused_ids, what_if
from pool_daemon.capacity.workload import CloudUnits

NOW = 1_600_000_000
EXPLORER_SECONDS = 120


def a_pool(*workloads: tuple[int, CloudUnits], bought: tuple[float, float, float] = (1000, 1000, 1000)) -> Pool:
    pool = new_pool(7, 274, 0, ["a node", "another"], now=NOW)
    pool.add_capacity(*bought, now=NOW)
    for workload_id, units in workloads:
        pool.add_workload(workload_id, *units, now=NOW)
    return pool


def as_changes(do: dict[str, Any]) -> Changes:
    numbers = CloudUnits(do["cu"], do["su"], do["ipv4u"])
    match do["op"]:
        case "add_capacity":
            return Changes(bought=numbers)
        case "add_workload":
            return Changes(added=[Change(do["id"], numbers)])
        case "remove_workload":
            return Changes(removed=[Change(do["id"], numbers)])
        case _:
            return Changes()


def test_every_step_of_the_explorer_is_foreseen_to_the_bit() -> None:
    steps = questions = 0
    for sequence in golden.sequences():
        pool = new_pool(7, 274, 0, None, now=sequence["created_at"])
        for step in sequence["steps"]:
            do, expected, before = step["do"], step["then"], copy.deepcopy(pool)
            after = what_if(pool, as_changes(do), now=do["at"])
            found = {
                name: each or [] if name == "active_workload_ids" else each for name, each in after.to_json().items()
            }
            assert {name: found[name] for name in expected} == expected, (sequence["name"], do)
            assert pool == before, "only a copy is changed"
            for seconds in (EXPLORER_SECONDS, max(expected["empty_at"] - do["at"], 0)):
                lasts = expected["empty_at"] > do["at"] + seconds
                assert has_capacity(after, seconds=seconds, now=do["at"]) == lasts
                questions += 1
            steps += 1
            pool = after
    assert steps > 4000
    assert questions == 2 * steps


def test_all_changes_at_once_are_those_one_after_the_other() -> None:
    pool = a_pool((1, CloudUnits(1, 2, 0)), (2, CloudUnits(0.5, 0, 1)))
    changes = Changes(
        bought=(500, 0, 7), removed=[Change(1, CloudUnits(1, 2, 0))], added=[Change(-1, CloudUnits(0.25, 3, 0))]
    )
    expected = copy.deepcopy(pool)
    expected.add_capacity(500, 0, 7, now=NOW + 10)
    expected.remove_workload(1, 1, 2, 0, now=NOW + 10)
    expected.add_workload(-1, 0.25, 3, 0, now=NOW + 10)
    assert what_if(pool, changes, now=NOW + 10) == expected


def test_without_changes_a_pool_is_only_brought_up_to_date() -> None:
    pool = a_pool((1, CloudUnits(1, 0, 0)))
    after = what_if(pool, Changes(), now=NOW + 600)
    assert (after.cus, after.last_updated, after.empty_at) == (400, NOW + 600, pool.empty_at)


@pytest.mark.parametrize("listed", [None, [], [5, 9], [-1, 5], [-(2**63), -3]])
def test_new_workloads_are_none_of_the_pool_s(listed: list[int] | None) -> None:
    pool = a_pool()
    pool.active_workload_ids = listed
    ids = unused_ids(pool, count=3)
    assert len(set(ids)) == 3
    assert not set(ids) & set(listed or [])
    assert all(each < 0 for each in ids)


@pytest.mark.parametrize(("seconds", "lasts"), [(999, True), (1000, False), (1001, False)])
def test_a_pool_has_capacity_if_it_lasts_longer_than_that(seconds: int, lasts: bool) -> None:  # noqa: FBT001
    pool = a_pool((1, CloudUnits(1, 0, 0)))
    assert has_capacity(pool, seconds=seconds, now=NOW) is lasts


def test_a_pool_that_nothing_drains_has_capacity_for_ever() -> None:
    pool = a_pool(bought=(0, 0, 0))
    assert pool.empty_at == NEVER
    assert has_capacity(pool, seconds=10**9, now=NOW)


def test_only_the_owner_may_deploy_and_only_on_the_pool_s_nodes() -> None:
    pool = a_pool()
    assert is_allowed(pool, node_id="another", owner_tid=274)
    assert is_allowed(pool, node_id="a node")
    assert is_allowed(pool, owner_tid=274)
    assert not is_allowed(pool, node_id="a third", owner_tid=274)
    assert not is_allowed(pool, node_id="a node", owner_tid=275)
    pool.node_ids = None
    assert not is_allowed(pool, node_id="a node", owner_tid=274)


def test_what_uses_nothing_that_runs_out_first_stays() -> None:
    compute, storage, both, free = CloudUnits(2, 0, 0), CloudUnits(0, 1, 0), CloudUnits(1, 1, 0), CloudUnits(0, 0, 0)
    workloads = [compute, storage, both, free]
    pool = a_pool(*enumerate(workloads, start=1))
    assert staying(workloads, outlook(pool, now=NOW)) == [False, True, False, True]
    assert staying(workloads, outlook(a_pool(), now=NOW)) == [True] * 4


def test_resources_that_run_out_in_one_second_take_the_workloads_of_both() -> None:
    compute, storage, address = CloudUnits(1, 0, 0), CloudUnits(0, 1, 0), CloudUnits(0, 0, 0.5)
    workloads = [compute, storage, address]
    pool = a_pool(*enumerate(workloads, start=1))
    assert staying(workloads, outlook(pool, now=NOW)) == [False, False, True]
    exhausted = outlook(a_pool(*enumerate(workloads, start=1), bought=(0, 0, 7)), now=NOW)
    assert staying(workloads, exhausted) == [False, False, True]
