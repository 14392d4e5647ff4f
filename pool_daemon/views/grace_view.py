"""The grace of one pool as people see it: since when, which workload goes when, and what a purchase buys."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pool_daemon.capacity.exhaustion import Resource
from pool_daemon.capacity.grace import GracePolicy, PoolGrace, View, decide, grace_end
from pool_daemon.capacity.pool import Pool
from pool_daemon.capacity.workload import WorkloadType
from pool_daemon.plain_text import escaped, shown_id
from pool_daemon.settings.grace import Grace
from pool_daemon.store.client import Database
from pool_daemon.store.grace import GraceRecord, GraceStore
from pool_daemon.store.grace_decisions import GraceReader
from pool_daemon.store.policies import PolicyStore, default_policy
from pool_daemon.store.pool_workloads import PoolWorkloads
from pool_daemon.views.texts import NAMES, UNITS, remaining, span, type_name, when

MOST: Final = 1000
"""Workloads of a pool that are looked at; of more, the first to go may be another."""

SHOWN: Final = 3
"""Workloads that are named."""

DAY_SECONDS: Final = 86_400


@dataclass(frozen=True, slots=True)
class Going:
    """A workload in grace, and the unix second at which it goes unless its pool is topped up."""

    workload_id: Any
    workload_type: int
    at: int


@dataclass(frozen=True, slots=True)
class GraceView:
    """The grace of a pool: since when (unix seconds), and the workloads in it, the first to go first.

    `is_whole` is False if the pool has more workloads than were looked at.
    """

    since: Mapping[Resource, int]
    going: tuple[Going, ...]
    is_whole: bool
    record: GraceRecord | None = None

    def spares(self, workload_id: Any) -> bool:
        """Return whether a workload is in grace, or may be."""
        return not self.is_whole or any(each.workload_id == workload_id for each in self.going)


class GraceViews:
    """Reads the grace of pools where there is any; `default` is the policy of the settings. Nothing is written.

    Every method raises StoreUnavailableError when MongoDB is away, and StoreRefusedError when it refuses.
    """

    def __init__(self, *, database: Database, default: GracePolicy) -> None:
        self._store = GraceStore(database=database)
        self._policies = PolicyStore(database=database)
        self._workloads = PoolWorkloads(database=database)
        self._default = default

    async def of(self, pool: Pool, *, now: int) -> GraceView | None:
        """Return the grace of a pool as read, None if it is in none."""
        if pool.empty_at > now:
            return None
        record = (await self._store.of([pool.pool_id])).get(pool.pool_id)
        documents = await self._workloads.deployed(pool.pool_id, limit=MOST)
        policy_of = await self.policies()
        return grace_view(policy_of(pool.customer_tid), pool, record, documents, now=now)

    async def policies(self) -> Callable[[int], GracePolicy]:
        """Return what tells the policy of an owner."""
        agreed, default = (await self._policies.read_all()).by_owner, self._default
        return lambda owner: agreed[owner].over(default) if owner in agreed else default

    async def reader(self) -> GraceReader:
        """Return what decides about grace, as the daemon does by the policies of now."""
        return GraceReader(store=self._store, policy_of=await self.policies())

    async def running(self, pool_ids: Sequence[int]) -> dict[int, int]:
        """Return, for those of some pools that are in grace, since when."""
        records = await self._store.of(pool_ids)
        return {each: began for each, record in records.items() if (began := since(record.grace)) is not None}


def grace_views(database: Database, settings: Grace) -> GraceViews | None:
    """Return what reads the grace of pools; None without grace in the settings, so that nothing is read."""
    return GraceViews(database=database, default=default_policy(settings)) if settings.seconds else None


def grace_view(
    policy: GracePolicy,
    pool: Pool,
    record: GraceRecord | None,
    documents: Sequence[Mapping[str, Any]],
    *,
    now: int,
) -> GraceView | None:
    """Return the grace that a settlement would find now, by the same decision; None if there is none."""
    synced = replace(pool)
    synced.sync_current_capacity(now)
    is_whole = len(documents) < MOST
    ids = [each["_id"] for each in documents if isinstance(each["_id"], int)]
    known = PoolGrace() if record is None else record.grace
    seen = View(pool, synced, now, known, newest=max(ids, default=0), in_part=not is_whole)
    decision = decide(policy, seen, documents)
    going = [
        Going(each.document["_id"], each.document["workload_type"], each.grace_ends_at or now)
        for each in decision.evaluation.in_grace
    ]
    running = {each: decision.after.since[each] for each in decision.after.running}
    return GraceView(running, tuple(sorted(going, key=lambda each: each.at)), is_whole, record) if running else None


def since(grace: PoolGrace) -> int | None:
    """Return since when a pool has been in grace, None if it is not."""
    return min((grace.since[each] for each in grace.running), default=None)


def latest_end(policy: GracePolicy, grace: PoolGrace, *, now: int) -> int:
    """Return the unix second at which the last workload of a pool in grace goes, of whatever type it may be."""
    return max(grace_end(policy, grace, kind, [each], now) for kind in WorkloadType for each in grace.running)


def grace_lines(view: GraceView, purchase: Mapping[Resource, int], lasts: int, *, now: int) -> Iterator[str]:
    """Yield what a person has to know; `purchase` (unit seconds) makes the pool last `lasts` seconds more."""
    resources = ", ".join(NAMES[each] for each in view.since)
    yield f"in grace since {when(min(view.since.values()), now=now)}: out of {resources}"
    for each in view.going[:SHOWN]:
        left = f"in {remaining(each.at - now)}" if each.at > now else "now"
        yield f"{type_name(each.workload_type)} {shown_id(each.workload_id)} goes {left}"
    if (more := len(view.going) - SHOWN) > 0:
        yield f"and {more:,} more go later"
    if bought := " and ".join(unit_days(amount, each) for each, amount in purchase.items()):
        yield f"{bought} buy {span(lasts)}"
    if view.record is not None and view.record.grace.operator_until is not None:
        until, by = when(view.record.grace.operator_until, now=now), escaped(view.record.operator_by)
        yield f"ends {until}, by {by}: {escaped(view.record.operator_reason)}"


def unit_days(unit_seconds: int, resource: Resource) -> str:
    """Format unit seconds as units for a day: `12.4 SU-days`."""
    return f"{unit_seconds / DAY_SECONDS:,.3g} {UNITS[resource]}-days"


def grace_json(view: GraceView | None) -> dict[str, Any] | None:
    """Return the grace as JSON, in numbers."""
    if view is None:
        return None
    operator = None
    if view.record is not None and view.record.grace.operator_until is not None:
        known = view.record
        operator = {"until": known.grace.operator_until, "by": known.operator_by, "reason": known.operator_reason}
    workloads = [{"workload_id": each.workload_id, "goes_at": each.at} for each in view.going]
    return {"since": dict(view.since), "workloads": workloads, "is_whole": view.is_whole, "operator": operator}
