"""Reservations as files: ordered, signed and verified, before or after they are in the database."""

import argparse
import binascii
import json
import os
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from pool_daemon.capacity.arithmetic import LATEST
from pool_daemon.capacity.reservation import (
    KEY_BYTES,
    Reservation,
    ReservationData,
    Signer,
    public_key,
)
from pool_daemon.capacity.reservation_checks import Check, Known, User, checks
from pool_daemon.commands import int64
from pool_daemon.commands.arguments import line
from pool_daemon.commands.connection import connection
from pool_daemon.commands.pools_edit import unit_seconds
from pool_daemon.errors import ExitCode, ReservationError
from pool_daemon.plain_text import cut, escaped
from pool_daemon.settings import load_settings
from pool_daemon.store.reservations import LONGEST_BYTES, Reservations

STANDARD_INPUT: Final = Path("-")

CHECK: Final = "{:12} {:21} {}"

KEY_FILE_BYTES: Final = 4096
"""What is read of a key file; a key has 32 bytes, or 64 or 128 hexadecimal digits."""

OPEN_TO_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def add_actions(actions: "argparse._SubParsersAction[Any]") -> None:
    """Declare `new`, `sign` and `verify`."""
    ordering = actions.add_parser(
        "new",
        help="a reservation to be signed",
        description="Print a reservation as JSON. Its field json is the exact text that customer and sponsor sign. "
        "Nothing is written.",
    )
    ordering.add_argument("--customer", type=_tid, required=True, metavar="TID", help="who orders")
    ordering.add_argument("--sponsor", type=_tid, default=0, metavar="TID", help="who pays for it")
    ordering.add_argument("--pool", type=_tid, default=0, metavar="ID", help="the pool to extend (default: a new one)")
    ordering.add_argument(
        "--node",
        type=line,
        action="append",
        required=True,
        dest="nodes",
        metavar="ID",
        help="a node that the pool may use; of an extension all that it may use already, too",
    )
    for name, resource in (("cu", "compute"), ("su", "storage"), ("ipv4u", "IPv4")):
        ordering.add_argument(
            f"--{name}",
            type=_whole_unit_seconds,
            default=0,
            metavar="UNITSxDURATION",
            help=f"{resource} units for a duration, as in 2x30d",
        )
    ordering.add_argument(
        "--currency", type=line, action="append", dest="currencies", metavar="NAME", help="a currency to pay in"
    )
    ordering.add_argument("--json", action="store_true", default=True, help="print JSON (always)")
    _add_signing(actions)
    _add_verifying(actions)


def _add_signing(actions: "argparse._SubParsersAction[Any]") -> None:
    signing = actions.add_parser(
        "sign",
        help="add a signature",
        description="Sign a reservation with an Ed25519 key and write it back into its file; with - as FILE it is read "
        "from standard input and printed.",
    )
    signing.add_argument(
        "file", type=Path, metavar="FILE", help="the reservation as JSON, as new prints it; - reads it"
    )
    signing.add_argument(
        "--key-file",
        type=Path,
        required=True,
        metavar="PATH",
        help="the signer's secret key: an Ed25519 seed, 32 bytes or their hexadecimal digits",
    )
    signing.add_argument(
        "--as",
        choices=tuple(each.value for each in Signer),
        default=Signer.CUSTOMER.value,
        dest="signer",
        help="who signs (default: customer)",
    )
    signing.add_argument("--dry-run", action="store_true", help="print the signed reservation, and write no file")
    signing.add_argument("--json", action="store_true", help="print the signed reservation, too")


def _add_verifying(actions: "argparse._SubParsersAction[Any]") -> None:
    verifying = actions.add_parser(
        "verify",
        help="check it in every respect",
        description="Check a reservation, in a file or in the database: its text, nodes, customer, sponsor, signatures "
        "and pool. The exit code is 1 if a check fails or a signature could not be checked. The public keys come from "
        "the database, unless --public-key names the customer's: then no database is asked about a file.",
    )
    verifying.add_argument(
        "reservation", type=Path, metavar="FILE|ID", help="a file as new prints it, - for standard input, or an id"
    )
    verifying.add_argument("--public-key", metavar="HEX", help="the customer's public key")
    verifying.add_argument("--sponsor-public-key", metavar="HEX", help="the sponsor's public key")
    verifying.add_argument("--json", action="store_true", help="print JSON")


def order(arguments: argparse.Namespace) -> ExitCode:
    """Print a new reservation."""
    data = ReservationData(
        pool_id=arguments.pool,
        cus=arguments.cu,
        sus=arguments.su,
        ipv4us=arguments.ipv4u,
        node_ids=arguments.nodes,
        currencies=arguments.currencies,
    )
    reservation = Reservation(
        reservation_id=0,
        json=data.to_signed_text(),
        data_reservation=data,
        customer_tid=arguments.customer,
        customer_signature="",
        sponsor_tid=arguments.sponsor,
        sponsor_signature="",
    )
    reservation.validate_nodes()
    if arguments.pool == 0 and not (data.cus or data.sus or data.ipv4us):
        print("pool-daemon reservations new: error: name what to buy: --cu, --su or --ipv4u", file=sys.stderr)
        return ExitCode.USAGE
    print(_text_of(reservation), end="")
    return ExitCode.OK


def sign(arguments: argparse.Namespace) -> ExitCode:
    """Add a signature to a reservation, and write it back.

    Raises ReservationError if file or key cannot be read or used.
    """
    reservation = read_reservation(arguments.file)
    seed = _read_key(arguments.key_file)
    signed = reservation.signed(Signer(arguments.signer), seed)
    printed = arguments.dry_run or arguments.json or arguments.file == STANDARD_INPUT
    if not (arguments.dry_run or arguments.file == STANDARD_INPUT):
        _write(arguments.file, _text_of(signed))
    tid = getattr(signed, f"{arguments.signer}_tid")
    said = f"signed as {arguments.signer} {tid} with the key whose public key is {public_key(seed)}"
    print(_text_of(signed) if printed else f"{said}\n", end="")
    return ExitCode.OK


