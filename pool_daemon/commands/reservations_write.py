"""Saves reservations, and credits them to their pools."""

import argparse
import json
import math
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pool_daemon.commands.connection import operator
from pool_daemon.commands.pools_edit import line
from pool_daemon.commands.reservation_files import read_reservation
from pool_daemon.errors import ExitCode, StoreUnavailableError
from pool_daemon.store.client import Database, ServerClock
from pool_daemon.store.pool_edits import Author
from pool_daemon.store.reservation_writes import ReservationWrites, Submission


def add_actions(actions: "argparse._SubParsersAction[Any]") -> None:
    """Declare `submit`."""
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
    for action in (submitting,):
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
