"""The place of measurement: one database, emptied and filled again for each candidate."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from pymongo import MongoClient
from pymongo.database import Database

from pool_daemon.bench.grid import PoolBatch, build
from pool_daemon.bench.server import Commits
from pool_daemon.errors import BenchError
from pool_daemon.harness import DaemonProcess
from pool_daemon.settings.settings import SECTIONS
from pool_daemon.settings.sources import SEPARATOR
from pool_daemon.store.error_mapping import translated
from pool_daemon.store.setup import OWN_COLLECTIONS
from pool_daemon.store.workloads import WORKQUEUE

T = TypeVar("T")
Document = dict[str, Any]

LEAD_SECONDS: Final = 3
"""Time from the creation of data until it falls due: a daemon has to be started, and to be armed a second before."""


QUIET: Final = {
    "LOG__LEVEL": "debug",
    "BRAKE__ENABLED": "false",
    "HTTP__ENABLED": "false",
    "RECONCILE__ENABLED": "false",
}
"""Settings of every row: a detailed log, and nothing running beside what is measured. The brake is off, because it is
there to stop a storm."""


class BenchDatabase:
    """One database on one server, a folder for logs, and a receiver of progress messages.

    A context manager: the database must be empty when it is entered, or BenchError is raised, and is dropped at the
    end.
    """

    def __init__(self, *, uri: str, name: str, folder: Path, tell: Callable[[str], None]) -> None:
        self._uri = uri
        self._folder = folder
        self._daemons = 0
        self._tell = tell
        self._work = ""
        with translated("connecting"):
            self.client: MongoClient[Document] = MongoClient(
                uri, appname="pool-daemon-bench", serverSelectionTimeoutMS=5000, tz_aware=True
            )
        self.database: Database[Document] = self.client[name]

    def __enter__(self) -> Self:
        """Check that the database is empty, so that no other data is dropped.

        Raises BenchError, StoreUnavailableError or StoreRefusedError.
        """
        with translated("looking whether the database is empty"):
            names = self.database.list_collection_names()
        if names:
            self.client.close()
            raise BenchError(f"the database {self.database.name} is not empty, and would be dropped: name another one")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Drop the database."""
        with translated("dropping the database"), self.client:
            self.clear()

    def begin(self, work: str) -> None:
        """Report which row is measured from here on."""
        self._work = work
        self._tell(work)

    def tell(self, what: str) -> None:
        """Report which part of the row is measured now."""
        self._tell(f"{self._work}: {what}")

    def fill(self, *lots: PoolBatch, indexes: bool = True) -> None:
        """Replace the contents of the database with these pools and workloads."""
        self.clear()
        for name in (WORKQUEUE, *OWN_COLLECTIONS):
            self.database.create_collection(name)
        build(self.database, lots, indexes=indexes)

    def clear(self) -> None:
        """Drop everything."""
        self.client.drop_database(self.database.name)

    def daemon(self, **settings: str) -> DaemonProcess:
        """Return a daemon for the database, not started yet; `settings` are named as in the environment."""
        self._daemons += 1
        log = self._folder / f"daemon-{self._daemons}.log"
        return DaemonProcess(
            uri=self._uri, database=self.database.name, log=log, error=BenchError, settings=known(QUIET | settings)
        )

    def commits(self) -> Commits:
        """Record commits from now on."""
        return Commits(client=self.client, database=self.database.name)

    def server_version(self) -> str:
        """Return the version of MongoDB."""
        with translated("asking the server what it is"):
            return str(self.client.server_info()["version"])


def in_time(lots: Sequence[PoolBatch], attempt: Callable[[int], T]) -> T:
    """Let `attempt` create these lots for a deadline (unix seconds), and return its result.

    If the daemon is not armed for it by then, it is repeated with twice the time, and finally with four times as much.
    Raises TooBusyError if that is not enough either.
    """
    lead_seconds = LEAD_SECONDS + sum(lot.pools + lot.workloads for lot in lots) // 10_000
    for patience in (1, 2):
        try:
            return attempt(int(time.time()) + patience * lead_seconds)
        except TooBusyError:
            continue
    return attempt(int(time.time()) + 4 * lead_seconds)


def wait_until_armed(daemon: DaemonProcess, due_at: int) -> None:
    """Wait until a daemon is armed for a deadline (unix seconds); raise TooBusyError if that is not well before it."""
    left_seconds = due_at - 1 - time.time()
    try:
        daemon.first("armed", holds=lambda entry: entry["at"] == due_at, within_seconds=max(0.0, left_seconds))
    except BenchError as error:
        if time.time() < due_at - 1:
            raise
        raise TooBusyError("this machine was too busy to make the data in time") from error


class TooBusyError(BenchError):
    """The data was not ready in time. Stop other programs on this machine, or measure a smaller row."""


def known(settings: Mapping[str, str]) -> dict[str, str]:
    """Return those settings that exist: a version that is compared with another may lack one."""
    keys = {name: name.lower().partition(SEPARATOR) for name in settings}
    return {name: settings[name] for name, (section, _, field) in keys.items() if field in SECTIONS.get(section, {})}
