"""The database connection of a command that looks, does one thing, and ends."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer
from typing import Final

from pool_daemon.errors import ConfigurationError
from pool_daemon.plain_text import escaped
from pool_daemon.settings import Settings
from pool_daemon.store.client import Database, connect
from pool_daemon.store.command_log import CommandLog
from pool_daemon.telemetry.credentials import mask_credentials

SILENT_SECONDS: Final = 2.0
"""A person at a terminal wonders after that long whether anything happens."""


@contextmanager
def connection(settings: Settings) -> Iterator[Database]:
    """Give the configured database; the connection is made by the first use and closed at the end.

    As long as the database has not answered at all, standard error says after a while what is waited for.
    Raises ConfigurationError if no database is configured.
    """
    if settings.database.uri is None:
        raise ConfigurationError(
            "database.uri: not set; name the MongoDB to look at. A daemon on its own mongod logs the port it listens on"
        )
    uri = settings.database.uri.get_secret_value()
    waiting = Timer(SILENT_SECONDS, _say_what_is_waited_for, [uri])
    waiting.daemon = True

    def answered(_name: str, _seconds: float, /, *, failed: bool) -> None:
        if not failed:
            waiting.cancel()

    database = connect(
        uri=uri,
        name=settings.database.name,
        timeout_seconds=settings.database.timeout_seconds,
        server_selection_seconds=settings.database.server_selection_seconds,
        listeners=[CommandLog(answered)],
    )
    waiting.start()
    try:
        yield database
    finally:
        waiting.cancel()
        database.close()


def _say_what_is_waited_for(uri: str) -> None:
    print(f"pool-daemon: waiting for MongoDB at {mask_credentials(escaped(uri))}", file=sys.stderr, flush=True)
