"""A database in memory, for what is plain reading and writing; it knows neither transactions nor change streams."""

from typing import Any

import bson
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from mongomock_motor import AsyncMongoMockClient

from pool_daemon.store.client import Database
from pool_daemon.store.codec import LENIENT, RAW


class MockDatabase(Database):
    """The store's database on mongomock, which has dictionaries only: raw documents are made of them on the way out."""

    def __init__(self) -> None:
        super().__init__(client=AsyncMongoMockClient(), name="mock")

    def collection(self, name: str, codec_options: CodecOptions[Any] = LENIENT) -> Any:
        collection = self._client.get_database(self.name).get_collection(name)
        return RawCollection(collection) if codec_options is RAW else collection

    def close(self) -> None:
        """Forget everything, which needs no doing."""


class RawCollection:
    def __init__(self, collection: Any) -> None:
        self._collection = collection

    async def find_one(self, query: Any, *, sort: Any = None) -> RawBSONDocument | None:
        document = await self._collection.find_one(query, sort=sort)
        return None if document is None else RawBSONDocument(bson.encode(document), RAW)

    def find(self, query: Any, *, sort: Any, batch_size: int) -> "RawCursor":
        return RawCursor(self._collection.find(query, sort=sort, batch_size=batch_size))


class RawCursor:
    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor

    async def to_list(self, length: int) -> list[RawBSONDocument]:
        return [RawBSONDocument(bson.encode(document), RAW) for document in await self._cursor.to_list(length)]

    async def close(self) -> None:
        await self._cursor.close()
