"""What would become of a pool if capacity or workloads were added or removed; never writes."""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from pool_daemon.capacity.exhaustion import Resource
from pool_daemon.capacity.outlook import Outlook, first_to_run_out, outlook, to_buy
from pool_daemon.capacity.pool import Amounts, Pool
from pool_daemon.capacity.what_if import Change, Changes, has_capacity, is_allowed, staying, unused_ids, what_if
from pool_daemon.capacity.workload import CloudUnits, cloud_units
from pool_daemon.commands import int64
from pool_daemon.commands.arguments import add_limit_argument, duration
from pool_daemon.commands.pools_edit import add_amount_arguments, amounts
from pool_daemon.commands.pools_show import NAME, RESOURCE
from pool_daemon.commands.workloads import workload
from pool_daemon.errors import CapacityError, ExitCode, NotFoundError
from pool_daemon.plain_text import cut, escaped
from pool_daemon.settings import Settings
from pool_daemon.store.client import Database
from pool_daemon.store.pool_workloads import PoolWorkload, PoolWorkloads
from pool_daemon.store.pools import PoolStore
from pool_daemon.views.pool_view import RESOURCE_COLUMNS, end_of, resource_row
from pool_daemon.views.texts import NAMES, UNITS, span, type_name, units_for, when

WORKLOAD: Final = "{:>12} {:15} {:>7} {:>7} {:>7}  {}"


@dataclass(frozen=True, slots=True)
class _Workload:
    """A workload that the pool would have, and whether it stays when the first resource runs out.

    One that would be added has no id.
    """

    workload_id: Any
    workload_type: int | None
    units: CloudUnits
    stays: bool


@dataclass(frozen=True, slots=True)
class _Answer:
    """The pool now and then, at the unix second `now`, and the answers; None to a question that was not asked.

    `more` counts the workloads that were not read, or whose units are unknown.
    """

    now: int
    before: Pool
    after: Pool
    changes: Changes
    workloads: Sequence[_Workload]
    more: int
    has_capacity: bool | None
    is_allowed: bool | None

    @property
    def outlooks(self) -> tuple[tuple[Outlook, ...], tuple[Outlook, ...]]:
        """The outlook of the pool as it is, and as it would be."""
        return outlook(self.before, now=self.now), outlook(self.after, now=self.now)


def add_what_if(actions: "argparse._SubParsersAction[Any]") -> argparse.ArgumentParser:
    """Declare `what-if`, and return its parser."""
    asking: argparse.ArgumentParser = actions.add_parser(
        "what-if",
        help="what would become of a pool",
        description="Print what would become of a pool if capacity were bought, or workloads added or removed: now and "
        "then, what runs out first, and what stays. Nothing is written. With --lasts 120s it is the question that the "
        "explorer asks before a deployment: whether the pool has the capacity. With --node and --owner it is the other "
        "one: whether the workload is allowed. The exit code is 1 if an answer is no.",
    )
    asking.add_argument("pool_id", type=int64, metavar="ID", help="the pool's id")
    asking.add_argument(
        "--add",
        type=workload,
        action="append",
        default=[],
        metavar="TYPE:NAME=VALUE,…",
        help="one more workload, as in container:cpu=2,memory=4096 or volume:size=100",
    )
    asking.add_argument("--remove", type=int64, action="append", default=[], metavar="ID", help="a workload less")
    add_amount_arguments(asking)
    asking.add_argument(
        "--lasts", type=duration, metavar="DURATION", help="ask whether the pool then lasts longer than that from now"
    )
    asking.add_argument("--node", metavar="ID", help="ask whether workloads may be on that node")
    asking.add_argument("--owner", type=int64, metavar="TID", help="ask whether that customer may deploy in it")
    add_limit_argument(asking, default=20, what="workloads")
    return asking


async def answer(database: Database, settings: Settings, arguments: argparse.Namespace) -> ExitCode:
    """Print the pool now and then; FAILED if an answer is no.

    Raises PoolNotFoundError, UnreadableDocumentError, NotFoundError, CapacityError.
    """
    del settings
    pool = await PoolStore(database=database).get_pool(arguments.pool_id)
    store = PoolWorkloads(database=database)
    removed = [await _removal(store, pool, workload_id) for workload_id in arguments.remove]
    listed = await store.first(pool.pool_id, limit=arguments.limit)
    told = _answered(pool, listed, removed, arguments, now=int(time.time()))
    if arguments.json:
        print(json.dumps(_json(told)))
    else:
        for line in _lines(told, arguments):
            print(line.rstrip())
    return ExitCode.FAILED if False in (told.has_capacity, told.is_allowed) else ExitCode.OK


async def _removal(store: PoolWorkloads, pool: Pool, workload_id: int) -> Change:
    """Return the removal of a workload that the pool counts."""
    found = await store.get(workload_id)
    if found is None:
        raise NotFoundError(f"workload {workload_id}: there is no document of it")
    if workload_id not in (pool.active_workload_ids or ()):
        raise CapacityError(f"workload {workload_id}: pool {pool.pool_id} does not count it, so removing it is nothing")
    if found.units is None:
        raise CapacityError(f"workload {workload_id}: what it drains is unknown: {found.problem}")
    return Change(workload_id, found.units)


