"""One pool, whole: what is left and until when, what to buy, its workloads, and what keeps the daemon from it."""

import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import chain, repeat
from typing import Any, Final

from pool_daemon.capacity.exhaustion import Resource
from pool_daemon.capacity.outlook import Outlook, first_to_run_out, lasting_until, outlook, to_buy
from pool_daemon.capacity.pool import Pool
from pool_daemon.capacity.workload import NextAction
from pool_daemon.plain_text import cut, date, escaped, shown_id
from pool_daemon.store.client import Database
from pool_daemon.store.excerpts import Excerpt, Excerpts
from pool_daemon.store.holds import FIRST, Hold, HoldState, HoldStore
from pool_daemon.store.pool_workloads import MOST_COUNTED, SHOWN, PoolWorkload, PoolWorkloads
from pool_daemon.store.pools import PoolStore
from pool_daemon.store.quarantine import Quarantined, QuarantineStore
from pool_daemon.views.grace_view import GraceView, GraceViews, grace_json, grace_lines
from pool_daemon.views.texts import NAMES, action_name, short, span, type_name, units_for, when

NODES: Final = 10
"""Nodes that are shown to a person; a pool may have a million."""

NODE_CHARACTERS: Final = 66

RESOURCE_COLUMNS: Final = ("resource", "drained", "left", "which is", "runs out (UTC)")

WORKLOAD_COLUMNS: Final = ("workload", "type", "next", "cu", "su", "ipv4u", "")


@dataclass(frozen=True, slots=True)
class Limits:
    """What is read of a pool: `workloads` are shown and `most_counted` counted by their states.

    `purchase_seconds` is for how much longer a purchase makes it last. With `whole` all of its arrays are read.
    """

    workloads: int
    purchase_seconds: int
    most_counted: int = MOST_COUNTED
    whole: bool = False


@dataclass(frozen=True, slots=True)
class PoolView:
    """All that is shown of a pool; `until` is the unix second to which `purchase` makes it last."""

    excerpt: Excerpt
    pool: Pool
    outlooks: tuple[Outlook, ...]
    now: int
    limits: Limits
    until: int | None
    purchase: Mapping[Resource, int]
    counts: Mapping[int | None, int]
    workloads: list[PoolWorkload]
    hold: Hold | None
    quarantined: Quarantined | None
    grace: GraceView | None

    @property
    def more_workloads(self) -> int:
        """How many of the workloads that are counted in a state worth showing are not shown."""
        return sum(number for action, number in self.counts.items() if action in SHOWN) - len(self.workloads)


async def read_pool(database: Database, pool_id: int, *, limits: Limits, graces: GraceViews | None = None) -> PoolView:
    """Read one pool, and its grace if there is any at all.

    Raises PoolNotFoundError, UnreadableDocumentError, StoreUnavailableError or StoreRefusedError.
    """
    excerpt = await Excerpts(database=database).first_of(pool_id, most=NODES)
    if excerpt.pool is None:
        raise excerpt.error or AssertionError
    pool = await PoolStore(database=database).get_pool(pool_id) if limits.whole else excerpt.pool
    now = int(time.time())
    outlooks = outlook(pool, now=now)
    until = lasting_until(outlooks, now=now, seconds=limits.purchase_seconds)
    workloads = PoolWorkloads(database=database)
    return PoolView(
        excerpt=excerpt,
        pool=pool,
        outlooks=outlooks,
        now=now,
        limits=limits,
        until=until,
        purchase={} if until is None else to_buy(outlooks, now=now, until=until),
        counts=await workloads.count(pool_id, most=limits.most_counted),
        workloads=await workloads.first(pool_id, limit=limits.workloads),
        hold=await hold_of(database, pool_id),
        quarantined=(await QuarantineStore(database=database).among([pool_id])).get(pool_id),
        grace=None if graces is None else await graces.of(pool, now=now),
    )


async def hold_of(database: Database, pool_id: int) -> Hold | None:
    """Return the hold on a pool, or its release that is not settled yet."""
    holds = HoldStore(database=database, identity=socket.gethostname())
    page = await holds.page(behind=max(pool_id - 1, FIRST), limit=1)
    return next((hold for hold in page if hold.pool_id == pool_id), None)


def facts(view: PoolView) -> Iterator[tuple[str, str]]:
    """Yield names and texts on the pool itself; a text without a name goes with the one before."""
    pool = view.pool
    yield "pool", str(pool.pool_id)
    sponsor = f"sponsor {pool.sponsor_tid}" if pool.sponsor_tid else "no sponsor"
    yield "owner", f"{pool.customer_tid}, {sponsor}"
    yield "nodes", str(view.excerpt.nodes or "none")
    for node in (pool.node_ids or ())[:NODES]:
        yield "", cut(str(shown_id(node)), NODE_CHARACTERS)
    if view.excerpt.nodes > NODES:
        yield "", f"and {view.excerpt.nodes - NODES:,} more"
    yield "last updated", when(pool.last_updated, now=view.now)
    first = first_to_run_out(view.outlooks)
    what = "" if first is None else f": {NAMES[first.resource]} first"
    yield "runs empty", f"{when(pool.empty_at, now=view.now)}{what}"
    if view.grace is not None:
        lines = grace_lines(view.grace, view.purchase, view.limits.purchase_seconds, now=view.now)
        yield from zip(chain(["grace"], repeat("")), lines, strict=False)
    yield from _guards(view)


