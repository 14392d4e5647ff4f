"""Recovery from two permanent failures of the driver: its connections, or its view of the servers, are made anew."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from motor.motor_asyncio import AsyncIOMotorClient
from pymongo.errors import PyMongoError, ServerSelectionTimeoutError

from pool_daemon.errors import StoreError
from pool_daemon.store.error_mapping import lacks_sessions

Client = AsyncIOMotorClient[Any]


@contextlib.contextmanager
def renewing(*clients: Client, began_anew: Callable[[], None]) -> Iterator[None]:
    """Renew clients whose operation failed with an error that would make every later one fail, too.

    `began_anew` is called for each client that forgets its servers; the former sessions belong to those.

    The driver decides once, when it makes a connection, whether the connection has sessions, and a server that changes
    its role just then has none. In the driver's pool, that connection would be used again and again, because the one
    returned last is lent first. The driver also never returns to a server that it has removed: see
    `_refuses_what_answers`.

    The driver has no public way to empty its pool or to begin anew. The client stays the same object, so that
    collections made of it go on working. If a newer driver names its parts otherwise, nothing is renewed.
    """
    try:
        yield
    except (PyMongoError, StoreError) as error:
        with contextlib.suppress(AttributeError):
            for client in clients:
                if lacks_sessions(error):
                    _renew_connections(client)
                elif _found_no_server(error) and _refuses_what_answers(client):
                    _begin_anew(client)
                    began_anew()
        raise


def _found_no_server(error: BaseException) -> bool:
    cause = error.__cause__ if isinstance(error, StoreError) else error
    return isinstance(cause, ServerSelectionTimeoutError)


def _refuses_what_answers(client: Client) -> bool:
    """Return whether the driver has removed a server for good.

    It takes a primary whose elections were counted from one again, as in a replica set restored with a fresh history,
    for an outdated one. And it removes a member that answers as a standalone server, however briefly.
    """
    servers = client.delegate.topology_description.server_descriptions().values()
    return not servers or any("stale" in str(server.error) for server in servers if server.error)


def _renew_connections(client: Client) -> None:
    for server in list(client.delegate._topology._servers.values()):  # noqa: SLF001
        server.pool.reset_without_pause()


def _begin_anew(client: Client) -> None:
    """Forget all servers and begin with those of the address, as a new client does."""
    driver = client.delegate
    old, keeper = driver._topology, driver._kill_cursors_executor  # noqa: SLF001
    driver._init_background()  # noqa: SLF001
    keeper.close()
    old.close()
