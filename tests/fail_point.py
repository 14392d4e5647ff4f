"""The server's own fail points: a chosen command of the daemon's is delayed, fails, or loses its answer."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pymongo import MongoClient

APP_NAME = "pool-daemon"
"""Only the daemon's connections are hit; the test's own writers pass."""


@contextmanager
def fail_point(client: MongoClient[dict[str, Any]], *commands: str, mode: Any = None, **data: Any) -> Iterator[None]:
    """Let commands fail as `data` says, the first one unless `mode` says otherwise; switched off at the end."""
    client.admin.command(
        {
            "configureFailPoint": "failCommand",
            "mode": mode or {"times": 1},
            "data": {"failCommands": list(commands), "appName": APP_NAME, **data},
        }
    )
    try:
        yield
    finally:
        client.admin.command({"configureFailPoint": "failCommand", "mode": "off"})


def times_entered(client: MongoClient[dict[str, Any]]) -> int:
    """Return how many commands were hit since the server started."""
    point = client.admin.command({"getParameter": 1, "failpoint.failCommand": 1})["failpoint.failCommand"]
    return int(point.get("timesEntered", 0))
