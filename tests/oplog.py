"""What was committed to a database, and in which order: MongoDB's own log of operations is the judge."""

from collections.abc import Iterator, Mapping
from datetime import UTC
from typing import Any, NamedTuple

from arithmetic_model import Document
from bson.codec_options import CodecOptions, DatetimeConversion
from pymongo import MongoClient
from pymongo.read_concern import ReadConcern


class Change(NamedTuple):
    """One document inserted, updated or deleted; `fields` are those of the top level that were written."""

    collection: str
    document_id: Any
    fields: Document
    replaces: bool

    def applied_to(self, document: Document) -> Document:
        """Return the document as it is after the change."""
        return dict(self.fields) if self.replaces else document | self.fields


class Commit(NamedTuple):
    """Changes that became true together; `committed_at` is in unix seconds, exact to the millisecond."""

    committed_at: float
    changes: list[Change]


NEVER_LOOKED_AT = {"lsid": 0, "ui": 0, "o.applyOps.ui": 0}
"""Fields of an entry that cost more to decode than all the others."""


class Oplog:
    """The commits to one database of a replica set, from the moment that this object was made.

    Only what a majority has is read: what a fallen primary takes back was never committed.
    """

    def __init__(self, *, client: MongoClient[Document], database_name: str) -> None:
        options: CodecOptions[Document] = CodecOptions(
            datetime_conversion=DatetimeConversion.DATETIME_AUTO,
            unicode_decode_error_handler="replace",
            tz_aware=True,
            tzinfo=UTC,
        )
        self._entries = client["local"].get_collection("oplog.rs", options, read_concern=ReadConcern("majority"))
        self._prefix = f"{database_name}."
        newest = self._entries.find_one(sort=[("$natural", -1)])
        self._since = newest["ts"] if newest else None

    def commits(self) -> Iterator[Commit]:
        """Read every commit since the last call, oldest first."""
        for entry in self._entries.find({"ts": {"$gt": self._since}}, NEVER_LOOKED_AT).sort("$natural", 1):
            self._since = entry["ts"]
            operations = entry["o"].get("applyOps") if entry["op"] == "c" else [entry]
            if entry["o"].get("partialTxn"):
                raise NotImplementedError("a transaction of more than 16 MB")
            changes = [
                change(operation, operation["ns"].removeprefix(self._prefix))
                for operation in operations or ()
                if operation["ns"].startswith(self._prefix) and operation["op"] in "iud"
            ]
            if changes:
                yield Commit(entry["wall"].timestamp(), changes)


def change(operation: Mapping[str, Any], collection: str) -> Change:
    """Read one insert, update (as a difference or as a whole document) or delete.

    Of a difference within an array or a sub-document, nothing is read: no test needs to replay it.
    """
    what = operation["o"]
    if operation["op"] == "d":
        return Change(collection, what["_id"], {}, replaces=True)
    document_id = operation["o2"]["_id"] if operation["op"] == "u" else what["_id"]
    if "diff" not in what:
        return Change(collection, document_id, dict(what), replaces=True)
    return Change(collection, document_id, {**what["diff"].get("u", {}), **what["diff"].get("i", {})}, replaces=False)
