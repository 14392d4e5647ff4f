"""One pool, whole: what is left and until when, what to buy, its workloads, and what keeps the daemon from it."""

import argparse
import json
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from pool_daemon.capacity.exhaustion import Resource
from pool_daemon.capacity.outlook import Outlook, first_to_run_out, lasting_until, outlook, to_buy
from pool_daemon.capacity.pool import Pool
from pool_daemon.capacity.workload import NextAction
from pool_daemon.commands.output import NAMES, action_name, short, span, type_name, units_for, when
from pool_daemon.errors import ExitCode
from pool_daemon.plain_text import cut, date, escaped, shown_id
from pool_daemon.settings import Settings
from pool_daemon.store.client import Database
from pool_daemon.store.excerpts import Excerpt, Excerpts
from pool_daemon.store.holds import FIRST, Hold, HoldStore, State
from pool_daemon.store.pool_workloads import SHOWN, PoolWorkload, PoolWorkloads
from pool_daemon.store.pools import PoolStore
from pool_daemon.store.quarantine import Quarantined, QuarantineStore

NODES: Final = 10
"""Nodes that are shown to a person; a pool may have a million."""

NAME: Final = "{:13} {}"
RESOURCE: Final = "{:9} {:>7} {:>6}  {:20}  {}"
PURCHASE: Final = "{:9} {:>22}  {}"
WORKLOAD: Final = "{:>12} {:15} {:7} {:>6} {:>6} {:>6}  {}"


@dataclass(frozen=True, slots=True)
class Picture:
    """All that is shown of a pool; `until` is the unix second to which `purchase` makes it last."""

    excerpt: Excerpt
    pool: Pool
    outlooks: tuple[Outlook, ...]
    now: int
    more_seconds: int
    until: int | None
    purchase: Mapping[Resource, int]
    counts: Mapping[int | None, int]
    workloads: list[PoolWorkload]
    hold: Hold | None
    quarantined: Quarantined | None


async def show_pool(database: Database, settings: Settings, arguments: argparse.Namespace) -> ExitCode:
    """Print one pool; its arrays are complete as JSON, and begun as text.

    Raises PoolNotFoundError or UnreadableDocumentError.
    """
    del settings
    excerpt = await Excerpts(database=database).first_of(arguments.pool_id, most=NODES)
    if excerpt.pool is None:
        raise excerpt.error or AssertionError
    pool = await PoolStore(database=database).get_pool(arguments.pool_id) if arguments.json else excerpt.pool
    now = int(time.time())
    outlooks = outlook(pool, now=now)
    until = lasting_until(outlooks, now=now, seconds=arguments.lasts)
    workloads = PoolWorkloads(database=database)
    picture = Picture(
        excerpt=excerpt,
        pool=pool,
        outlooks=outlooks,
        now=now,
        more_seconds=arguments.lasts,
        until=until,
        purchase={} if until is None else to_buy(outlooks, now=now, until=until),
        counts=await workloads.count(pool.pool_id),
        workloads=await workloads.first(pool.pool_id, limit=arguments.limit),
        hold=await hold_of(database, pool.pool_id),
        quarantined=(await QuarantineStore(database=database).among([pool.pool_id])).get(pool.pool_id),
    )
    if arguments.json:
        print(json.dumps(_json(picture)))
        return ExitCode.OK
    for line in _lines(picture):
        print(line.rstrip())
    return ExitCode.OK


async def hold_of(database: Database, pool_id: int) -> Hold | None:
    """Return the hold on a pool, or its release that is not settled yet."""
    holds = HoldStore(database=database, identity=socket.gethostname())
    page = await holds.page(behind=max(pool_id - 1, FIRST), limit=1)
    return next((hold for hold in page if hold.pool_id == pool_id), None)


def _lines(picture: Picture) -> Iterator[str]:
    yield from _head(picture)
    yield ""
    yield RESOURCE.format("resource", "drained", "left", "which is", "runs out (UTC)")
    for each in picture.outlooks:
        yield RESOURCE.format(
            NAMES[each.resource],
            f"{each.rate:.4g}" if each.rate else "nothing",
            short(each.left),
            units_for(each.left, each.rate, each.resource),
            _end(each, now=picture.now),
        )
    yield ""
    yield from _purchase(picture)
    yield ""
    yield from _workloads(picture)


