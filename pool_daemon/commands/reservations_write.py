"""Saves reservations, and credits them to their pools."""

import argparse
import asyncio
import json
import math
import sys
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pool_daemon.commands import int64
from pool_daemon.commands.arguments import line
from pool_daemon.commands.connection import operator
from pool_daemon.commands.pools_edit import STANDS_SECONDS, state_of_pool
from pool_daemon.commands.reservation_files import read_reservation
from pool_daemon.errors import ExitCode, StoreUnavailableError
from pool_daemon.plain_text import date, escaped
from pool_daemon.store.client import Database, ServerClock
from pool_daemon.store.pool_changes import Author
from pool_daemon.store.pool_edits import PoolEdits
from pool_daemon.store.reservation_credits import Credit, ReservationCredits, Terms
from pool_daemon.store.reservation_writes import ReservationWrites, Submission


def add_actions(actions: "argparse._SubParsersAction[Any]") -> None:
    """Declare `submit` and `apply`."""
    submitting = actions.add_parser(
        "submit",
        help="save a signed one",
        description="Check a signed reservation in every respect, and save it under the next id. A new pool is created "
        "at once, empty. The same reservation is saved once, however often it is submitted.",
    )
    submitting.add_argument("file", type=Path, metavar="FILE", help="the signed reservation; - reads standard input")
    submitting.add_argument("--reason", type=line, metavar="TEXT", help="why, for the record")
    submitting.add_argument(
        "--idempotency-key",
        type=line,
        metavar="KEY",
        help="save the same reservation once more: the customer orders the same again",
    )
    applying = actions.add_parser(
        "apply",
        help="credit one to its pool",
        description="Add what a reservation buys to its pool, and deploy the workloads that waited for it: exactly "
        "once. If it was applied before, when and by whom is printed, nothing is changed, and the exit code is 0. "
        "Refused unless its customer and its sponsor have signed it, by the keys in `user`, and while its escrow says "
        "that the explorer credits it: it is paid, or waits for its payment. The exit "
        "code is 1 if the explorer has overwritten the credit at the same moment.",
    )
    applying.add_argument("reservation_id", type=int64, metavar="ID", help="the reservation's id")
    applying.add_argument("--reason", type=line, required=True, metavar="TEXT", help="why, for the record")
    applying.add_argument(
        "--although-escrow",
        action="store_true",
        help="credit it although its escrow is open or paid: only if you know that the explorer does not",
    )
    applying.add_argument(
        "--without-workloads", action="store_true", help="leave the workloads that wait for payment as they are"
    )
    for action in (submitting, applying):
        action.add_argument("--dry-run", action="store_true", help="print the writes, and do not write")
        action.add_argument("--json", action="store_true", help="print JSON; instants in unix seconds")


async def submit(database: Database, arguments: argparse.Namespace) -> ExitCode:
    """Save a reservation.

    Raises ReservationError, VerificationError, StoreConflictError.
    """
    reservation = read_reservation(arguments.file)
    writes = ReservationWrites(database=database, author=_author(arguments), dry_run=arguments.dry_run)
    now = math.floor(await ServerClock(database=database).now())
    try:
        submission = await writes.submit(reservation, now, again=arguments.idempotency_key or "")
    except StoreUnavailableError as error:
        raise StoreUnavailableError(f"{error}; submit it again: it is saved once") from error
    for shown in _submission_as_json(submission) if arguments.json else _submission_as_text(submission, arguments):
        print(shown)
    return ExitCode.OK


