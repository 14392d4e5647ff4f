"""What the daemon reads is dropped, replaced, or grows beyond what fits a message."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from arithmetic_model import Document, Rates, recompute, sync
from deadline import wait_until
from explorer import CONTAINER, YEAR_SECONDS, Explorer, Kind, Purchase, encoded
from faults import books
from faults.daemons import daemon_on
from faults.figures import Figures
from faults.streams import DEAF, HEARD_SECONDS, expire, wait_for_stream
from ledger import Ledger
from pymongo.errors import OperationFailure

YEAR = Rates(cu=YEAR_SECONDS)

LARGEST_BYTES = 16 * 1024 * 1024
TOO_LARGE = {10334, 280}
"""BSONObjectTooLarge, and how older servers end a stream for the same reason."""

NO_ROOM = 388
"""TransactionTooLargeForCache: the server of the tests has a small one, and has to make room first."""


def recreate_pools(explorer: Explorer, expired: Purchase) -> None:
    """Drop the pools and write them again, as a restore of a collection does."""
    pools = [in_the_backup(pool, expired) for pool in explorer.pools.find()]
    explorer.pools.drop()
    explorer.pools.insert_many(pools)


def recreate_workloads(explorer: Explorer, expired: Purchase) -> None:
    """Drop the workloads and write them again; meanwhile a pool runs empty, which has none at that moment."""
    workloads = list(explorer.workloads.find())
    explorer.workloads.drop()
    expire(explorer, expired)
    explorer.workloads.insert_many(workloads)


def replace_pools(explorer: Explorer, expired: Purchase) -> None:
    """Put another collection in the place of the pools, as a careful administrator does."""
    restored = explorer.database["restored"]
    restored.insert_many([in_the_backup(pool, expired) for pool in explorer.pools.find()])
    restored.rename(explorer.pools.name, dropTarget=True)


def recreate_database(explorer: Explorer, expired: Purchase) -> None:
    """Drop everything, the daemon's own collections too, and write the explorer's again."""
    pools = [in_the_backup(pool, expired) for pool in explorer.pools.find()]
    workloads = list(explorer.workloads.find({"pool_id": {"$in": [pool["_id"] for pool in pools]}, "next_action": 3}))
    explorer.database.client.drop_database(explorer.database.name)
    explorer.workloads.insert_many(workloads)
    explorer.pools.insert_many(pools)


def in_the_backup(pool: Document, expired: Purchase) -> Document:
    """Return a pool as it was, but for one that has run empty."""
    if pool["_id"] != expired.pool_id:
        return pool
    sync(pool, int(time.time()))
    pool["cus"] = 0.0
    recompute(pool)
    return encoded(pool)


@pytest.mark.parametrize(
    ("fault", "trials"),
    [
        (recreate_pools, 1),
        *(
            pytest.param(fault, 10, marks=pytest.mark.faults)
            for fault in (recreate_pools, recreate_workloads, replace_pools, recreate_database)
        ),
    ],
)
def test_15_what_comes_in_the_place_of_what_was_dropped_is_looked_at(
    fault: Callable[[Explorer, Purchase], None],
    trials: int,
    explorer: Explorer,
    ledger: Ledger,
    mongo_uri: str,
    figures: Figures,
) -> None:
    late: list[float] = []
    violations: list[str] = []
    with daemon_on(mongo_uri, explorer, **DEAF, LEASE__SECONDS="2") as daemon:
        ledger.settle()
        for trial in range(trials):
            if fault is recreate_database:
                wait_for_stream(daemon, trial + 1)
            expired, lasting = (explorer.buy(YEAR, [CONTAINER]) for _ in range(2))
            fault(explorer, expired)
            began_at = time.monotonic()
            wait_until(
                lambda: explorer.events.count_documents({"workload_id": expired.workload_ids[0]}),  # noqa: B023 - now
                within_seconds=HEARD_SECONDS,
                what=f"{expired.workload_ids} to go",
            )
            late.append(time.monotonic() - began_at)
            violations += books.violations(explorer, gone=expired.workload_ids, kept=lasting.workload_ids)
    figures.record(
        15,
        fault.__name__.replace("_", " "),
        trials=trials,
        violations=violations,
        figure=f"acted on within {max(late):.2f} s, on average {sum(late) / trials:.2f} s",
    )
    assert violations == []


@pytest.mark.parametrize(
    ("fault", "trials"),
    [("updated", 1), *(pytest.param(fault, 3, marks=pytest.mark.faults) for fault in ("updated", "replaced"))],
)
def test_16_a_change_too_large_for_an_event_is_heard_of_and_the_stream_goes_on(
    fault: str, trials: int, explorer: Explorer, ledger: Ledger, mongo_uri: str, figures: Figures
) -> None:
    late: list[float] = []
    explorer.database.create_collection(explorer.pools.name, changeStreamPreAndPostImages={"enabled": True})
    with daemon_on(mongo_uri, explorer, **DEAF) as daemon:
        ledger.settle()
        for _ in range(trials):
            pool, after = (explorer.buy(YEAR, [CONTAINER]) for _ in range(2))
            expired_at = grow_and_expire(explorer, pool, fault)
            (gone,) = ledger.wait_for_decommissions(pool.workload_ids, within_seconds=HEARD_SECONDS)
            late.append(gone.committed_at - expired_at)
            expire(explorer, after)
            ledger.wait_for_decommissions(after.workload_ids, within_seconds=HEARD_SECONDS)
    violations = ledger.violations()
    figures.record(
        16,
        f"oversized event (10334), pool {fault}",
        trials=trials,
        violations=violations,
        figure=f"acted on within {max(late):.2f} s; streams lost: {len(daemon.said('stream_lost'))}",
    )
    assert violations == []


def grow_and_expire(explorer: Explorer, pool: Purchase, fault: str) -> float:
    """Let a pool of nearly 16 MB run empty; return when. Who asks for more of the event loses his stream by it."""
    padding = "x" * (LARGEST_BYTES - 10_000)
    query = {"_id": pool.pool_id}
    expired = in_the_backup(dict(pool.document), pool)
    if fault == "replaced":
        write_large(partial(explorer.pools.update_one, query, {"$set": {"padding": padding}}))
    with explorer.database.watch(
        full_document="updateLookup", full_document_before_change="whenAvailable"
    ) as asking_for_more:
        if fault == "replaced":
            write_large(partial(explorer.pools.replace_one, query, {**expired, "padding": padding}))
        else:
            write_large(partial(explorer.pools.update_one, query, {"$set": {**expired, "padding": padding}}))
        expired_at = time.time()
        with pytest.raises(OperationFailure) as ended:
            wait_until(
                lambda: asking_for_more.try_next() and False, within_seconds=HEARD_SECONDS, what="an oversized event"
            )
    assert ended.value.code in TOO_LARGE
    return expired_at


def write_large(write: Callable[[], Any]) -> None:
    """Write what takes a good part of the server's cache, as soon as there is room for it."""

    def is_written() -> bool:
        try:
            write()
        except OperationFailure as error:
            if error.code != NO_ROOM:
                raise
            return False
        return True

    wait_until(is_written, within_seconds=HEARD_SECONDS, what="room in the server's cache")


