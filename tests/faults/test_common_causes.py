"""Where everything fails alike, nobody is to blame but what all share; and what is locked delays nobody else."""

import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC
from typing import Any

import pytest
from arithmetic_model import Document
from daemon_process import DaemonProcess
from deadline import soonest, wait_for_instant, wait_until
from explorer import Explorer, Purchase
from faults.daemons import STORM, daemon_on, wait_for_indexes
from faults.figures import Figures
from faults.pools import falling_due, ids_of, overdue
from ledger import Ledger
from pymongo import MongoClient
from pymongo.errors import OperationFailure

CURED_SECONDS = 10
NOT_READY_SECONDS = 20
LOCKED_SECONDS = 12
OTHERS_SECONDS = 2.0
OTHERS_CONFLICTS = 1.5
"""How much later others may be for each locked pool, in refused writes, on a machine on which that takes longer."""

VALIDATOR = {"a_field_that_no_order_has": {"$exists": True}}
OUT_OF_DISK_SPACE = 14031


def readiness(daemon: DaemonProcess) -> tuple[int, str]:
    """Ask a daemon whether it is ready; return the status and the answer."""
    (listening,) = daemon.said("http_listening")
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{listening['port']}/readyz", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@contextmanager
def validated(explorer: Explorer) -> Iterator[str]:
    """Have the server refuse every work order; yield the reason that it gives."""
    explorer.database.create_collection("workqueue", validator=VALIDATOR)
    yield "Document failed validation"
    explorer.database.command("collMod", "workqueue", validator={})


@contextmanager
def without_room(explorer: Explorer) -> Iterator[str]:
    """Have the server say of every insert that its disk is full."""
    admin = explorer.database.client.admin
    failing = {"failCommands": ["insert"], "errorCode": OUT_OF_DISK_SPACE, "appName": "pool-daemon"}
    admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data=failing)
    yield "failCommand"
    admin.command("configureFailPoint", "failCommand", mode="off")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("cause", [validated, without_room])
@pytest.mark.parametrize("count", [50, pytest.param(2000, marks=pytest.mark.faults)])
def test_28_where_all_fail_alike_nobody_is_blamed_and_all_is_done_soon_after_the_cure(
    count: int, cause: Any, explorer: Explorer, ledger: Ledger, mongo_uri: str, figures: Figures
) -> None:
    overdue(explorer, count)
    with daemon_on(mongo_uri, explorer, **STORM) as daemon:
        with cause(explorer) as reason:
            wait_until(lambda: daemon.said("pass_failed"), within_seconds=NOT_READY_SECONDS, what="a failed pass")
            wait_until(
                lambda: readiness(daemon)[0] == 503 and reason in readiness(daemon)[1],
                within_seconds=NOT_READY_SECONDS,
                what=f"not ready, because: {reason}",
            )
            wait_until(lambda: len(daemon.said("pass_failed")) >= 5, within_seconds=60, what="five failed passes")
        cured_at = time.monotonic()
        wait_until(lambda: explorer.running() == 0, within_seconds=60, what="all to be gone")
        took = time.monotonic() - cured_at
        assert daemon.said("pool_failed") == []
        assert daemon.said("pool_failed") == []
    assert list(explorer.database["pool-daemon-quarantine"].find()) == []
    violations = ledger.violations()
    figures.record(
        28,
        f"all fail alike: {cause.__name__}",
        trials=count,
        violations=violations,
        figure=f"all done {took:.1f} s after the cure, nobody blamed",
    )
    assert violations == []
    assert took <= CURED_SECONDS


def lateness(explorer: Explorer, pools: list[Purchase]) -> list[float]:
    events = explorer.events.find({"pool_id": {"$in": [pool.pool_id for pool in pools]}})
    return [event["decommissioned_at"].replace(tzinfo=UTC).timestamp() - event["empty_at"] for event in events]


def seconds_of_a_conflict(mongo: MongoClient[Document], database: str, *, tries: int = 200) -> float:
    """Measure how long this machine takes, now, to be refused the write of a locked document."""
    collection = mongo[database]["locked_for_comparison"]
    collection.insert_one({"_id": 1})
    with mongo.start_session() as holder, holder.start_transaction():
        collection.update_one({"_id": 1}, {"$set": {"locked": True}}, session=holder)
        began = time.monotonic()
        with mongo.start_session() as session:
            for _ in range(tries):
                session.start_transaction()
                with pytest.raises(OperationFailure, match=r"(?i)write ?conflict"):
                    collection.update_one({"_id": 1}, {"$set": {"locked": False}}, session=session)
                session.abort_transaction()
        took = time.monotonic() - began
        holder.abort_transaction()
    collection.drop()
    return took / tries


