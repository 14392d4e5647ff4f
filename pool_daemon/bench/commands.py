"""What the daemon asks of the server, counted by the server."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from pymongo import MongoClient
from pymongo.database import Database

from pool_daemon.store.failures import translated
from pool_daemon.store.lease import LEASE

Document = dict[str, Any]

PROFILE: Final = "system.profile"
PROFILE_BYTES: Final = 16 * 1024 * 1024

NOT_COUNTED: Final = frozenset({"getMore", "hello", "isMaster", "ismaster", "serverStatus", "profile", "endSessions"})
"""The stream's awaiting, the driver's heartbeat that every client sends, and what the bench itself asks."""


class CommandCount:
    """How many commands of each name were sent while it counted, once it has ended."""

    def __init__(self) -> None:
        self.by_name: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """All of them together."""
        return self.by_name.total()

    def described(self) -> str:
        """Return the names and numbers in one line."""
        return ", ".join(f"{count} {name}" for name, count in self.by_name.most_common())


@contextmanager
def counted_commands(client: MongoClient[Document], database: Database[Document]) -> Iterator[CommandCount]:
    """Count the commands that the server is sent by anybody but the bench, which must send none meanwhile but writes.

    Everything that finds its way into the server's own counters counts, whichever database it is for, but the
    stream's awaiting, the heartbeats of drivers, and the lease; the latter is told apart by the server's profiler.
    """
    count = CommandCount()
    with _profiled(database, on=LEASE):
        before = _counters(client)
        yield count
        after = _counters(client)
        lease = _profile(database)
    count.by_name = Counter({name: after[name] - before[name] - lease[name] for name in after if name not in NOT_COUNTED})
    count.by_name = +count.by_name
