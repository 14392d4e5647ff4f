"""An index build that waits for somebody's open transaction: everybody else queues behind it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from deadline import wait_until
from pymongo import MongoClient
from pymongo.client_session import ClientSession
from pymongo.collection import Collection

Document = dict[str, Any]


@contextmanager
def waiting_build(mongo: MongoClient[Document], collection: Collection[Document]) -> Iterator[ClientSession]:
    """Yield the session of the transaction, which whoever ends the wait aborts; at the end of the context it is."""
    builds: list[Document] = [
        {"$currentOp": {}},
        {"$match": {"command.createIndexes": collection.name, "waitingForLock": True}},
    ]
    with ThreadPoolExecutor(1) as beside:
        with mongo.start_session() as session, session.start_transaction():
            collection.insert_one({"_id": "of an open transaction"}, session=session)
            building = beside.submit(collection.create_index, "x_note")
            wait_until(lambda: list(mongo.admin.aggregate(builds)), within_seconds=10, what="a build that waits")
            yield session
            if session.in_transaction:
                session.abort_transaction()
        building.result()
