"""The daemon's indexes, for tests that have no daemon to build them."""

import asyncio

from pool_daemon.store.client import connect
from pool_daemon.store.setup import setup


def build_indexes(uri: str, name: str) -> None:
    """Build the indexes of a database, and its collections with them."""

    async def build() -> None:
        database = connect(uri=uri, name=name)
        await setup(database)
        database.close()

    asyncio.run(build())
