"""Applies one reservation many times at once, as a process that can be killed in the midst of it.

Usage: applying.py URI DATABASE RESERVATION TIMES. It says `ready`, waits for a line, applies, says `claimed` when one
of its transactions has claimed the pool and `committing` before the commit is sent, and prints how many of them
credited.
"""

import asyncio
import sys
import time
import uuid

from pymongo import monitoring

from pool_daemon.errors import StoreConflictError
from pool_daemon.store.client import Database, connect
from pool_daemon.store.pool_changes import Author
from pool_daemon.store.reservation_credits import ReservationCredits, Terms

PAUSE_SECONDS = 0.1
"""A killed process leaves the pool locked for a while; an operator would run the command again."""


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class Progress(monitoring.CommandListener):
    """Says how far a transaction has come."""

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if event.command_name == "commitTransaction":
            say("committing")

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        if event.command_name == "findAndModify":
            say("claimed")

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Say nothing: another transaction was faster."""


async def apply(database: Database, reservation_id: int) -> bool:
    author = Author(identity="an operator", version="1", key=str(uuid.uuid4()), reason="a ticket")
    credits_ = ReservationCredits(database=database, author=author)
    while True:
        try:
            return (await credits_.apply(reservation_id, Terms(now=int(time.time())))).applied is None
        except StoreConflictError:
            await asyncio.sleep(PAUSE_SECONDS)


async def apply_all(uri: str, name: str, reservation_id: int, times: int) -> int:
    database = connect(uri=uri, name=name, timeout_seconds=60)
    try:
        await database.ping()
        say("ready")
        await asyncio.to_thread(sys.stdin.readline)
        return sum(await asyncio.gather(*(apply(database, reservation_id) for _ in range(times))))
    finally:
        database.close()


if __name__ == "__main__":
    _, uri, name, reservation, times = sys.argv
    monitoring.register(Progress())
    say(str(asyncio.run(apply_all(uri, name, int(reservation), int(times)))))
