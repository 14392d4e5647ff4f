"""What is about to be done on a server without transactions: written down first, so that no crash leaves half of it."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from types import NoneType
from typing import Any, Final

from bson import Regex
from pymongo import ReplaceOne

from pool_daemon.store.client import Database
from pool_daemon.store.failures import translated
from pool_daemon.store.paging import PAGE, pages

INTENTS: Final = "pool-daemon-intents"

Record = dict[str, Any]
"""The record of a decommissioning as it will stand in `pool-daemon-events`, its id included."""


class IntentLog:
    """The collection `pool-daemon-intents`: a record that is to be written for each workload about to go.

    Every method raises StoreUnavailableError when MongoDB is away, and StoreRefusedError when it says no.
    """

    def __init__(self, *, database: Database) -> None:
        self._intents = database.collection(INTENTS)

    async def note(self, records: Sequence[Record]) -> None:
        """Write down what is about to be done."""
        notes = [ReplaceOne({"_id": record["_id"]}, {"record": record}, upsert=True) for record in records]
        with translated("writing intents"):
            await self._intents.bulk_write(notes, ordered=False)

    async def forget(self, records: Sequence[Record]) -> None:
        """Strike out what has been done, or undone."""
        with translated("striking out intents"):
            await self._intents.delete_many({"_id": {"$in": [record["_id"] for record in records]}})

    async def pending(self) -> AsyncGenerator[list[Record], None]:
        """Stream what was not struck out, some at a time; a document that makes no sense is nobody's intent.

        Close the iterator when leaving it early.
        """
        cursor = self._intents.find({}, batch_size=PAGE)
        async with aclosing(pages(cursor, doing="reading intents")) as found:
            async for documents in found:
                yield [record for document in documents if _is_record(record := document.get("record"))]


def _is_record(record: Any) -> bool:
    return (
        isinstance(record, dict)
        and isinstance(record.get("_id"), str)
        and not isinstance(record.get("workload_id"), (dict, Regex, NoneType))
    )
