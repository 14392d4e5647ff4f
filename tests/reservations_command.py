"""Reservations as customers order them, and `pool-daemon reservations` as a process."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arithmetic_model import Document
from bson import Int64
from nacl.signing import SigningKey
from pymongo.database import Database

CUSTOMER, SPONSOR = SigningKey(b"c" * 32), SigningKey(bytes(range(200, 232)))
CUSTOMER_TID, SPONSOR_TID = 7, 8

NODE = "2fi9ZZiBGW4G9pnrN656bMfW6x55RSoHDeMrd9pgSA8T"


class Reservations:
    """Runs the command on one database."""

    def __init__(self, uri: str, name: str) -> None:
        settings = {"POOL_DAEMON_DATABASE__URI": uri, "POOL_DAEMON_DATABASE__NAME": name}
        self.environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"} | settings

    def run(self, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """Run it to its end, with `text` on its standard input."""
        return subprocess.run(
            self.words(*arguments),
            check=False,
            input=text,
            text=True,
            capture_output=True,
            timeout=60,
            env=self.environment,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start it."""
        return subprocess.Popen(
            self.words(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment
        )

    @staticmethod
    def words(*arguments: str) -> Sequence[str]:
        """Return its command line."""
        return [sys.executable, "-m", "pool_daemon", "reservations", *arguments]


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
