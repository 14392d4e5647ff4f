"""The database's clock, as the server itself reads it."""

from pool_daemon.store.client import Database
from pool_daemon.store.codec import LENIENT
from pool_daemon.store.error_mapping import translated


class ServerClock:
    """The clock of the server that takes the writes.

    `hello` returns it: the cheapest command there is, which touches no data and needs no privilege. `$$NOW` in an
    aggregation reads the same clock, but needs the right to read a collection.
    """

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def now(self) -> float:
        """Return the server's wall clock, in unix seconds exact to the millisecond, as of some moment of the call.

        Raises StoreUnavailableError or StoreRefusedError.
        """
        with translated("reading the server's clock"):
            hello = await self._database.motor.command("hello", codec_options=LENIENT)
        return float(hello["localTime"].timestamp())
