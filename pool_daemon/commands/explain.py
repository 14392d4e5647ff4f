"""The story of a pool or a workload, from all that the database holds; never writes."""

import argparse
import asyncio
import json
import textwrap
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from pool_daemon.capacity.arithmetic import EARLIEST
from pool_daemon.commands import add_config_argument, int64
from pool_daemon.commands.arguments import add_limit_argument
from pool_daemon.commands.connection import connection, operator
from pool_daemon.commands.pools_show import hold_of
from pool_daemon.commands.story import Known, Line, lines, problems
from pool_daemon.errors import ExitCode, NotFoundError, PoolNotFoundError
from pool_daemon.plain_text import date, escaped
from pool_daemon.settings import load_settings
from pool_daemon.store.client import Database
from pool_daemon.store.event_history import EventFilter, EventHistory
from pool_daemon.store.excerpts import Excerpt, Excerpts
from pool_daemon.store.pool_workloads import PoolWorkload, PoolWorkloads
from pool_daemon.store.quarantine import QuarantineStore
from pool_daemon.store.reconciliation import BEGINNING, ReconciliationStore

EXAMPLES = (
    "pool-daemon explain pool 17 --config /etc/pool-daemon/config.toml",
    "pool-daemon explain workload 501",
    "pool-daemon explain workload 501 --json | jq .problems",
)

WIDTH: Final = 80
RECHECK_SECONDS: Final = 1.0
"""Between the two readings of what does not add up; the explorer changes a pool within milliseconds."""

INDENT: Final = " " * 21
"""As wide as an instant and two spaces."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `pool` and `workload`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for action, what in (("pool", "a pool"), ("workload", "a workload")):
        explaining = actions.add_parser(
            action,
            help=f"what happened to {what}, and where it stands",
            description=f"Print what happened to {what} and where it stands: purchase, changes by operators, "
            "decommissions, guards, orders. The exit code is 1 if something does not add up.",
        )
        explaining.add_argument("id", type=int64, metavar="ID", help=f"the {action}'s id")
        add_limit_argument(explaining, default=20, what="events, the last ones, and workloads")
        add_config_argument(explaining)
        explaining.add_argument("--json", action="store_true", help="print JSON; instants in unix seconds")


def run(arguments: argparse.Namespace) -> ExitCode:
    """Print the story; FAILED if something in it does not add up."""
    settings = load_settings(arguments.config)
    with connection(settings) as database:
        told, wrong = asyncio.run(_explain(database, arguments))
    if arguments.json:
        print(json.dumps({"story": [asdict(line) for line in told], "problems": wrong}))
    else:
        _print(told, wrong)
    return ExitCode.FAILED if wrong else ExitCode.OK


async def _explain(database: Database, arguments: argparse.Namespace) -> tuple[list[Line], list[str]]:
    """Return the story, and what does not add up.

    Documents are read one after the other while other programs write them. So only what does not add up twice counts.
    """
    read = _pool if arguments.action == "pool" else _workload
    known = await read(database, arguments.id, limit=arguments.limit)
    wrong = problems(known)
    if wrong:
        await asyncio.sleep(RECHECK_SECONDS)
        known = await read(database, arguments.id, limit=arguments.limit)
        wrong = [problem for problem in problems(known) if problem in wrong]
    return lines(known), wrong


async def _pool(database: Database, pool_id: int, *, limit: int) -> Known:
    """Read all about a pool.

    Raises PoolNotFoundError if neither the pool nor a record of it exists.
    """
    excerpt = await _excerpt(database, pool_id)
    workloads = await PoolWorkloads(database=database).first(pool_id, limit=limit)
    known = await _known(database, pool_id, excerpt, EventFilter(pool=pool_id), workloads, limit=limit)
    if excerpt is None and not (known.events or known.workloads):
        raise PoolNotFoundError(f"pool {pool_id}: the specified pool could not be found")
    return known


async def _workload(database: Database, workload_id: int, *, limit: int) -> Known:
    """Read all about a workload and its pool.

    Raises NotFoundError if neither the workload nor a record of it exists.
    """
    workload = await PoolWorkloads(database=database).get(workload_id)
    history = EventHistory(database=database)
    events = await history.last(EventFilter(workload=workload_id), limit=limit)
    if workload is None and not events:
        raise NotFoundError(f"workload {workload_id}: there is no document and no record of it")
    pool_id = workload.pool_id if workload is not None else events[-1].pool_id
    excerpt = None if pool_id is None else await _excerpt(database, pool_id)
    wanted = EventFilter(workload=workload_id, pool=pool_id)
    workloads = [] if workload is None else [workload]
    return await _known(database, pool_id or 0, excerpt, wanted, workloads, limit=limit)


async def _excerpt(database: Database, pool_id: int) -> Excerpt | None:
    try:
        return await Excerpts(database=database).first_of(pool_id, most=1)
    except PoolNotFoundError:
        return None


async def _known(
    database: Database,
    pool_id: int,
    excerpt: Excerpt | None,
    wanted: EventFilter,
    workloads: Sequence[PoolWorkload],
    *,
    limit: int,
) -> Known:
    now = int(time.time())
    history = EventHistory(database=database)
    events = await history.last(wanted, limit=limit)
    if wanted.workload is not None:
        changes = await history.last(EventFilter(pool=pool_id, of_pools_only=True), limit=limit)
        events = sorted([*changes, *events], key=lambda event: event.at or 0.0)
    before = pool_id - 1 if pool_id > EARLIEST else BEGINNING
    store = ReconciliationStore(database=database, actor=operator())
    compared = await store.compare(after=before, limit=1, overdue_at=now)
    return Known(
        now=now,
        pool=None if excerpt is None else excerpt.pool,
        unreadable=None if excerpt is None or excerpt.error is None else str(excerpt.error),
        bought=await Excerpts(database=database).bought(pool_id),
        events=events,
        workloads=workloads,
        hold=await hold_of(database, pool_id),
        quarantined=(await QuarantineStore(database=database).among([pool_id])).get(pool_id),
        compared=compared if compared.last_id == pool_id else None,
        workload_id=wanted.workload,
    )


def _print(told: Sequence[Line], wrong: Sequence[str]) -> None:
    for line in told:
        at = "earlier" if line.at is None else date(line.at).removesuffix(" UTC")
        for row in textwrap.wrap(f"{at:19}  {escaped(line.text)}", WIDTH, subsequent_indent=INDENT):
            print(row)
    print("this does not add up:" if wrong else "it adds up")
    for problem in wrong:
        for row in textwrap.wrap(f"- {escaped(problem)}", WIDTH, subsequent_indent="  "):
            print(row)