async def apply(database: Database, arguments: argparse.Namespace) -> ExitCode:
    """Credit a reservation; FAILED if the explorer has overwritten the credit at the same moment.

    Raises ReservationNotFoundError, ReservationError, VerificationError, CapacityError, StoreConflictError.
    """
    author, clock = _author(arguments), ServerClock(database=database)
    store = ReservationCredits(database=database, author=author, dry_run=arguments.dry_run)
    terms = Terms(
        now=math.floor(await clock.now()),
        although_escrow=arguments.although_escrow,
        with_workloads=not arguments.without_workloads,
    )
    try:
        credit = await store.apply(arguments.reservation_id, terms)
    except StoreUnavailableError as error:
        raise StoreUnavailableError(f"{error}; apply it again: it is credited once") from error
    for shown in [_credit_as_json(credit)] if arguments.json else _credit_as_text(credit, arguments):
        print(shown, flush=True)
    if credit.edit is None or arguments.dry_run:
        return ExitCode.OK
    await asyncio.sleep(STANDS_SECONDS)
    edits = PoolEdits(database=database, author=author)
    try:
        stands = await edits.stands(credit.edit, math.floor(await clock.now()))
    except StoreUnavailableError as error:
        raise StoreUnavailableError(f"it was done, but whether the explorer has kept it is unknown: {error}") from error
    if not stands:
        print(_overwritten(credit, credit.edit.after.pool_id), file=sys.stderr)
    return ExitCode.OK if stands else ExitCode.FAILED


def _overwritten(credit: Credit, pool_id: int) -> str:
    """Return what is said when the explorer has overwritten a credit, which stays recorded as made."""
    options = [f" --{name} {each}x1s" for name, each in zip(("cu", "su", "ipv4"), credit.amounts, strict=True) if each]
    return (
        f"pool {pool_id}: the explorer has overwritten this credit at the same moment. It counts as applied: make up "
        f"for what `pools show {pool_id}` lacks with `pools top-up {pool_id}{''.join(options)}` and `pools nodes`"
    )


def _credit_as_json(credit: Credit) -> str:
    edit = credit.edit
    return json.dumps(
        {
            "repeated": credit.applied is not None,
            "applied": None if credit.applied is None else asdict(credit.applied),
            "pool": None if edit is None else edit.after.to_json(),
            "workloads": credit.workloads,
            "writes": [] if edit is None else [json.loads(write.to_json()) for write in edit.writes],
        }
    )


def _credit_as_text(credit: Credit, arguments: argparse.Namespace) -> Iterator[str]:
    edit, applied, name = credit.edit, credit.applied, f"reservation {arguments.reservation_id}"
    if applied is not None:
        at = "" if applied.at is None else f" {date(applied.at)}"
        yield escaped(f"{name}: was applied{at} by {applied.by}: {applied.reason}; nothing is changed")
    if edit is None:
        return
    if arguments.dry_run:
        yield "would write, in one transaction:"
        yield from (write.to_json() for write in edit.writes)
        return
    deployed = f"; workloads deployed: {credit.workloads:,}" if credit.workloads else ""
    yield f"{name}: credited to pool {edit.after.pool_id}, which {state_of_pool(edit.after)}{deployed}"
    if edit.before is not None:
        yield f"before, it {state_of_pool(edit.before)}"


def _author(arguments: argparse.Namespace) -> Author:
    """Return who runs this command and why. What is saved or credited once has a key of its own; this one is new."""
    actor = operator()
    return Author(actor.identity, actor.version, key=str(uuid.uuid4()), reason=arguments.reason or "")


def _submission_as_json(submission: Submission) -> Iterator[str]:
    yield json.dumps(
        {
            "reservation": submission.reservation.to_json(),
            "repeated": submission.repeated,
            "writes": [json.loads(write.to_json()) for write in submission.writes],
        }
    )


def _submission_as_text(submission: Submission, arguments: argparse.Namespace) -> Iterator[str]:
    saved = submission.reservation
    if submission.repeated:
        yield f"reservation {saved.reservation_id}: this was submitted before"
    elif arguments.dry_run:
        yield "would write, in one transaction:"
        yield from (write.to_json() for write in submission.writes)
    else:
        pool_id = saved.data_reservation.pool_id
        where = f"for pool {pool_id}" if pool_id else f"and pool {saved.reservation_id}, empty"
        yield f"reservation {saved.reservation_id}: saved, {where}; `reservations apply` credits it"
