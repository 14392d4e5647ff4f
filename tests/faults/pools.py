"""Many pools at once."""

import time
from collections.abc import Iterable

from arithmetic_model import Rates
from explorer import CONTAINER, Explorer, Purchase


def overdue(explorer: Explorer, count: int) -> list[Purchase]:
    """Create pools that ran empty a minute ago, with a workload each."""
    bought_at = int(time.time()) - 60
    pools = [explorer.draft(Rates(cu=0.5), [CONTAINER], bought_at=bought_at) for _ in range(count)]
    explorer.create(pools)
    return pools


def falling_due(
    explorer: Explorer, count: int, *, within_seconds: float, in_seconds: float = 1.5, bought_at: int | None = None
) -> list[Purchase]:
    """Create pools that run empty one after the other, with a workload each, the first of them in a second or so."""
    amounts = [Rates(cu=in_seconds + within_seconds * number / count) for number in range(count)]
    pools = [explorer.draft(amount, [CONTAINER], bought_at=bought_at) for amount in amounts]
    explorer.create(pools)
    return pools


def ids_of(pools: Iterable[Purchase]) -> list[int]:
    """List the ids of all workloads of some pools."""
    return [workload_id for pool in pools for workload_id in pool.workload_ids]
