"""Connections made while their server was between two roles: the driver will use no session on them."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from pool_daemon.errors import StoreUnavailableError
from pool_daemon.store.changes import open_stream
from pool_daemon.store.client import Database, connect
from pool_daemon.store.sessions import Session


@pytest_asyncio.fixture
async def database(mongo_uri: str, database_name: str) -> AsyncIterator[Database]:
    database = connect(uri=mongo_uri, name=database_name)
    await count(database)
    async with open_stream(database, token=None):
        pass
    yield database
    database.close()


async def count(database: Database) -> int:
    """Do something in a transaction."""

    async def body(session: Session) -> int:
        return await database.collection("capacity-pools").count_documents({}, session=session)

    return await database.transact(body, doing="writing")


def spoil_connections(database: Database) -> None:
    """Let the driver believe of every connection it has what it would if the server had had no role at its start."""
    spoilt = 0
    for client in (database._client, database._stream_client):
        for server in client.delegate._topology._servers.values():
            for connection in server.pool.conns:
                connection.supports_sessions = False
                spoilt += 1
    assert spoilt >= 2


async def test_a_transaction_without_sessions_fails_as_in_an_outage_and_the_next_one_has_a_new_connection(
    database: Database,
) -> None:
    spoil_connections(database)
    with pytest.raises(StoreUnavailableError, match="Sessions are not supported"):
        await count(database)
    assert await count(database) == 0


async def test_a_stream_without_sessions_fails_as_in_an_outage_and_the_next_one_has_a_new_connection(
    database: Database,
) -> None:
    spoil_connections(database)
    with pytest.raises(StoreUnavailableError, match="Sessions are not supported"):
        async with open_stream(database, token=None):
            pass
    async with open_stream(database, token=None):
        pass
