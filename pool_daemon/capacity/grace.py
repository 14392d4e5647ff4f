"""Grace: for how long a workload may stay although a resource that it uses is exhausted.

A type of workload has a time, and a pool an anchor for each resource: the second at which that resource ran out, as it
was first seen. The anchor is kept in a record of the daemon's own, because the explorer moves the `empty_at` of an
empty pool with each write. It stands until the pool is seen with that resource lasting again. All times of grace of a
pool within 30 days together are bounded by a budget, so that topping up by a second again and again buys nothing.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from pool_daemon.capacity.exhaustion import RESOURCES, Evaluation, Resource, evaluate, exhausted_resources, levels
from pool_daemon.capacity.pool import Pool

WINDOW_SECONDS: Final = 30 * 86_400
"""The time over which the budget counts what was spent."""

MOST_SPENT: Final = 100
"""Intervals kept of a pool; of more the two that are closest become one of the same length, at the later end."""

RECHECK_SECONDS: Final = 10
"""How soon a workload that only waits for the notice to be delivered is checked again."""

Interval = tuple[int, int]
"""A time of grace: from one unix second to another."""


class GraceEnd(StrEnum):
    """Why the grace of a resource ended."""

    OVER = "over"
    TOPPED_UP = "topped up"
    OPERATOR = "operator"
    BUDGET = "budget"


@dataclass(frozen=True, slots=True)
class GracePolicy:
    """The seconds of grace by workload type, 0 for a type that is not named, and the budget of a pool in seconds.

    With `until_told_seconds`, a workload whose grace is over stays so much longer at most, until its owner was told.
    """

    seconds: Mapping[int, int]
    budget_seconds: int
    until_told_seconds: int = 0

    @property
    def longest_seconds(self) -> int:
        """The longest time of any type."""
        return max(self.seconds.values(), default=0)


@dataclass(frozen=True, slots=True)
class PoolGrace:
    """The record of a pool that is, or lately was, in grace; instants are unix seconds.

    `since` has the anchors. `newest` is the highest workload id at each anchor: ids grow, and a workload that was
    created later has no grace. `over` is when the grace of a resource ended, though it is still exhausted. `spent` are
    former times of grace, oldest first. An operator has set `operator_until` at `operator_at`, for the anchors of that
    time.
    """

    since: Mapping[Resource, int] = field(default_factory=dict)
    newest: Mapping[Resource, int] = field(default_factory=dict)
    over: Mapping[Resource, int] = field(default_factory=dict)
    spent: Sequence[Interval] = ()
    operator_until: int | None = None
    operator_at: int = 0

    @property
    def running(self) -> tuple[Resource, ...]:
        """The resources whose grace is not over."""
        return tuple(resource for resource in self.since if resource not in self.over)


@dataclass(frozen=True, slots=True)
class Ended:
    """The grace of a resource that has ended, and why."""

    resource: Resource
    since: int
    reason: GraceEnd


@dataclass(frozen=True, slots=True)
class GraceDecision:
    """The decision on a pool: which workloads go, its record afterwards, and the graces that began and ended."""

    evaluation: Evaluation
    after: PoolGrace
    began: tuple[Resource, ...] = ()
    ended: tuple[Ended, ...] = ()


@dataclass(frozen=True, slots=True)
class View:
    """What a decision is made on: a due pool as read and as synced to the unix second `now`, and its record.

    `newest` is the highest id of its deployed workloads. Of a pool `in_part` not all workloads are there. `told` says
    that the notice of its end was delivered, or that nothing waits for one.
    """

    as_read: Pool
    synced: Pool
    now: int
    known: PoolGrace = PoolGrace()
    newest: int = 0
    in_part: bool = False
    told: bool = True


def decide(policy: GracePolicy, view: View, workloads: Sequence[Mapping[str, Any]]) -> GraceDecision:
    """Decide which deployed workloads of a pool go, and which are in grace."""
    known, ended = _without_void(policy, view)
    fresh = _fresh(policy, view, known, workloads)
    newest = dict.fromkeys(fresh, view.newest)
    anchored = replace(known, since={**known.since, **fresh}, newest={**known.newest, **newest})
    evaluation = evaluate(view.synced, workloads, now=view.now, grace=_Reprieve(policy, anchored, view))
    spared = {resource for each in evaluation.in_grace for resource in each.resources}
    began = tuple(each for each in fresh if each in spared)
    after = _only(replace(anchored, over=_without(anchored.over, spared)), [*known.since, *began])
    over = [each for each in after.running if each not in spared and _is_over(policy, after, each, view)]
    ended += tuple(Ended(each, after.since[each], _reason(policy, after, each)) for each in over)
    return GraceDecision(evaluation, _closed(policy, after, over, at=view.now), began, ended)


def _fresh(
    policy: GracePolicy, view: View, known: PoolGrace, workloads: Sequence[Mapping[str, Any]]
) -> dict[Resource, int]:
    """Return the exhausted resources without an anchor for which a type with grace asks, and when they ran out."""
    wanted: set[Resource] = set()
    if not exhausted_resources(view.synced) <= known.since.keys():
        evaluate(view.synced, workloads, now=view.now, grace=_Wanted(policy, wanted))
    asked = [each for each in RESOURCES if each in wanted and each not in known.since]
    return {each: ran_out_at(view.as_read, each, now=view.now) for each in asked}


def topped_up(policy: GracePolicy, pool: Pool, known: PoolGrace, *, now: int) -> GraceDecision:
    """Return what becomes of the record of a pool that is not due at `now`: every resource in use lasts again.

    The anchor of one that is not in use stays, for it is as empty as before, but its grace is over.
    """
    exhausted = exhausted_resources(pool)
    at = min(pool.last_updated, now)
    left, ended = _voided(policy, known, [each for each in known.since if each not in exhausted], at=at)
    rates = {each: rate for each, _, rate in levels(pool)}
    unused = [each for each in left.running if not rates[each]]
    ended += tuple(Ended(each, left.since[each], GraceEnd.OVER) for each in unused)
    return GraceDecision(Evaluation((), (), None), _closed(policy, left, unused, at=at), ended=ended)


def grace_end(
    policy: GracePolicy, grace: PoolGrace, workload_type: int, resources: Collection[Resource], now: int
) -> int:
    """Return the unix second at which a workload of that type, which uses these exhausted resources, goes.

    A resource without an anchor counts as exhausted since `now`. The time until its owner was told is not included.
    """
    seconds = policy.seconds.get(workload_type, 0)
    return min(_end(policy, grace, resource, grace.since.get(resource, now), seconds) for resource in resources)


def ran_out_at(pool: Pool, resource: Resource, *, now: int) -> int:
    """Return the unix second, `now` at most, at which a resource ran out, as far as the pool as read tells.

    No resource ran out before the pool's `empty_at`. One that had run out when the pool was written ran out by then.
    """
    for each, left, rate in levels(pool):
        if each is resource:
            lasted = math.floor(left / rate) if left > 0 and rate > 0 else 0
            return min(max(pool.empty_at, min(pool.last_updated + lasted, now)), now)
    raise ValueError(resource)


def spent_seconds(intervals: Iterable[Interval], *, until: int) -> int:
    """Return the length of all intervals together within 30 days before `until`; what overlaps counts once."""
    total, reached = 0, until - WINDOW_SECONDS
    for begin, end in sorted(intervals):
        first, last = max(begin, reached), min(end, until)
        if last > first:
            total += last - first
            reached = last
    return total


class _Wanted:
    """Collects for which exhausted resources a workload of a type with grace asks."""

    def __init__(self, policy: GracePolicy, wanted: set[Resource]) -> None:
        self._policy = policy
        self._wanted = wanted

    def ends_at(self, document: Mapping[str, Any], resources: Collection[Resource]) -> int | None:
        """Note the resources; the answer does not matter."""
        if self._policy.seconds.get(int(document["workload_type"]), 0):
            self._wanted.update(resources)
        return None


class _Reprieve:
    """Tells `evaluate` until when a workload is in grace."""

    def __init__(self, policy: GracePolicy, grace: PoolGrace, view: View) -> None:
        self._policy = policy
        self._grace = grace
        self._view = view

    def ends_at(self, document: Mapping[str, Any], resources: Collection[Resource]) -> int | None:
        """Return the unix second at which its grace is over, None if it has none."""
        workload_type = int(document["workload_type"])
        seconds = self._policy.seconds.get(workload_type, 0)
        operated = [each for each in resources if _is_operated(self._grace, each)]
        if (not seconds and not operated) or self._is_new(document.get("_id"), resources):
            return None
        end = grace_end(self._policy, self._grace, workload_type, resources, self._view.now)
        return end if operated else self._until_told(end)

    def _is_new(self, workload_id: Any, resources: Collection[Resource]) -> bool:
        """Return whether a workload was created after one of the resources ran out."""
        known = [self._grace.newest[each] for each in resources if each in self._grace.newest]
        return isinstance(workload_id, int) and bool(known) and workload_id > min(known)

    def _until_told(self, end: int) -> int:
        now, latest = self._view.now, end + self._policy.until_told_seconds
        return end if self._view.told or end > now else min(latest, now + RECHECK_SECONDS)


def _end(policy: GracePolicy, grace: PoolGrace, resource: Resource, since: int, seconds: int) -> int:
    if grace.operator_until is not None and _is_operated(grace, resource):
        return grace.operator_until
    return since + min(seconds, _allowed_seconds(policy, grace, resource, since))


def _is_operated(grace: PoolGrace, resource: Resource) -> bool:
    """Return whether an operator has set the end of the grace of a resource."""
    return grace.operator_until is not None and grace.since.get(resource, math.inf) <= grace.operator_at


def _allowed_seconds(policy: GracePolicy, grace: PoolGrace, resource: Resource, since: int) -> int:
    """Return what is left of the budget at an anchor.

    From there on a second of any grace of the pool is a second of this one, too, so that all together keep the budget.
    """
    others = [each for each in grace.since if each is not resource and grace.since[each] < since]
    intervals = [*grace.spent, *(_interval(policy, grace, each) for each in others if each not in grace.over)]
    return max(0, policy.budget_seconds - spent_seconds(intervals, until=since))


def _interval(policy: GracePolicy, grace: PoolGrace, resource: Resource) -> Interval:
    """Return the longest time of grace that begins at an anchor."""
    since = grace.since[resource]
    return since, max(since, _end(policy, grace, resource, since, policy.longest_seconds))


def _without_void(policy: GracePolicy, view: View) -> tuple[PoolGrace, tuple[Ended, ...]]:
    """Return the record without the anchors of resources that have lasted since: the pool was written so after them."""
    read, known = exhausted_resources(view.as_read), view.known
    void = [each for each, at in known.since.items() if each not in read and view.as_read.last_updated >= at]
    return _voided(policy, known, void, at=view.as_read.last_updated)


def _voided(
    policy: GracePolicy, known: PoolGrace, void: Collection[Resource], *, at: int
) -> tuple[PoolGrace, tuple[Ended, ...]]:
    if not void:
        return known, ()
    ended = tuple(Ended(each, known.since[each], GraceEnd.TOPPED_UP) for each in void if each not in known.over)
    closed = _closed(policy, known, [each.resource for each in ended], at=at)
    left = _only(closed, known.since.keys() - void)
    return (left if left.since else replace(left, operator_until=None, operator_at=0)), ended


def _only(grace: PoolGrace, resources: Collection[Resource]) -> PoolGrace:
    """Return a record with the anchors of some resources only."""
    others = grace.since.keys() - resources
    since, newest, over = (_without(each, others) for each in (grace.since, grace.newest, grace.over))
    return replace(grace, since=since, newest=newest, over=over)


def _without(instants: Mapping[Resource, int], resources: Collection[Resource]) -> dict[Resource, int]:
    return {each: at for each, at in instants.items() if each not in resources}


def _is_over(policy: GracePolicy, grace: PoolGrace, resource: Resource, view: View) -> bool:
    """Return whether a resource that spares no workload is done with: of a part of a pool its time alone tells."""
    return not view.in_part or view.now >= _interval(policy, grace, resource)[1]


def _reason(policy: GracePolicy, grace: PoolGrace, resource: Resource) -> GraceEnd:
    since = grace.since[resource]
    if _is_operated(grace, resource):
        return GraceEnd.OPERATOR
    is_cut = _allowed_seconds(policy, grace, resource, since) < policy.longest_seconds
    return GraceEnd.BUDGET if is_cut else GraceEnd.OVER


def _closed(policy: GracePolicy, grace: PoolGrace, resources: Collection[Resource], *, at: int) -> PoolGrace:
    """Return the record with the graces of some resources over at `at`, or at their end if that was before."""
    if not resources:
        return grace
    ends = {each: min(max(at, grace.since[each]), _interval(policy, grace, each)[1]) for each in resources}
    spent = [*grace.spent, *((grace.since[each], end) for each, end in ends.items() if end > grace.since[each])]
    return replace(grace, over={**grace.over, **ends}, spent=_few(sorted(spent), now=at))


def _few(spent: Sequence[Interval], *, now: int) -> tuple[Interval, ...]:
    """Return the intervals that still count, not too many: seconds of older ones count as if they had been later."""
    kept: list[Interval] = []
    for begin, end in spent:
        if kept and begin <= kept[-1][1]:
            kept[-1] = (kept[-1][0], max(end, kept[-1][1]))
        elif end > now - WINDOW_SECONDS:
            kept.append((begin, end))
    while len(kept) > MOST_SPENT:
        index = min(range(len(kept) - 1), key=lambda at: kept[at + 1][0] - kept[at][1])
        (begin, end), (later, last) = kept[index : index + 2]
        kept[index : index + 2] = [(later - (end - begin), last)]
    return tuple(kept)
