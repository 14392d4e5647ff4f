"""Transactions that nobody goes on with: the server keeps their documents from everybody until it gives them up."""

from collections.abc import Iterator
from contextlib import contextmanager

from arithmetic_model import Document
from fail_point import APP_NAME
from pymongo import MongoClient


@contextmanager
def transactions_expiring(mongo: MongoClient[Document], *, after_seconds: int) -> Iterator[None]:
    """Let the server give up transactions that nobody goes on with after so long; 60 s is its own setting."""
    name = "transactionLifetimeLimitSeconds"
    mongo.admin.command({"setParameter": 1, name: after_seconds})
    try:
        yield
    finally:
        mongo.admin.command({"setParameter": 1, name: 60})


def open_transactions(mongo: MongoClient[Document]) -> set[bytes]:
    """List the transactions of daemons, dead ones included, that the server has not given up yet."""
    operations = mongo.admin.aggregate(
        [
            {"$currentOp": {"idleSessions": True, "allUsers": True}},
            {"$match": {"transaction": {"$exists": True}, "appName": APP_NAME}},
        ]
    )
    return {bytes(operation["lsid"]["id"]) for operation in operations}