@pytest.mark.faults
def test_16_workloads_too_large_for_one_message_go_together(
    explorer: Explorer, ledger: Ledger, mongo_uri: str, figures: Figures
) -> None:
    pools = 3
    large = Kind(1, {**CONTAINER.fields, "metadata": "x" * 9_000_000}, CONTAINER.rates)
    expired = [explorer.draft(YEAR, [large, large]) for _ in range(pools)]
    lasting = explorer.buy(YEAR, [large])
    late: list[float] = []
    with daemon_on(mongo_uri, explorer, **DEAF):
        ledger.settle()
        for pool in expired:
            explorer.create([pool])
            expired_at = expire(explorer, pool)
            query = {"pool_id": pool.pool_id}
            wait_until(
                lambda: explorer.events.count_documents(query) == 2,  # noqa: B023  # called in this round only
                within_seconds=HEARD_SECONDS,
                what="two large workloads to go",
            )
            late.append(time.time() - expired_at)
    gone = [workload_id for pool in expired for workload_id in pool.workload_ids]
    violations = books.violations(explorer, gone=gone, kept=lasting.workload_ids)
    figures.record(
        16,
        "transactions of more than 16 MB",
        trials=pools,
        violations=violations,
        figure=f"acted on within {max(late):.2f} s",
    )
    assert violations == []