async def verify(arguments: argparse.Namespace) -> ExitCode:
    """Print each check of a reservation; FAILED if one does not hold.

    Raises ReservationError or ReservationNotFoundError.
    """
    results = await _results(arguments)
    holds = all(check.holds for check in results)
    if arguments.json:
        told = [{"name": each.name, "outcome": each.outcome, "reason": cut(each.reason)} for each in results]
        print(json.dumps({"holds": holds, "checks": told}))
    else:
        for shown in shown_checks(results):
            print(shown)
    return ExitCode.OK if holds else ExitCode.FAILED


def shown_checks(results: Sequence[Check]) -> Iterator[str]:
    """Yield a line for each check."""
    for each in results:
        yield CHECK.format(each.outcome, each.name, cut(escaped(each.reason))).rstrip()


async def _results(arguments: argparse.Namespace) -> list[Check]:
    reservation_id = _id(arguments.reservation)
    if reservation_id is None:
        reservation = read_reservation(arguments.reservation)
        if arguments.public_key is not None:
            known = _with_keys(Known(customer=None, sponsor=None, asked=False), arguments)
            return checks(reservation, known)
    with connection(load_settings(arguments.config)) as database:
        store = Reservations(database=database)
        if reservation_id is not None:
            reservation = await store.get(reservation_id)
        known = await store.known_for(reservation)
    return checks(reservation, _with_keys(known, arguments))


def _with_keys(known: Known, arguments: argparse.Namespace) -> Known:
    """Return what is known, with the public keys of the command line in place of those of the database."""
    return replace(
        known,
        customer=_with_key(known.customer, arguments.public_key, asked=known.asked),
        sponsor=_with_key(known.sponsor, arguments.sponsor_public_key, asked=known.asked),
    )


def _with_key(user: User | None, key: str | None, *, asked: bool) -> User | None:
    if key is None or (asked and user is None):
        return user
    return User(key, is_trusted=user is not None and user.is_trusted)


def read_reservation(path: Path) -> Reservation:
    """Read a reservation from a file of JSON, or from standard input.

    Raises ReservationError, naming the file and what is wrong with it.
    """
    name = "standard input" if path == STANDARD_INPUT else str(path)
    try:
        if path == STANDARD_INPUT:
            text = sys.stdin.buffer.read(LONGEST_BYTES + 1)
        else:
            with path.open("rb") as file:
                text = file.read(LONGEST_BYTES + 1)
    except OSError as error:
        raise ReservationError(f"{name}: cannot be read: {error.strerror}") from error
    if len(text) > LONGEST_BYTES:
        raise ReservationError(f"{name}: longer than {LONGEST_BYTES:,} bytes, so it is no reservation")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ReservationError(f"{name}: no JSON: {error}") from error
    if not isinstance(document, dict):
        raise ReservationError(f"{name}: no JSON object, as `reservations new` prints it")
    try:
        return Reservation.from_json(document)
    except ReservationError as error:
        raise ReservationError(f"{name}: {error}") from error


def _read_key(path: Path) -> bytes:
    """Read an Ed25519 seed; warn if others may read its file.

    Raises ReservationError, which does not repeat what is in the file.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(KEY_FILE_BYTES)
    except OSError as error:
        raise ReservationError(f"{path}: cannot be read: {error.strerror}") from error
    if mode & OPEN_TO_OTHERS:
        print(f"pool-daemon: {escaped(str(path))}: others may use this key; chmod 600 it", file=sys.stderr)
    is_raw = len(text) == KEY_BYTES and not (text.isascii() and text.decode("ascii").isprintable())
    seed = text if is_raw else _unhexed(text.strip())
    if len(seed) == 2 * KEY_BYTES and seed[KEY_BYTES:].hex() == public_key(seed[:KEY_BYTES]):
        seed = seed[:KEY_BYTES]  # the form of other libraries: the seed, and its public key behind it
    if len(seed) != KEY_BYTES:
        raise ReservationError(f"{path}: no Ed25519 key: it must hold a seed of 32 bytes, or its 64 hexadecimal digits")
    return seed


def _unhexed(digits: bytes) -> bytes:
    with suppress(binascii.Error):
        return binascii.unhexlify(digits)
    return b""


def _write(path: Path, text: str) -> None:
    """Replace a file's content at once, with the file's mode.

    Raises ReservationError.
    """
    try:
        target = path.resolve(strict=True)
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        written = Path(name)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                os.fchmod(file.fileno(), stat.S_IMODE(target.stat().st_mode))
                file.flush()
                os.fsync(file.fileno())
            written.replace(target)
        finally:
            written.unlink(missing_ok=True)
    except OSError as error:
        raise ReservationError(f"{path}: cannot be written: {error.strerror}") from error


def _text_of(reservation: Reservation) -> str:
    return f"{json.dumps(reservation.to_json(), indent=2)}\n"


def _id(path: Path) -> int | None:
    """Return the id that is meant; None for a file. A file with a number as its name is named as ./17."""
    text = str(path)
    return int64(text) if text.isascii() and text.isdigit() else None


def _tid(text: str) -> int:
    number = int64(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be a whole number of at least 1")
    return number


def _whole_unit_seconds(text: str) -> int:
    amount = int(unit_seconds(text))
    if amount > LATEST:
        raise argparse.ArgumentTypeError(f"must be at most {LATEST} unit seconds")
    return amount
