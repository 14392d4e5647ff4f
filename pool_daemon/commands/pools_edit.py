"""Creates pools, tops them up, ends them: what an operator changes, each with a record of who and why."""

import argparse
import asyncio
import json
import math
import re
import sys
import uuid
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, Final

from pool_daemon.capacity.pool import NEVER, Amounts, Pool
from pool_daemon.commands import add_config_argument, int64
from pool_daemon.commands.arguments import duration, line
from pool_daemon.commands.connection import operator
from pool_daemon.errors import ExitCode, StoreUnavailableError
from pool_daemon.settings import Settings
from pool_daemon.store.client import Database, ServerClock
from pool_daemon.store.pool_changes import Author
from pool_daemon.store.pool_edits import Edit, PoolEdits
from pool_daemon.views.texts import short, when

STANDS_SECONDS: Final = 2.0
"""After this long it is checked that a change stands: the explorer writes a pool back milliseconds after its read."""

_UNITS: Final = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)x(.+)", re.ASCII)


def unit_seconds(text: str) -> float:
    """Read units for a duration, as in 2x30d, in whole unit seconds; anything else is a usage error."""
    match = _UNITS.fullmatch(text)
    amount = math.floor(float(match[1]) * duration(match[2]) + 0.5) if match else 0
    if amount < 1:
        raise argparse.ArgumentTypeError("must be units for a duration, such as 2x30d or 0.5x12h")
    return float(amount)


def add_actions(actions: "argparse._SubParsersAction[Any]") -> None:
    """Declare `create`, `top-up`, `nodes` and `end`."""
    creating = actions.add_parser(
        "create", help="a new pool", description="Create a pool. Its id is the next of those that reservations get."
    )
    creating.add_argument("--owner", type=int64, required=True, metavar="TID", help="the customer that owns it")
    creating.add_argument("--sponsor", type=int64, default=0, metavar="TID", help="the customer that pays for it")
    creating.add_argument(
        "--node", type=line, action="append", required=True, dest="nodes", metavar="ID", help="a node it may use"
    )
    topping_up = actions.add_parser("top-up", help="more capacity", description="Add capacity to a pool.")
    growing = actions.add_parser("nodes", help="more nodes", description="Allow a pool's workloads on more nodes.")
    ending = actions.add_parser(
        "end",
        help="take all that is left",
        description="Take all that is left from a pool: a running daemon stops its workloads within seconds.",
    )
    for action in (topping_up, growing, ending):
        action.add_argument("pool_id", type=int64, metavar="ID", help="the pool's id")
    growing.add_argument(
        "--add", type=line, action="append", required=True, dest="nodes", metavar="NODE", help="a node's id"
    )
    ending.add_argument("--yes", action="store_true", help="do not ask for the id again")
    for action in (creating, topping_up):
        add_amount_arguments(action)
    for action in (creating, topping_up, growing, ending):
        add_change_arguments(action)


def add_amount_arguments(action: argparse.ArgumentParser) -> None:
    """Declare `--cu`, `--su` and `--ipv4`, what is bought, which `amounts` returns."""
    for name, resource in (("cu", "compute"), ("su", "storage"), ("ipv4", "IPv4")):
        action.add_argument(
            f"--{name}",
            type=unit_seconds,
            default=0.0,
            metavar="UNITSxDURATION",
            help=f"{resource} units for a duration, as in 2x30d",
        )


def amounts(arguments: argparse.Namespace) -> Amounts:
    """Return what is bought, in unit seconds."""
    return arguments.cu, arguments.su, arguments.ipv4


def add_change_arguments(action: argparse.ArgumentParser) -> None:
    """Declare what every change takes: `--reason`, `--idempotency-key`, `--dry-run`, `--json`, `--config`."""
    action.add_argument("--reason", type=line, metavar="TEXT", help="why, for the record")
    action.add_argument(
        "--idempotency-key",
        type=line,
        metavar="KEY",
        help="make this change only once, however often the command is repeated with this key",
    )
    action.add_argument("--dry-run", action="store_true", help="print the writes, and do not write")
    action.add_argument("--json", action="store_true", help="print JSON; instants in unix seconds")
    add_config_argument(action)


async def edit_pool(database: Database, settings: Settings, arguments: argparse.Namespace) -> ExitCode:
    """Make one change; FAILED if it was not confirmed, or was overwritten by the explorer."""
    del settings
    refused = _refused(arguments)
    if refused is not None:
        return refused
    return await make_change(database, arguments, partial(_make, arguments))


