"""What happened to a pool or a workload, in the order of time, and what in it contradicts the rest."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from pool_daemon.capacity.arithmetic import runs_out_at
from pool_daemon.capacity.exhaustion import Resource
from pool_daemon.capacity.fields import RATE_DUST
from pool_daemon.capacity.outlook import Outlook, first_to_run_out, outlook
from pool_daemon.capacity.pool import Pool
from pool_daemon.capacity.workload import NextAction
from pool_daemon.plain_text import date, shown_id
from pool_daemon.store.event_history import Record
from pool_daemon.store.excerpts import Bought
from pool_daemon.store.holds import Hold, HoldState
from pool_daemon.store.pool_workloads import PoolWorkload
from pool_daemon.store.quarantine import Quarantined
from pool_daemon.store.reconciliation import Page
from pool_daemon.store.records import EventKind
from pool_daemon.views.grace_view import GraceView, grace_lines
from pool_daemon.views.texts import NAMES, UNITS, action_name, span, type_name, units_for, when

PATIENCE_SECONDS: Final = 60
"""For so long a pool may be empty before it is remarkable that its workloads still run."""

DECOMMISSIONED: Final = EventKind.DECOMMISSIONED

AMOUNTS: Final = {
    Resource.COMPUTE: ("cus", "active_cu"),
    Resource.STORAGE: ("sus", "active_su"),
    Resource.ADDRESSES: ("ipv4us", "active_ipv4"),
}
"""The fields of a pool that hold what is left of a resource, and at which rate it drains."""


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that happened; `at` (unix seconds) is None where nothing says when."""

    at: float | None
    text: str


@dataclass(frozen=True, slots=True)
class Known:
    """All that the database says of a pool at the unix second `now`, or, with `workload_id`, of one of its workloads.

    `pool` is None if it has no document, or an unreadable one: then `unreadable` is the reason. `compared` is the
    comparison of the pool with its workloads, `grace` its grace if it is in one.
    """

    now: int
    pool: Pool | None
    unreadable: str | None
    bought: Bought | None
    events: Sequence[Record]
    workloads: Sequence[PoolWorkload]
    hold: Hold | None
    quarantined: Quarantined | None
    compared: Page | None
    workload_id: int | None = None
    grace: GraceView | None = None

    @property
    def outlooks(self) -> tuple[Outlook, ...]:
        """The outlook of the pool's resources."""
        return () if self.pool is None else outlook(self.pool, now=self.now)

    @property
    def is_kept(self) -> bool:
        """Whether a guard keeps the daemon from the pool."""
        held = self.hold is not None and self.hold.state is HoldState.HELD
        return held or (self.quarantined is not None and self.quarantined.next_try_at > self.now)


def lines(known: Known) -> list[Line]:
    """Return what happened, undated things first, and then how things stand."""
    past = sorted([*_events(known), *_guards(known)], key=lambda line: line.at or 0.0)
    workloads = [Line(known.now, _workload_now(each, known)) for each in known.workloads]
    return [*_purchase(known), *past, *_pool_now(known), *workloads]


def problems(known: Known) -> list[str]:
    """Return what does not add up."""
    return [*_pool_problems(known), *event_problems(known.events), *_workload_problems(known)]


def _purchase(known: Known) -> Iterator[Line]:
    if (bought := known.bought) is not None:
        amounts = [
            units_for(amount, 0, resource) for resource, amount in zip(Resource, bought.amounts, strict=True) if amount
        ]
        yield Line(
            None,
            f"reservation {bought.reservation_id} of customer {bought.customer_tid} for this pool: "
            f"{', '.join(amounts) or 'nothing'}",
        )


def _events(known: Known) -> Iterator[Line]:
    def same(event: Record) -> tuple[str, float | None, str]:
        return event.kind, event.at, event.by

    for (kind, at, by), group in groupby((each for each in known.events if not _is_standing(each, known)), key=same):
        events = list(group)
        if kind != DECOMMISSIONED:
            yield from (Line(at, change(event)) for event in events)
            continue
        what = f"{len(events):,} workloads" if len(events) > 1 else f"workload {events[0].workload_id}"
        term, empty_at = events[0].term, events[0].empty_at
        who = by if term is None else f"{by} in term {term}"
        late = "" if at is None or empty_at is None else f", {span(max(0.0, at - empty_at))} after it ran empty"
        yield Line(at, f"{what} decommissioned by {who}: out of {_exhausted(events)}{late}")


