"""Reservations as customers order them, and the command `pool-daemon reservations`."""

import json
import os
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from arithmetic_model import Document
from bson import Int64
from nacl.signing import SigningKey
from pymongo.database import Database

from pool_daemon.cli import main

CUSTOMER, SPONSOR = SigningKey(b"c" * 32), SigningKey(bytes(range(200, 232)))
CUSTOMER_TID, SPONSOR_TID = 7, 8

NODE = "2fi9ZZiBGW4G9pnrN656bMfW6x55RSoHDeMrd9pgSA8T"


class Printed(NamedTuple):
    """What a command has printed, and how it ended."""

    returncode: int
    stdout: str
    stderr: str


class Reservations:
    """Runs the command on one database, in this process: a new one would take longer to start than to work."""

    def __init__(self, uri: str, name: str) -> None:
        self._settings = {"POOL_DAEMON_DATABASE__URI": uri, "POOL_DAEMON_DATABASE__NAME": name}

    def run(self, *arguments: str) -> Printed:
        """Run it to its end."""
        out, errors = StringIO(), StringIO()
        with patch.dict(os.environ, self._settings), redirect_stdout(out), redirect_stderr(errors):
            code = main(["reservations", *arguments])
        return Printed(code, out.getvalue(), errors.getvalue())


def signed(*, sponsor: bool = False, **data: Any) -> Document:
    """Return a reservation as JSON that its customer has signed, and its sponsor if it has one."""
    order = {"pool_id": 0, "cus": 3600, "sus": 0, "ipv4us": 0, "node_ids": [NODE], "currencies": ["TFT"]} | data
    text = json.dumps(order, separators=(",", ":"))
    return {
        "id": 0,
        "json": text,
        "data_reservation": order,
        "customer_tid": CUSTOMER_TID,
        "customer_signature": CUSTOMER.sign(text.encode()).signature.hex(),
        "sponsor_tid": SPONSOR_TID if sponsor else 0,
        "sponsor_signature": SPONSOR.sign(text.encode()).signature.hex() if sponsor else "",
    }


def saved(reservation_id: int, **fields: Any) -> Document:
    """Return a reservation as the explorer saves it."""
    document = signed(**fields)
    order = document["data_reservation"]
    numbers = {name: Int64(order[name]) for name in ("pool_id", "cus", "sus", "ipv4us")}
    tids = {name: Int64(document[name]) for name in ("customer_tid", "sponsor_tid")}
    del document["id"]
    return {"_id": Int64(reservation_id)} | document | tids | {"data_reservation": order | numbers}


def add_users(database: Database[Document]) -> None:
    """Register the customer, and the sponsor as a trusted sales channel."""
    keys = ((CUSTOMER_TID, CUSTOMER), (SPONSOR_TID, SPONSOR))
    database["user"].insert_many(
        {
            "_id": Int64(tid),
            "name": f"user-{tid}",
            "pubkey": key.verify_key.encode().hex(),
            "trusted_sales_channel": tid == SPONSOR_TID,
        }
        for tid, key in keys
    )


def file_of(folder: Path, document: Document, name: str = "reservation.json") -> str:
    """Write a reservation into a file; return its path."""
    path = folder / name
    path.write_text(json.dumps(document))
    return str(path)
