"""The commands that the daemon sends to the server, counted by the server."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from pymongo.collection import Collection
from pymongo.database import Database

from pool_daemon.store.error_mapping import translated
from pool_daemon.store.lease import LEASE

Document = dict[str, Any]

PROFILE: Final = "system.profile"
PROFILE_BYTES: Final = 16 * 1024 * 1024

NOT_COUNTED: Final = frozenset({"getMore", "hello", "isMaster", "ismaster", "serverStatus", "profile", "endSessions"})
"""Commands that are not counted: the stream's getMore, the heartbeat of every client's driver, and the bench's own."""


class CommandCount:
    """The number of commands of each name that were sent during the count, set at its end."""

    def __init__(self) -> None:
        self.by_name: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """The number of all commands."""
        return self.by_name.total()

    def described(self) -> str:
        """Return names and numbers on one line."""
        return ", ".join(f"{count} {name}" for name, count in self.by_name.most_common())


@contextmanager
def counted_commands(database: Database[Document]) -> Iterator[CommandCount]:
    """Count the commands that the server is sent while the block runs, for any database.

    Not counted are the stream's getMore, the heartbeats of drivers, the bench's own commands for the count, and the
    lease, which the server's profiler tells apart.
    """
    count = CommandCount()
    with _profiled(database, namespace=f"{database.name}.{LEASE}") as profile:
        before = _counters(database)
        yield count
        after = _counters(database)
        lease = Counter(next(iter(entry["command"])) for entry in profile.find())
    count.by_name = Counter(
        {name: after[name] - before[name] - lease[name] for name in after if name not in NOT_COUNTED}
    )


@contextmanager
def _profiled(database: Database[Document], *, namespace: str) -> Iterator[Collection[Document]]:
    with translated("profiling"):
        database.create_collection(PROFILE, capped=True, size=PROFILE_BYTES)
        database.command({"profile": 1, "filter": {"ns": namespace}})
        try:
            yield database[PROFILE]
        finally:
            database.command({"profile": 0, "filter": "unset"})
            database.drop_collection(PROFILE)


def _counters(database: Database[Document]) -> Counter[str]:
    commands = database.client.admin.command("serverStatus")["metrics"]["commands"]
    return Counter({name: command["total"] for name, command in commands.items() if isinstance(command, dict)})
