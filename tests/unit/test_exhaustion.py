"""What rounding dust in a rate comes to."""

from dataclasses import replace

import pytest

from pool_daemon.capacity.exhaustion import Resource, evaluate, exhausted_resources
from pool_daemon.capacity.pool import NEVER, Pool, new_pool

BOUGHT_AT = 1_700_000_000
VOLUME = {"_id": 12, "workload_type": 2, "size": 300, "type": 1}
CONTAINER = {
    "_id": 11,
    "workload_type": 1,
    "capcity": {"cpu": 2, "memory": 4096, "disk_size": 0, "disk_type": 1},
}


def pool(cus: float, sus: float) -> Pool:
    pool = new_pool(1, 7, 0, None, now=BOUGHT_AT)
    pool.add_capacity(cus, sus, 0, now=BOUGHT_AT)
    pool.add_workload(11, 1, 0, 0, now=BOUGHT_AT)
    pool.add_workload(12, 0, 1, 0, now=BOUGHT_AT)
    return pool


@pytest.mark.parametrize("dust", [0.000009, -0.000009, -(2.0**-54)])
def test_rounding_dust_exhausts_nothing_and_asks_for_no_other_check(dust: float) -> None:
    drained = replace(pool(100, 0.000001), active_su=dust, last_updated=BOUGHT_AT + 200, cus=0.0)
    assert exhausted_resources(drained) == {Resource.COMPUTE, Resource.ADDRESSES}
    evaluation = evaluate(drained, [VOLUME, CONTAINER], now=BOUGHT_AT + 200)
    assert [each.document["_id"] for each in evaluation.exhausted_workloads] == [CONTAINER["_id"]]
    assert evaluation.look_again_at is None


def test_what_is_left_behind_the_end_of_time_is_looked_at_then() -> None:
    endless = replace(pool(100, 1e6), last_updated=NEVER)
    assert evaluate(endless, [VOLUME], now=BOUGHT_AT).look_again_at == NEVER