def _is_standing(event: Record, known: Known) -> bool:
    """Return whether an event is that of the hold that still stands, which tells of it."""
    return event.kind == EventKind.HELD and known.hold is not None and (event.at or 0) >= known.hold.held_at


def _exhausted(events: Sequence[Record]) -> str:
    """Name the resources that had run out, each with the rate at which it was drained if that is on record."""
    names = sorted({resource for event in events for resource in event.resources})
    return ", ".join(f"{_resource_name(name)}{_rate(name, events[0])}" for name in names)


def _rate(name: str, event: Record) -> str:
    if event.before is None or name not in set(Resource):
        return ""
    resource = Resource(name)
    return f" at {event.before.get(AMOUNTS[resource][1], 0.0):.4g} {UNITS[resource]}"


def change(event: Record) -> str:
    """Return what an operator changed, or a daemon held or took over, by whom and why."""
    amounts = [units_for(each, 0, resource) for resource, each in zip(Resource, event.amounts, strict=False) if each]
    workload = [] if event.workload_id is None else [f"{type_name(event.workload_type)} {shown_id(event.workload_id)}"]
    what = ", ".join([*amounts, *event.nodes, *workload])
    return f"{event.kind}{f' {what}' if what else ''}, {event.by}{f': {event.reason}' if event.reason else ''}"


def _guards(known: Known) -> Iterator[Line]:
    if (hold := known.hold) is not None:
        state = "held by the brake" if hold.state is HoldState.HELD else "held by the brake, and released since"
        yield Line(hold.held_at, f"{state}: {hold.reason}")
    if (quarantined := known.quarantined) is not None:
        yield Line(quarantined.first_failed_at, f"failing since then, in quarantine: {quarantined.reason}")


def _pool_now(known: Known) -> Iterator[Line]:
    if known.pool is None:
        return
    first = first_to_run_out(known.outlooks)
    if first is None:
        yield Line(known.now, f"nothing drains pool {known.pool.pool_id}")
    elif first.is_exhausted:
        gone = ", ".join(NAMES[each.resource] for each in known.outlooks if each.is_exhausted)
        yield Line(known.now, f"pool {known.pool.pool_id} is out of {gone}; empty_at: {date(known.pool.empty_at)}")
        if known.grace is not None:
            yield from (Line(known.now, text) for text in grace_lines(known.grace, {}, 0, now=known.now))
    else:
        ends = when(first.runs_out_at or known.now, now=known.now)
        drain = f"{first.rate:.4g} {UNITS[first.resource]}"
        yield Line(known.now, f"pool {known.pool.pool_id} runs out of {NAMES[first.resource]} {ends}, at {drain}")


def _workload_now(workload: PoolWorkload, known: Known) -> str:
    what = f"workload {workload.workload_id}, {type_name(workload.workload_type)}"
    state = f"next action {action_name(workload.next_action)}"
    if workload.next_action == NextAction.DELETE and workload.has_order:
        ordered = [event.at for event in _of(workload, known, DECOMMISSIONED) if event.at]
        since = f", for {span(max(0.0, known.now - ordered[-1]))}" if ordered else ""
        put_back = _restored(workload, known)
        return f"{what}: {state}; its order waits for node {workload.node_id}{since}{put_back}"
    if workload.next_action == NextAction.DELETED and not workload.has_order and _of(workload, known, DECOMMISSIONED):
        return f"{what}: {state}; its node has carried out the order{_restored(workload, known)}"
    listed = "counts in the pool" if workload.is_listed else "does not count in the pool"
    return f"{what}: {state}, {listed}{', an order for its deletion waits' if workload.has_order else ''}"


def _of(workload: PoolWorkload, known: Known, kind: EventKind) -> list[Record]:
    return [each for each in known.events if each.workload_id == workload.workload_id and each.kind == kind]


def _restored(workload: PoolWorkload, known: Known) -> str:
    times = len(_of(workload, known, EventKind.DELETE_ORDER_RESTORED))
    return f", put back {'once' if times == 1 else f'{times} times'}" if times else ""


