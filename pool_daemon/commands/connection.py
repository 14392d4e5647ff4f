"""The database connection of a command that looks, does one thing, and ends."""

from collections.abc import Iterator
from contextlib import contextmanager

from pool_daemon.errors import ConfigurationError
from pool_daemon.settings import Settings
from pool_daemon.store.client import Database, connect


@contextmanager
def connection(settings: Settings) -> Iterator[Database]:
    """Give the configured database; the connection is made by the first use and closed at the end.

    Raises ConfigurationError if no database is configured.
    """
    if settings.database.uri is None:
        raise ConfigurationError(
            "database.uri: not set; name the MongoDB to look at. A daemon on its own mongod logs the port it listens on"
        )
    database = connect(
        uri=settings.database.uri.get_secret_value(),
        name=settings.database.name,
        timeout_seconds=settings.database.timeout_seconds,
        server_selection_seconds=settings.database.server_selection_seconds,
    )
    try:
        yield database
    finally:
        database.close()
