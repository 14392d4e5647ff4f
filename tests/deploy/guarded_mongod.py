"""A mongod that lets nobody in without a password, and in it the daemon's user as the shipped script makes it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from addresses import as_user
from arithmetic_model import Document
from deploy.files import DEPLOY, run
from pymongo import MongoClient

from pool_daemon.embedded import EmbeddedMongod

SCRIPT = DEPLOY / "mongodb/create-user.js"
NAME = "explorer"
PASSWORD = "correct-horse"  # noqa: S105 - it opens a server that lives as long as one module of tests


@contextmanager
def administered(server: EmbeddedMongod) -> Iterator[MongoClient[Document]]:
    """Be the user of that server who may do everything, and create the daemon's as its script does."""
    with MongoClient[Document](server.uri) as admin:
        for database, command in script_commands():
            admin[database].command(command)
        assert admin[NAME].command("usersInfo", "pool-daemon")["users"]
        yield admin


def daemons_uri(server: EmbeddedMongod) -> str:
    """Return where the daemon finds that server, with its own user and password."""
    return as_user(server.uri, "pool-daemon", PASSWORD, database=NAME)


def script_commands(
    *options: str, indexes: Mapping[str, Sequence[Document]] | None = None, keep_days: str | None = None
) -> list[tuple[str, Document]]:
    """Let the script run and return its commands, each with the database that it is for.

    `indexes` are those that the collections have already, `keep_days` is KEEP_DAYS in its environment. What runs the
    script stands in for mongosh, which neither Debian nor PyPI nor npm has to give.
    """
    stand_in = Path(__file__).with_name("mongosh.js")
    environ = [] if keep_days is None else ["env", f"KEEP_DAYS={keep_days}"]
    lines = run(*environ, "node", stand_in, SCRIPT, PASSWORD, json.dumps(indexes or {}), *options).splitlines()
    return [tuple(json.loads(line)) for line in lines if line.startswith("[")]
