from pool_daemon.capacity.pool import Pool, new_pool
from pool_daemon.capacity.verdict import Going, Resource, overdue_since

BOUGHT_AT = 1_700_000_000


def pool(cus: float, sus: float) -> Pool:
    pool = new_pool(1, 7, 0, None, now=BOUGHT_AT)
    pool.add_capacity(cus, sus, 0, now=BOUGHT_AT)
    pool.add_workload(11, 1, 0, 0, now=BOUGHT_AT)
    pool.add_workload(12, 0, 1, 0, now=BOUGHT_AT)
    return pool


def going(*resources: Resource) -> Going:
    return Going({}, resources)


def test_what_uses_the_resource_that_ran_out_first_is_overdue_since_the_pool_ran_empty() -> None:
    drained = pool(100, 1e6)
    assert overdue_since(drained, [going(Resource.COMPUTE)]) == drained.empty_at == BOUGHT_AT + 100


def test_what_uses_only_another_resource_is_overdue_since_that_one_ran_out() -> None:
    assert overdue_since(pool(100, 1e6), [going(Resource.STORAGE)]) == BOUGHT_AT + 1_000_000


def test_of_several_the_first_counts() -> None:
    drained = pool(100, 1e6)
    first = going(Resource.STORAGE, Resource.COMPUTE)
    assert overdue_since(drained, [going(Resource.STORAGE), first]) == BOUGHT_AT + 100


def test_what_was_settled_since_is_overdue_since_then_at_most() -> None:
    drained = pool(100, 1e6)
    drained.sync_current_capacity(BOUGHT_AT + 5000)
    assert overdue_since(drained, [going(Resource.COMPUTE)]) == BOUGHT_AT + 5000
    assert overdue_since(drained, [going(Resource.STORAGE)]) == BOUGHT_AT + 1_000_000