def _answered(
    pool: Pool, listed: Sequence[PoolWorkload], removed: Sequence[Change], arguments: argparse.Namespace, *, now: int
) -> _Answer:
    ids = unused_ids(pool, count=len(arguments.add))
    new = [Change(each, cloud_units(fields)) for each, fields in zip(ids, arguments.add, strict=True)]
    bought = amounts(arguments)
    changes = Changes(bought=bought if any(bought) else None, removed=removed, added=new)
    after = what_if(pool, changes, now=now)
    workloads = _workloads(listed, changes, arguments.add, outlook(after, now=now))
    is_asked = arguments.node is not None or arguments.owner is not None
    return _Answer(
        now=now,
        before=pool,
        after=after,
        changes=changes,
        workloads=workloads,
        more=len(after.active_workload_ids or ()) - len(workloads),
        has_capacity=None if arguments.lasts is None else has_capacity(after, seconds=arguments.lasts, now=now),
        is_allowed=is_allowed(pool, node_id=arguments.node, owner_tid=arguments.owner) if is_asked else None,
    )


def _workloads(
    listed: Sequence[PoolWorkload], changes: Changes, added: Sequence[dict[str, Any]], then: Sequence[Outlook]
) -> list[_Workload]:
    """Return the workloads that the pool would have, as far as they were read and their units are known."""
    gone = {each.workload_id for each in changes.removed}
    kept = [
        (each.workload_id, each.workload_type, each.units)
        for each in listed
        if each.is_listed and each.units is not None and each.workload_id not in gone
    ]
    kept += [(None, fields["workload_type"], cloud_units(fields)) for fields in added]
    stay = staying([units for _, _, units in kept], then)
    return [_Workload(*each, stays) for each, stays in zip(kept, stay, strict=True)]


def _lines(told: _Answer, arguments: argparse.Namespace) -> Iterator[str]:
    now, then = told.outlooks
    yield NAME.format("pool", f"{told.before.pool_id}, owner {told.before.customer_tid}")
    for change in _changes(told.changes, [type_name(fields["workload_type"]) for fields in arguments.add]):
        yield NAME.format("what if", change)
    yield ""
    for title, outlooks in (("now", now), ("then", then)):
        yield RESOURCE.format(title, *RESOURCE_COLUMNS[1:])
        yield from (RESOURCE.format(*resource_row(each, now=told.now)) for each in outlooks)
        yield ""
    yield from _first(told, then)
    if told.has_capacity is not None:
        yield from _capacity(told, then, seconds=arguments.lasts)
    if told.is_allowed is not None:
        yield NAME.format("allowed", "yes" if told.is_allowed else f"no: {_refusal(told.before, arguments)}")


def _changes(changes: Changes, types: Sequence[str]) -> Iterator[str]:
    for resource, amount in zip(Resource, changes.bought or (0.0, 0.0, 0.0), strict=True):
        if amount:
            yield f"{amount:,.0f} {UNITS[resource]} seconds more"
    for each in changes.removed:
        yield f"without workload {each.workload_id}: {_drain(each.units)} less"
    for name, each in zip(types, changes.added, strict=True):
        yield f"with a {name}: {_drain(each.units)} more"


def _drain(units: Amounts) -> str:
    drained = [f"{rate:.4g} {UNITS[resource]}" for resource, rate in zip(Resource, units, strict=True) if rate]
    return ", ".join(drained) or "nothing"


def _first(told: _Answer, then: Sequence[Outlook]) -> Iterator[str]:
    first = first_to_run_out(then)
    if first is None:
        yield NAME.format("first", "nothing drains it, so nothing runs out")
        return
    yield NAME.format("first", f"{NAMES[first.resource]}: {end_of(first, now=told.now)}")
    stays = sum(each.stays for each in told.workloads)
    yield NAME.format("", f"then {len(told.workloads) - stays:,} of these workloads must go, and {stays:,} stay:")
    yield WORKLOAD.format("workload", "type", *(UNITS[resource].lower() for resource in Resource), "")
    for each in told.workloads:
        drains = (f"{rate:.4g}" for rate in each.units)
        fate = "stays" if each.stays else "goes"
        yield WORKLOAD.format(
            "new" if each.workload_id is None else each.workload_id, type_name(each.workload_type), *drains, fate
        )
    if told.more > 0:
        yield f"and {told.more:,} more, not read or of unknown units; --limit N reads more of them"


def _capacity(told: _Answer, then: Sequence[Outlook], *, seconds: int) -> Iterator[str]:
    ends = f"it runs empty {when(told.after.empty_at, now=told.now)}"
    yield NAME.format(f"lasts {span(seconds)}", f"{'yes' if told.has_capacity else 'no'}: {ends}")
    if told.has_capacity:
        return
    needed = to_buy(then, now=told.now, until=told.now + seconds + 1)
    bought = ", ".join(
        units_for(needed[each.resource], each.rate, each.resource) for each in then if each.resource in needed
    )
    if bought:
        yield NAME.format("", f"for that, buy {bought}")


def _refusal(pool: Pool, arguments: argparse.Namespace) -> str:
    if not is_allowed(pool, node_id=arguments.node):
        return f"node {cut(escaped(arguments.node), 30)} is not among its {len(pool.node_ids or ()):,} nodes"
    return f"customer {arguments.owner} does not own it"


def _json(told: _Answer) -> dict[str, Any]:
    now, then = told.outlooks
    first = first_to_run_out(then)
    return {
        "at": told.now,
        "now": _pool_json(told.before, now),
        "then": _pool_json(told.after, then),
        "runs_out_first": None if first is None else first.resource,
        "workloads": [asdict(each) | {"units": each.units._asdict()} for each in told.workloads],
        "has_capacity": told.has_capacity,
        "is_allowed": told.is_allowed,
    }


def _pool_json(pool: Pool, outlooks: Sequence[Outlook]) -> dict[str, Any]:
    return pool.to_json() | {"resources": [asdict(each) | {"is_exhausted": each.is_exhausted} for each in outlooks]}