def _guards(view: PoolView) -> Iterator[tuple[str, str]]:
    if (hold := view.hold) is not None:
        state = "held since" if hold.state is HoldState.HELD else "released, held since"
        yield "brake", f"{state} {date(hold.held_at)}: {escaped(hold.reason)}"
    if (quarantined := view.quarantined) is not None:
        yield "quarantine", f"since {date(quarantined.first_failed_at)}: {escaped(quarantined.reason)}"
        yield "", f"tried again {when(quarantined.next_try_at, now=view.now)}"


def resource_row(each: Outlook, *, now: int) -> tuple[str, str, str, str, str]:
    """Return what is left of a resource, in the order of `RESOURCE_COLUMNS`."""
    return (
        NAMES[each.resource],
        f"{each.rate:.4g}" if each.rate else "nothing",
        short(each.left),
        units_for(each.left, each.rate, each.resource),
        end_of(each, now=now),
    )


def end_of(each: Outlook, *, now: int) -> str:
    """Return when a resource runs out."""
    if each.is_unused:
        return "never"
    return "exhausted" if each.runs_out_at is None else when(each.runs_out_at, now=now)


def purchase_head(view: PoolView) -> str:
    """Return for how long the purchase makes the pool last."""
    if view.until is None:
        return "nothing drains it: it lasts without a purchase"
    more = span(view.limits.purchase_seconds)
    return f"to last {more} more, until {date(view.until)}, buy (unit seconds):"


def purchase_rows(view: PoolView) -> Iterator[tuple[str, str, str]]:
    """Yield what to buy: resource, unit seconds, and the same as it is bought."""
    for each in view.outlooks:
        if amount := view.purchase.get(each.resource, 0):
            yield NAMES[each.resource], f"{amount:,}", units_for(amount, each.rate, each.resource)


def workloads_head(view: PoolView) -> str:
    """Return how many workloads the pool has, by their states."""
    counts = ", ".join(
        f"{number:,} {action_name(action)}"
        for action, number in sorted(view.counts.items(), key=lambda each: each[0] or 0)
    )
    is_whole = sum(view.counts.values()) < view.limits.most_counted
    of = "" if is_whole else f" of the first {view.limits.most_counted:,}"
    return f"{view.excerpt.workloads:,} listed; by next action{of}: {counts or 'none'}"


def workload_row(each: PoolWorkload) -> tuple[str, str, str, str, str, str, str]:
    """Return a workload, in the order of `WORKLOAD_COLUMNS`."""
    cu, su, ipv4u = ("?", "?", "?") if each.units is None else tuple(f"{rate:.4g}" for rate in each.units)
    kind, action = type_name(each.workload_type), action_name(each.next_action)
    return str(shown_id(each.workload_id)), kind, action, cu, su, ipv4u, _remark(each)


def _remark(workload: PoolWorkload) -> str:
    """Return what is remarkable about a workload: its order, or that it is not among those that its pool counts."""
    if workload.next_action == NextAction.DELETE:
        if workload.has_order:
            return "order waits"
        return "order missing" if workload.is_listed else "nothing runs"
    if workload.next_action == NextAction.DEPLOY and not workload.is_listed:
        return "not in pool's list"
    return "" if workload.problem is None else "units unknown"


def pool_json(view: PoolView) -> dict[str, Any]:
    """Return the pool as JSON, in numbers."""
    first = first_to_run_out(view.outlooks)
    return view.pool.to_json() | {
        "resources": [asdict(each) | {"is_exhausted": each.is_exhausted} for each in view.outlooks],
        "runs_out_first": None if first is None else first.resource,
        "to_last": {"seconds": view.limits.purchase_seconds, "until": view.until, "buy": view.purchase},
        "workloads_by_action": {action_name(action): number for action, number in view.counts.items()},
        "workloads": [_workload_json(each) for each in view.workloads],
        "hold": None if view.hold is None else asdict(view.hold),
        "quarantine": None if view.quarantined is None else asdict(view.quarantined),
        "grace": grace_json(view.grace),
    }


def _workload_json(workload: PoolWorkload) -> dict[str, Any]:
    """Return a workload as JSON, its type and next action by number and by name."""
    drains = None if workload.units is None else workload.units._asdict()
    names = {"type_name": type_name(workload.workload_type), "action_name": action_name(workload.next_action)}
    return asdict(replace(workload, units=None)) | names | {"units": drains}
