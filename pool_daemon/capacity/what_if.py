"""What would become of a pool: capacity and workloads added or removed, and the two questions before a deployment.

Nothing is changed: every function returns a copy. The explorer asks the same questions, under the names of
`has_capacity` and `is_allowed`, before it deploys a workload.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pool_daemon.capacity.exhaustion import RESOURCES
from pool_daemon.capacity.outlook import Outlook, first_to_run_out
from pool_daemon.capacity.pool import Amounts, Pool
from pool_daemon.capacity.workload import CloudUnits


@dataclass(frozen=True, slots=True)
class Change:
    """One workload that would be added or removed, and what it drains; one with an id of its own counts once."""

    workload_id: int
    units: CloudUnits


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What would be changed, in this order: `bought` (unit seconds) added, workloads removed, workloads added."""

    bought: Amounts | None = None
    removed: Sequence[Change] = ()
    added: Sequence[Change] = ()


def what_if(pool: Pool, changes: Changes, *, now: int) -> Pool:
    """Return what the pool would be if all of this were done at the unix second `now`; without changes it is synced.

    As in the explorer, adding a workload that is listed, or removing one that is not, does nothing at all. Raises
    NotFiniteError as the pool's own methods do.
    """
    after = replace(pool)
    if not (changes.bought or changes.removed or changes.added):
        after.sync_current_capacity(now)
    if changes.bought is not None:
        after.add_capacity(*changes.bought, now=now)
    for each in changes.removed:
        after.remove_workload(each.workload_id, *each.units, now=now)
    for each in changes.added:
        after.add_workload(each.workload_id, *each.units, now=now)
    return after


def unused_ids(pool: Pool, *, count: int) -> list[int]:
    """Return ids for workloads that do not exist: below 0, where the explorer gives none, and not listed."""
    lowest = min(pool.active_workload_ids or (), default=0)
    return [min(lowest, 0) - number for number in range(1, count + 1)]


def has_capacity(pool: Pool, *, seconds: int, now: int) -> bool:
    """Return whether a pool lasts longer than `seconds` from the unix second `now`, by its `empty_at`.

    The explorer deploys a workload only if the pool with it added lasts longer than 120 s.
    """
    return pool.empty_at > now + seconds


def is_allowed(pool: Pool, *, node_id: str | None = None, owner_tid: int | None = None) -> bool:
    """Return whether a workload of that customer on that node may be deployed in a pool; None is not asked for."""
    on_node = node_id is None or pool.allowed_in_pool(node_id)
    return on_node and (owner_tid is None or pool.customer_tid == owner_tid)


def staying(workloads: Sequence[CloudUnits], outlooks: Sequence[Outlook]) -> list[bool]:
    """Return of each workload whether it stays when the first resource of its pool runs out: it uses none of that."""
    first = first_to_run_out(outlooks)
    if first is None:
        return [True] * len(workloads)
    gone = {each.resource for each in outlooks if not each.is_unused and each.runs_out_at == first.runs_out_at}
    return [
        not any(rate > 0 and resource in gone for resource, rate in zip(RESOURCES, units, strict=True))
        for units in workloads
    ]
