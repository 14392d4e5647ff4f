"""Daemons that hear of changes by their stream alone, and what can be done to it."""

import time

from arithmetic_model import Document, Rates
from daemon_process import DaemonProcess
from deadline import wait_until
from explorer import Explorer, Purchase
from pymongo import MongoClient

DEAF = {"EXPIRY__MAX_SLEEP_SECONDS": "3600", "RECONCILE__ENABLED": "false"}
"""Nothing but the stream tells this daemon of a change: what goes in time went because the stream was back."""

HEARD_SECONDS = 15
"""In which a change must have been heard of, on a machine that is busy with other tests too."""


def wait_for_stream(daemon: DaemonProcess, number: int) -> None:
    """Wait until the daemon has opened its first, second, ... stream."""
    wait_until(
        lambda: len(daemon.said("stream_opened")) >= number,
        within_seconds=HEARD_SECONDS,
        what=f"stream number {number}",
    )


def expire(explorer: Explorer, pool: Purchase) -> float:
    """Take everything out of a pool, as an explorer may at any moment; return when."""
    explorer.shorten(pool.pool_id, Rates())
    return time.time()


def kill_stream(mongo: MongoClient[Document], database_name: str) -> None:
    """End the daemon's stream at the server, as an administrator can, whether it is being asked right now or not."""
    found: list[int] = []

    def are_found() -> bool:
        found[:] = {operation["cursor"]["cursorId"] for operation in stream_cursors(mongo, database_name)}
        return bool(found)

    wait_until(are_found, within_seconds=HEARD_SECONDS, what="the daemon's stream at the server")
    answer = mongo[database_name].command({"killCursors": "$cmd.aggregate", "cursors": found})
    assert answer["cursorsKilled"] == found


def wait_for_silence(mongo: MongoClient[Document], database_name: str) -> None:
    """Wait until the server has answered the last that a daemon, now frozen, has asked its stream."""
    wait_until(
        lambda: {operation["type"] for operation in stream_cursors(mongo, database_name)} == {"idleCursor"},
        within_seconds=HEARD_SECONDS,
        what="an idle stream",
    )


def stream_cursors(mongo: MongoClient[Document], database_name: str) -> list[Document]:
    """Find the operations of the daemons' change streams at the server, cursors that wait to be asked among them.

    On its way from one command to the next a cursor may be seen twice, or not at all.
    """
    return [
        operation
        for operation in mongo.admin.aggregate([{"$currentOp": {"allUsers": True, "idleCursors": True}}])
        if operation.get("ns", "").startswith(f"{database_name}.$cmd") and operation.get("cursor", {}).get("tailable")
    ]
