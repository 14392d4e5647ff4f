"""The database connection of a short-lived command, and the operator who runs it."""

import asyncio
import getpass
import os
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from threading import Timer
from typing import Final

from pool_daemon.embedded import address_of_running, default_folder
from pool_daemon.errors import ConfigurationError, StoreUnavailableError
from pool_daemon.plain_text import escaped, mask_credentials
from pool_daemon.settings import Settings
from pool_daemon.store.client import CommandLog, Database, connect
from pool_daemon.store.records import Actor, ActorKind

SILENT_SECONDS: Final = 2.0
"""After this long without output a person at a terminal wonders whether the command hangs."""


PATIENCE_SECONDS: Final = 3.0
"""For so long a command looks for a server. With its start and its end a person waits less than six seconds."""


@contextmanager
def connection(settings: Settings) -> Iterator[Database]:
    """Yield the database that a daemon with these settings works on, which has answered.

    While the database has not answered at all, standard error shows after a while what the command waits for. Raises
    ConfigurationError if there is no such database, StoreUnavailableError or StoreRefusedError if it does not answer.
    """
    uri = address(settings)
    waiting = Timer(SILENT_SECONDS, _say_what_is_waited_for, [uri])
    waiting.daemon = True

    def answered(_name: str, _seconds: float, /, *, failed: bool) -> None:
        if not failed:
            waiting.cancel()

    open_database = partial(
        connect,
        uri=uri,
        name=settings.database.name,
        timeout_seconds=settings.database.timeout_seconds,
        server_selection_seconds=settings.database.server_selection_seconds,
        listeners=[CommandLog(answered)],
    )
    waiting.start()
    try:
        _reach(open_database(), settings)
        with closing(open_database()) as database:
            yield database
    finally:
        waiting.cancel()


def _reach(database: Database, settings: Settings) -> None:
    """Wait for a primary, by a client and a thread of its own: a client stays with the event loop of its first use."""
    seconds = min(PATIENCE_SECONDS, settings.database.server_selection_seconds)
    try:
        with closing(database), ThreadPoolExecutor(1, "reaching MongoDB") as thread:
            thread.submit(asyncio.run, database.reach(seconds)).result()
    except StoreUnavailableError as error:
        if settings.database.uri is not None:
            raise
        raise StoreUnavailableError(f"{error}: the daemon with this mongod was killed; start it again") from error


def operator() -> Actor:
    """Return who runs this command, as records name it: user and host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = str(os.getuid())
    return Actor(ActorKind.OPERATOR, f"{user}@{socket.gethostname()}")


def address(settings: Settings) -> str:
    """Return the configured address, else that of the embedded mongod while one runs in its folder.

    Raises ConfigurationError if none runs there, or if the folder belongs to another user.
    """
    if settings.database.uri is not None:
        return settings.database.uri.get_secret_value()
    folder = settings.embedded.folder or default_folder(os.environ)
    try:
        running = address_of_running(folder)
    except OSError as error:
        raise ConfigurationError(
            f"embedded.folder: {folder} cannot be read ({error.strerror}): run this as the user that the daemon runs as"
        ) from error
    if running is None:
        raise ConfigurationError(
            f"database.uri: not set, and no daemon runs a mongod of its own in {folder}: "
            "name the MongoDB to use, or start the daemon, which takes some seconds"
        )
    return running


def _say_what_is_waited_for(uri: str) -> None:
    print(f"pool-daemon: waiting for MongoDB at {mask_credentials(escaped(uri))}", file=sys.stderr, flush=True)
