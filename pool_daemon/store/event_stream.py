"""The records of `pool-daemon-events` as they come: the last ones, and then each as soon as it is committed."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any, Final

from pool_daemon.backoff import Backoff
from pool_daemon.errors import StoreUnavailableError
from pool_daemon.store.changes import ChangeBatch, open_stream
from pool_daemon.store.client import Database
from pool_daemon.store.event_history import EventFilter, EventHistory, Record
from pool_daemon.store.records import EVENTS


class EventStream:
    """Follows the records on one database.

    While the database is away it waits, and calls `on_wait` with each error; then it goes on where it was. Raises
    StreamTokenError if it was away for longer than the server's log of operations reaches back.
    """

    def __init__(self, *, database: Database, on_wait: Callable[[StoreUnavailableError], None]) -> None:
        self._database = database
        self._history = EventHistory(database=database)
        self._on_wait = on_wait
        self._token: Mapping[str, Any] | None = None
        self._shown: frozenset[str] | None = None
        self._stages: Final = (
            {"$match": {"ns": {"db": database.name, "coll": EVENTS}, "operationType": "insert"}},
            {"$project": {"documentKey": 1}},
        )

    async def follow(self, wanted: EventFilter, *, limit: int) -> AsyncGenerator[Record, None]:
        """Yield the last records, `limit` at most, and then all that come; close the iterator when leaving it.

        The stream is opened before the last records are read: what is committed in between is found by both, and
        yielded once. Raises StoreUnavailableError if the database cannot be reached at first, StoreRefusedError if the
        user may not watch it, and StreamTokenError.
        """
        backoff = Backoff()
        while True:
            try:
                async with aclosing(self._until_it_ends(wanted, limit=limit)) as records:
                    async for record in records:
                        backoff.reset()
                        yield record
            except StoreUnavailableError as error:
                if self._shown is None:
                    raise
                self._on_wait(error)
                await asyncio.sleep(backoff.next_seconds())

    async def _until_it_ends(self, wanted: EventFilter, *, limit: int) -> AsyncGenerator[Record, None]:
        async with open_stream(self._database, token=self._token, stages=self._stages) as stream:
            if self._shown is None:
                last = await self._history.last(wanted, limit=limit)
                self._shown = frozenset(record.record_id for record in last)
                for record in last:
                    yield record
            async for batch in stream:
                for record in await self._new(wanted, batch):
                    yield record
                self._token = batch.token

    async def _new(self, wanted: EventFilter, batch: ChangeBatch) -> list[Record]:
        ids = [event["documentKey"]["_id"] for event in batch.events]
        found = await self._history.among(wanted, ids) if ids else []
        return [record for record in found if record.record_id not in (self._shown or ())]
