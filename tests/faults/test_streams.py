"""The change stream ends in every way it can, and what it would have told is never lost for good.

The daemons sleep for an hour unless they hear of a change: what goes in time went because the stream was back.
"""

import time
from collections.abc import Iterator

import pytest
from arithmetic_model import Document, Rates
from daemon_process import DaemonProcess
from deadline import wait_until
from explorer import CONTAINER, YEAR_SECONDS, Explorer, Purchase
from faults.daemons import daemon_on
from faults.figures import Figures
from ledger import Ledger
from pymongo import MongoClient

DEAF = {"EXPIRY__SAFETY_SECONDS": "3600", "RECONCILE__ENABLED": "false"}
"""Nothing but the stream tells this daemon of a change."""

HEARD_SECONDS = 10
"""In which a change must have been heard of, on a machine that is busy with other tests too."""


def kill_stream(mongo: MongoClient[Document], database_name: str) -> None:
    """End the daemon's stream at the server, as an administrator can, whether it is being asked right now or not."""
    found: list[int] = []

    def are_found() -> bool:
        found[:] = stream_cursors(mongo, database_name)
        return bool(found)

    wait_until(are_found, within_seconds=HEARD_SECONDS, what="the daemon's stream at the server")
    answer = mongo[database_name].command({"killCursors": "$cmd.aggregate", "cursors": found})
    assert answer["cursorsKilled"] == found


def stream_cursors(mongo: MongoClient[Document], database_name: str) -> set[int]:
    """Find the daemon's change streams at the server.

    On its way from one command to the next a cursor may be seen twice, or not at all.
    """
    return {
        operation["cursor"]["cursorId"]
        for operation in mongo.admin.aggregate([{"$currentOp": {"allUsers": True, "idleCursors": True}}])
        if operation.get("appName") == "pool-daemon"
        and operation["ns"].startswith(f"{database_name}.$cmd")
        and operation.get("cursor", {}).get("tailable")
    }


def is_watching(daemon: DaemonProcess, streams: int) -> bool:
    """Tell whether the daemon has opened so many streams by now."""
    return len([record for record in daemon.records if record["event"] == "stream_opened"]) >= streams


def expire(explorer: Explorer, pool: Purchase) -> float:
    """Take everything out of a pool behind the daemon's back; return when."""
    explorer.shorten(pool.pool_id, Rates())
    return time.time()


@pytest.fixture
def pools(explorer: Explorer, ledger: Ledger) -> Iterator[Purchase]:
    """Yield pools that last for a year, one after the other."""
    return iter([explorer.buy(Rates(cu=YEAR_SECONDS), [CONTAINER]) for _ in range(200)])


@pytest.mark.parametrize("trials", [2, pytest.param(50, marks=pytest.mark.faults)])
def test_13_a_killed_cursor_is_opened_anew_and_has_missed_nothing(
    trials: int,
    pools: Iterator[Purchase],
    explorer: Explorer,
    ledger: Ledger,
    mongo: MongoClient[Document],
    mongo_uri: str,
    figures: Figures,
) -> None:
    late: list[float] = []
    with daemon_on(mongo_uri, explorer, **DEAF) as daemon:
        ledger.settle()
        for trial in range(trials):
            wait_until(lambda: is_watching(daemon, trial + 1), within_seconds=HEARD_SECONDS, what="a stream")
            kill_stream(mongo, explorer.database.name)
            pool = next(pools)
            expired_at = expire(explorer, pool)
            (gone,) = ledger.wait_for_decommissions(pool.workload_ids, within_seconds=HEARD_SECONDS)
            late.append(gone.committed_at - expired_at)
    violations = ledger.violations()
    figures.record(
        13,
        "the stream's cursor killed",
        trials=trials,
        violations=violations,
        figure=f"heard within {max(late):.2f} s, {sum(late) / trials:.2f} s on average",
    )
    assert violations == []