def _pool_problems(known: Known) -> Iterator[str]:
    pool = known.pool
    if pool is None:
        yield "the pool has no document" if known.unreadable is None else f"the pool is unreadable: {known.unreadable}"
        return
    if pool.empty_at > pool.last_updated and (ends := _computed_end(pool)) != pool.empty_at:
        yield f"empty_at is {date(pool.empty_at)}, but amounts and rates say {date(ends)}"
    yield from _drift_problems(pool, known)


def _drift_problems(pool: Pool, known: Known) -> Iterator[str]:
    if (page := known.compared) is None:
        return
    if missing := page.missing.get(pool.pool_id):
        yield f"{missing:,} of the workloads that the pool lists have no document"
    for drifted in page.drifted:
        excess = zip(Resource, drifted.drift.excess, strict=True)
        wrong = [f"{each:+g} {UNITS[resource]}" for resource, each in excess if each]
        if drifted.drift.dropped:
            wrong.append(f"{len(drifted.drift.dropped):,} listed workloads are deleted")
        yield f"the pool's rates differ from what its workloads drain: {', '.join(wrong)}"
    if (
        page.overdue
        and known.workload_id is None
        and pool.empty_at < known.now - PATIENCE_SECONDS
        and not known.is_kept
    ):
        yield "workloads that use an exhausted resource still run, and no guard keeps the daemon from them"


def event_problems(events: Iterable[Record]) -> Iterator[str]:
    """Yield what in the records of decommissions contradicts their own numbers."""
    for event in events:
        if event.kind != DECOMMISSIONED or event.at is None:
            continue
        if event.at < (event.empty_at or 0):
            yield f"workload {event.workload_id} was decommissioned {span((event.empty_at or 0) - event.at)} too early"
        for resource in Resource:
            left_seconds = _left_seconds(event, resource)
            if resource in event.resources and left_seconds >= 1:
                lasted = f"{NAMES[resource]} would have lasted {span(left_seconds)} longer"
                yield f"workload {event.workload_id} was decommissioned though {lasted}"


def _left_seconds(event: Record, resource: Resource) -> float:
    """Return how long a resource of the pool as read would have lasted at its rate; 0 if that is not on record."""
    amount, rate = (0.0 if event.before is None else event.before.get(name, 0.0) for name in AMOUNTS[resource])
    if event.before is None or event.at is None or amount <= 0:
        return 0.0
    if rate < RATE_DUST:
        return math.inf
    return amount / rate - max(0.0, event.at - event.before.get("last_updated", event.at))


def _workload_problems(known: Known) -> Iterator[str]:
    if known.workload_id is not None and not known.workloads:
        yield f"workload {known.workload_id} has no document"
    for workload in known.workloads:
        name = f"workload {workload.workload_id}"
        yield from (f"{name} {problem}" for problem in _order_problems(workload))
        if workload.next_action == NextAction.DEPLOY:
            yield from (f"{name} {problem}" for problem in _deployment_problems(workload, known))


def _order_problems(workload: PoolWorkload) -> Iterator[str]:
    is_to_go = workload.next_action == NextAction.DELETE
    if is_to_go and workload.is_listed and not workload.has_order:
        yield "is to be deleted and has no order"
    if not is_to_go and workload.has_order:
        yield f"has a delete order, and its next action is {action_name(workload.next_action)}"


def _deployment_problems(workload: PoolWorkload, known: Known) -> Iterator[str]:
    if workload.problem is not None:
        yield f"drains an unknown amount, and is left running: {workload.problem}"
    elif not workload.is_listed and any(workload.units or ()):
        yield "is deployed, and its pool does not count it"
    if known.workload_id is not None and _is_overdue(workload, known):
        yield "still runs though its pool is exhausted, and no guard keeps the daemon from it"


def _is_overdue(workload: PoolWorkload, known: Known) -> bool:
    if workload.units is None or known.pool is None or known.is_kept:
        return False
    if known.grace is not None and known.grace.spares(workload.workload_id):
        return False
    if known.pool.empty_at >= known.now - PATIENCE_SECONDS:
        return False
    return any(used > 0 and each.is_exhausted for used, each in zip(workload.units, known.outlooks, strict=True))


def _computed_end(pool: Pool) -> int:
    amounts = ((pool.cus, pool.active_cu), (pool.sus, pool.active_su), (pool.ipv4us, pool.active_ipv4))
    return min(runs_out_at(left, rate, pool.last_updated) for left, rate in amounts)


def _resource_name(name: str) -> str:
    return NAMES[Resource(name)] if name in set(Resource) else name