def manyfold(count: int, collection: str) -> Any:
    """Return a parametrisation that only the fault suite runs."""
    return pytest.param(count, collection, marks=pytest.mark.faults, id=f"{count:_}-{collection}")


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("count", "collection"),
    [(20, "pools"), manyfold(200, "pools"), manyfold(1000, "pools"), manyfold(1000, "workloads")],
)
def test_29_what_another_transaction_has_locked_delays_nobody_else(
    count: int,
    collection: str,
    explorer: Explorer,
    ledger: Ledger,
    mongo_uri: str,
    mongo: MongoClient[Document],
    figures: Figures,
) -> None:
    """Some of the others run empty in the same second, so that they are in one batch with what is locked.

    Each locked pool costs at least one refused write. So the time is judged by how long such a write takes meanwhile,
    and one round or another may be late all the same.
    """
    rounds: list[tuple[float, float, float]] = []

    def lock_some() -> float:
        conflicts_seconds = count * seconds_of_a_conflict(mongo, explorer.database.name)
        when: Any = {"in_seconds": 2.5 + count / 200, "bought_at": int(time.time())}  # not before they are locked
        others = falling_due(explorer, 5, within_seconds=2, **when)
        locked = falling_due(explorer, count, within_seconds=2, **when)
        others += falling_due(explorer, LOCKED_SECONDS, within_seconds=LOCKED_SECONDS, **when)
        ids = ids_of(locked) if collection == "workloads" else [pool.pool_id for pool in locked]
        documents = getattr(explorer, collection)
        with mongo.start_session() as session, session.start_transaction():
            documents.update_many({"_id": {"$in": ids}}, {"$set": {"x_note": 1}}, session=session)
            wait_until(
                lambda: not any(explorer.next_action(each) == 3 for each in ids_of(others)),
                within_seconds=LOCKED_SECONDS + 40,
                what="the others to be gone",
            )
            assert set(explorer.next_actions(ids_of(locked))) == {3}
            session.abort_transaction()
        freed_at = time.monotonic()
        wait_until(lambda: explorer.running() == 0, within_seconds=30, what="what was locked to be gone")
        late = max(lateness(explorer, others))
        rounds.append((late, time.monotonic() - freed_at, late / conflicts_seconds))
        return late / max(OTHERS_SECONDS, OTHERS_CONFLICTS * conflicts_seconds)

    with daemon_on(mongo_uri, explorer, **STORM) as daemon:
        wait_for_indexes(explorer)
        soonest(
            lock_some, within_seconds=1.0, what="the others of locked pools to go, as a share of what they may take"
        )
        assert daemon.said("pool_quarantined") == []
    violations = ledger.violations()
    late, freed_seconds, conflicts = min(rounds)
    figures.record(
        29,
        f"{count:,} {collection} that another transaction keeps locked",
        trials=count * len(rounds),
        violations=violations,
        figure=f"others late by at most {late:.2f} s, {conflicts:.1f} of as many refused writes; the locked ones gone "
        f"{freed_seconds:.1f} s after they were freed",
    )
    assert violations == []


@pytest.mark.timeout(300)
@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.faults)])
def test_30_a_stop_is_noticed_while_batches_conflict(
    count: int, explorer: Explorer, mongo_uri: str, mongo: MongoClient[Document], figures: Figures
) -> None:
    with (
        daemon_on(mongo_uri, explorer, **STORM) as daemon,
        mongo.start_session() as session,
        session.start_transaction(),
    ):
        wait_for_indexes(explorer)
        locked = falling_due(explorer, count, within_seconds=1)
        ids = {"_id": {"$in": [pool.pool_id for pool in locked]}}
        explorer.pools.update_many(ids, {"$set": {"x_note": 1}}, session=session)
        wait_for_instant(max(pool.empty_at for pool in locked) + 2)
        assert explorer.running() == count
        asked_at = time.monotonic()
        daemon.stop()
        stopped_after = time.monotonic() - asked_at
        assert daemon.said("lease_released")
        session.abort_transaction()
    figures.record(
        30,
        "a stop while batches conflict",
        trials=count,
        violations=0,
        figure=f"stopped after {stopped_after:.1f} s, the lease released",
    )
    assert stopped_after <= 5