def _head(picture: Picture) -> Iterator[str]:
    pool = picture.pool
    yield NAME.format("pool", pool.pool_id)
    sponsor = f"sponsor {pool.sponsor_tid}" if pool.sponsor_tid else "no sponsor"
    yield NAME.format("owner", f"{pool.customer_tid}, {sponsor}")
    yield NAME.format("nodes", picture.excerpt.nodes or "none")
    for node in pool.node_ids or ():
        yield NAME.format("", cut(str(shown_id(node)), 66))
    if picture.excerpt.nodes > NODES:
        yield NAME.format("", f"and {picture.excerpt.nodes - NODES:,} more")
    yield NAME.format("last updated", when(pool.last_updated, now=picture.now))
    first = first_to_run_out(picture.outlooks)
    what = "" if first is None else f": {NAMES[first.resource]} first"
    yield NAME.format("runs empty", f"{when(pool.empty_at, now=picture.now)}{what}")
    if (hold := picture.hold) is not None:
        state = "held since" if hold.state is State.HELD else "released, held since"
        yield NAME.format("brake", f"{state} {date(hold.held_at)}: {escaped(hold.reason)}")
    if (quarantined := picture.quarantined) is not None:
        yield NAME.format("quarantine", f"since {date(quarantined.first_failed_at)}: {escaped(quarantined.reason)}")
        yield NAME.format("", f"tried again {when(quarantined.next_try_at, now=picture.now)}")


def _end(each: Outlook, *, now: int) -> str:
    if each.is_unused:
        return "never"
    return "exhausted" if each.runs_out_at is None else when(each.runs_out_at, now=now)


def _purchase(picture: Picture) -> Iterator[str]:
    if picture.until is None:
        yield "nothing drains it: it lasts without a purchase"
        return
    yield f"to last {span(picture.more_seconds)} more, until {date(picture.until)}, buy (unit seconds):"
    for each in picture.outlooks:
        if amount := picture.purchase.get(each.resource, 0):
            yield PURCHASE.format(NAMES[each.resource], f"{amount:,}", units_for(amount, each.rate, each.resource))


def _workloads(picture: Picture) -> Iterator[str]:
    counts = ", ".join(
        f"{number:,} {action_name(action)}"
        for action, number in sorted(picture.counts.items(), key=lambda each: each[0] or 0)
    )
    yield NAME.format("workloads", f"{picture.excerpt.workloads:,} listed; by next action: {counts or 'none'}")
    if picture.workloads:
        yield WORKLOAD.format("workload", "type", "next", "cu", "su", "ipv4u", "")
    for each in picture.workloads:
        drains = ("?", "?", "?") if each.units is None else tuple(f"{rate:.4g}" for rate in each.units)
        kind, action = type_name(each.workload_type), action_name(each.next_action)
        yield WORKLOAD.format(shown_id(each.workload_id), kind, action, *drains, remark(each))
    rest = sum(number for action, number in picture.counts.items() if action in SHOWN) - len(picture.workloads)
    if rest > 0:
        yield f"and {rest:,} more; --limit N shows more of them"


def remark(workload: PoolWorkload) -> str:
    """Return what is remarkable about a workload: its order, or that it is not among those that its pool counts."""
    if workload.next_action == NextAction.DELETE:
        if workload.has_order:
            return "order waits"
        return "order missing" if workload.is_listed else "nothing runs"
    if workload.next_action == NextAction.DEPLOY and not workload.is_listed:
        return "not in pool's list"
    return "" if workload.problem is None else "units unknown"


def _json(picture: Picture) -> dict[str, Any]:
    first = first_to_run_out(picture.outlooks)
    return picture.pool.to_json() | {
        "resources": [asdict(each) | {"is_exhausted": each.is_exhausted} for each in picture.outlooks],
        "runs_out_first": None if first is None else first.resource,
        "to_last": {"seconds": picture.more_seconds, "until": picture.until, "buy": picture.purchase},
        "workloads_by_action": {action_name(action): number for action, number in picture.counts.items()},
        "workloads": [workload_json(each) for each in picture.workloads],
        "hold": None if picture.hold is None else asdict(picture.hold),
        "quarantine": None if picture.quarantined is None else asdict(picture.quarantined),
    }


def workload_json(workload: PoolWorkload) -> dict[str, Any]:
    """Return a workload as JSON, its type and next action by number and by name."""
    drains = None if workload.units is None else workload.units._asdict()
    names = {"type_name": type_name(workload.workload_type), "action_name": action_name(workload.next_action)}
    return asdict(replace(workload, units=None)) | names | {"units": drains}