async def make_change(
    database: Database, arguments: argparse.Namespace, make: Callable[[PoolEdits, int], Awaitable[Edit]]
) -> ExitCode:
    """Make one change at a unix second by the server's clock, and print it; FAILED if the explorer overwrote it."""
    author = _author(arguments)
    clock = ServerClock(database=database)
    edits = PoolEdits(database=database, author=author, dry_run=arguments.dry_run)
    try:
        edit = await make(edits, math.floor(await clock.now()))
    except StoreUnavailableError as error:
        raise StoreUnavailableError(f"{error}; repeat it with --idempotency-key {author.key}") from error
    for shown in _as_json(edit) if arguments.json else _as_text(edit, dry_run=arguments.dry_run):
        print(shown, flush=True)
    if edit.repeated or arguments.dry_run:
        return ExitCode.OK
    await asyncio.sleep(STANDS_SECONDS)
    try:
        stands = await edits.stands(edit, math.floor(await clock.now()))
    except StoreUnavailableError as error:
        raise StoreUnavailableError(f"it was done, but whether the explorer has kept it is unknown: {error}") from error
    if not stands:
        lost = f"pool {edit.after.pool_id}: the explorer has overwritten this at the same moment"
        remedy = "do it again, with another --idempotency-key if you named one"
        if edit.workload_id is not None:
            remedy = f"workload {edit.workload_id} is deployed, and the pool does not count it"
        print(f"{lost}; {remedy}", file=sys.stderr)
    return ExitCode.OK if stands else ExitCode.FAILED


def _refused(arguments: argparse.Namespace) -> ExitCode | None:
    """Return the exit code of a change that is not made: it adds nothing, or a person does not want it."""
    if arguments.action == "top-up" and not any(amounts(arguments)):
        print("pool-daemon pools top-up: error: name what to add: --cu, --su or --ipv4", file=sys.stderr)
        return ExitCode.USAGE
    if arguments.action == "end" and declined(arguments, workloads="All workloads"):
        return ExitCode.FAILED
    return None


def _author(arguments: argparse.Namespace) -> Author:
    actor = operator()
    return Author(
        identity=actor.identity,
        version=actor.version,
        key=arguments.idempotency_key or str(uuid.uuid4()),
        reason=arguments.reason or "",
    )


async def _make(arguments: argparse.Namespace, edits: PoolEdits, now: int) -> Edit:
    match arguments.action:
        case "create":
            return await edits.create(arguments.owner, arguments.sponsor, arguments.nodes, amounts(arguments), now)
        case "top-up":
            return await edits.top_up(arguments.pool_id, amounts(arguments), now)
        case "nodes":
            return await edits.add_nodes(arguments.pool_id, arguments.nodes, now)
        case _:
            return await edits.end(arguments.pool_id, now)


def declined(arguments: argparse.Namespace, *, workloads: str) -> bool:
    """Return whether such workloads of a pool must not stop: nobody typed its id at a terminal, or said --yes."""
    if arguments.yes or arguments.dry_run or _confirmed(workloads, arguments.pool_id):
        return False
    print("nothing changed; --yes does it without asking", file=sys.stderr)
    return True


def _confirmed(workloads: str, pool_id: int) -> bool:
    if not sys.stdin.isatty():
        return False
    print(f"{workloads} of pool {pool_id} are going to stop. Type its id to go on: ", end="", file=sys.stderr)
    sys.stderr.flush()
    return sys.stdin.readline().strip() == str(pool_id)


def _as_json(edit: Edit) -> Iterator[str]:
    yield json.dumps(
        {
            "pool": edit.after.to_json(),
            **({} if edit.workload_id is None else {"workload_id": edit.workload_id}),
            "repeated": edit.repeated,
            "writes": [json.loads(write.to_json()) for write in edit.writes],
        }
    )


def _as_text(edit: Edit, *, dry_run: bool) -> Iterator[str]:
    if dry_run:
        yield "would write, in one transaction:"
        yield from (write.to_json() for write in edit.writes)
        return
    pool = edit.after
    if edit.workload_id is not None:
        yield f"workload {edit.workload_id} drains pool {pool.pool_id}"
    yield (
        f"pool {pool.pool_id}: "
        + ("this was done before; now it" if edit.repeated else "done; it")
        + f" {state_of_pool(pool)}"
    )
    if edit.before is not None and not edit.repeated:
        yield f"before, it {state_of_pool(edit.before)}"


def state_of_pool(pool: Pool) -> str:
    """Return what is left in a pool and when it runs empty, in words."""
    left = ", ".join(
        f"{short(amount)} {name}"
        for amount, name in ((pool.cus, "CU seconds"), (pool.sus, "SU seconds"), (pool.ipv4us, "IPv4U seconds"))
        if amount
    )
    ends = "never runs empty" if pool.empty_at == NEVER else f"runs empty {when(pool.empty_at)}"
    return f"has {left or 'nothing left'} and {ends}"
