"""Customers decide how long a document is, up to 16 MB: memory stays small, all goes, and nobody waits for it.

The daemon may allocate half a gibibyte, as the shipped deployment allows it.
"""

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC
from pathlib import Path

import pytest
from arithmetic_model import Document, Rates
from daemon_process import DaemonProcess
from deadline import wait_until
from explorer import CONTAINER, FREE, Explorer, Purchase
from faults.daemons import RESTARTED, STORM
from faults.figures import Figures
from pymongo.collection import Collection
from pymongo.errors import WriteError

KB = 1000
MB = 1000 * KB
LIMIT_BYTES = 512 * 2**20
MOST_RSS_MB = 160
GONE_SECONDS = 60
"""Alone on the machine; where other tests run beside this one, twice as much is waited."""
OTHERS = 10
DRAIN_SECONDS = 20
AHEAD_SECONDS = 8
ROOM_SECONDS = 30

TOO_LARGE_FOR_CACHE = 388


@dataclass(frozen=True)
class Load:
    """What one customer owns: workloads that go and free ones, each so long, and nodes and ids in their pools."""

    workloads: int = 1
    workload_bytes: int = KB
    free: int = 0
    free_bytes: int = MB
    unpaid_pools: int = 0
    node_bytes: int = MB
    listed_ids: int = 0
    others_seconds: float = 2.0


SMALL = {"a few of each kind": Load(6, 2 * MB, free=20, unpaid_pools=10, listed_ids=20_000)}

LARGE = {
    "60 workloads of 2 MB": Load(60, 2 * MB),
    "100 workloads of 8 MB": Load(100, 8 * MB),
    # Two seconds are what is wanted; five were seen where other tests wrote to the same disk.
    "40 workloads of 15 MB": Load(40, 15 * MB, others_seconds=10.0),
    "510 free workloads of 1 MB": Load(free=510),
    "1,400 free workloads of 1 MB": Load(free=1400),
    "500 unpaid pools with 1 MB of nodes": Load(unpaid_pools=500),
    "a pool that lists 200,000 workloads": Load(listed_ids=200_000),
}


def put(collection: Collection[Document], document: Document) -> None:
    """Insert a large document as soon as the server's cache has room for it."""

    def inserted() -> bool:
        try:
            collection.insert_one(document)
        except WriteError as error:
            if error.code != TOO_LARGE_FOR_CACHE:
                raise
            return False
        return True

    wait_until(inserted, within_seconds=ROOM_SECONDS, what="room in the server's cache")


def write(explorer: Explorer, load: Load) -> Purchase:
    """Write what the customer owns, and last the pool, which runs empty in some seconds; return it."""
    for _ in range(load.unpaid_pools):
        unpaid = explorer.draft(Rates(), [])
        put(explorer.pools, unpaid.document | {"node_ids": ["n" * load.node_bytes]})
    template = explorer.draft(Rates(cu=1), [CONTAINER])
    going = [explorer.new_workload(template.pool_id, CONTAINER) for _ in range(load.workloads - 1)]
    free = [explorer.new_workload(template.pool_id, FREE[0]) for _ in range(load.free)]
    for workload in free:
        put(explorer.workloads, workload | {"description": "x" * load.free_bytes})
    for workload in (*template.workloads, *going):
        put(explorer.workloads, workload | {"description": "x" * load.workload_bytes})
    pool = explorer.draft(Rates(cu=AHEAD_SECONDS), [CONTAINER]).document
    listed = [*template.workload_ids, *(workload["_id"] for workload in going), *range(10**9, 10**9 + load.listed_ids)]
    explorer.pools.insert_one(pool | {"_id": template.pool_id, "active_workload_ids": listed})
    return Purchase(template.pool_id, pool["empty_at"], pool, [*template.workloads, *going])


@dataclass
class Run:
    """A daemon that may allocate so much, for as long as it is needed; the most that it had is kept."""

    uri: str
    explorer: Explorer
    peak_mb: float = 0
    settings: dict[str, str] = field(default_factory=lambda: STORM | RESTARTED)

    def until(self, done: Callable[[], bool], *, within_seconds: float, what: str) -> float:
        """Run the daemon until something is done, and stop it; return how long that took, in seconds."""
        name = self.explorer.database.name
        with DaemonProcess(uri=self.uri, database_name=name, **self.settings) as daemon:
            pid = daemon.process.pid
            resource.prlimit(pid, resource.RLIMIT_DATA, (LIMIT_BYTES, LIMIT_BYTES))
            wait_until(lambda: done() or not daemon.is_running, within_seconds=within_seconds, what=what)
            assert daemon.is_running, "\n".join(daemon.log_lines())
            status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            self.peak_mb = max(self.peak_mb, int(status["VmHWM"].split()[0]) / 1024)
            asked_at = time.monotonic()
            daemon.stop()
            return time.monotonic() - asked_at


def running(explorer: Explorer, pools: list[Purchase]) -> int:
    ids = [workload_id for pool in pools for workload_id in pool.workload_ids]
    return explorer.workloads.count_documents({"_id": {"$in": ids}, "next_action": 3})


def wrong(explorer: Explorer, pools: list[Purchase]) -> list[str]:
    """Name the workloads that do not have one transition, one order as long as they are, and one record."""
    ids = [workload_id for pool in pools for workload_id in pool.workload_ids]

    def sizes(name: str) -> dict[int, int]:
        match = {"_id": {"$in": ids}, "next_action": 4}
        size = {"size": {"$bsonSize": "$$ROOT"}}
        found = explorer.database[name].aggregate([{"$match": match}, {"$project": size}])
        return {each["_id"]: each["size"] for each in found}

    workloads, orders = sizes("workload"), sizes("workqueue")
    count = {"$group": {"_id": "$workload_id", "count": {"$sum": 1}}}
    records = {each["_id"]: each["count"] for each in explorer.events.aggregate([count])}
    return [
        f"{each}: {workloads.get(each)} bytes, an order of {orders.get(each)}, {records.get(each)} records"
        for each in ids
        if workloads.get(each) is None or workloads.get(each) != orders.get(each) or records.get(each) != 1
    ]


def lateness(explorer: Explorer, pools: list[Purchase]) -> float:
    """Return how late the last of some pools went, in seconds."""
    late: list[float] = [
        event["decommissioned_at"].replace(tzinfo=UTC).timestamp() - event["empty_at"]
        for event in explorer.events.find({"pool_id": {"$in": [pool.pool_id for pool in pools]}})
    ]
    return max(late)


@pytest.mark.timeout(500)
@pytest.mark.parametrize(
    "load",
    [*SMALL.values(), *(pytest.param(each, marks=pytest.mark.faults) for each in LARGE.values())],
    ids=[*SMALL, *LARGE],
)
def test_26_the_length_of_documents_costs_neither_memory_nor_time(
    load: Load, explorer: Explorer, mongo_uri: str, figures: Figures, request: pytest.FixtureRequest
) -> None:
    explorer.workloads.create_index([("pool_id", 1), ("next_action", 1), ("_id", 1), ("workload_type", 1)])
    large = write(explorer, load)
    others = [explorer.draft(Rates(cu=AHEAD_SECONDS / 2 + number), [CONTAINER]) for number in range(OTHERS)]
    explorer.create(others)
    run = Run(mongo_uri, explorer)
    began_at = time.time()
    run.until(
        lambda: not running(explorer, [large, *others]),
        within_seconds=AHEAD_SECONDS + 2 * GONE_SECONDS,
        what="all to be gone",
    )
    took = time.time() - began_at
    late = lateness(explorer, others)
    violations = wrong(explorer, [large, *others])
    name = request.node.callspec.id
    figures.record(
        26,
        f"{name}, in 512 MiB",
        trials=load.workloads + OTHERS,
        violations=violations,
        figure=f"peak {run.peak_mb:.0f} MB, all gone after {took:.0f} s, pools of others late by at most {late:.2f} s",
    )
    assert violations == []
    assert run.peak_mb <= MOST_RSS_MB
    assert late <= load.others_seconds


@pytest.mark.timeout(300)
@pytest.mark.parametrize("count", [40, pytest.param(60, marks=pytest.mark.faults)])
def test_27_a_stop_is_noticed_in_the_midst_of_large_documents(
    count: int, explorer: Explorer, mongo_uri: str, figures: Figures
) -> None:
    large = write(explorer, Load(count, 2 * MB))
    run = Run(mongo_uri, explorer)
    stopped_after = run.until(
        lambda: running(explorer, [large]) < count, within_seconds=GONE_SECONDS, what="the first to go"
    )
    left = running(explorer, [large])
    run.until(lambda: not running(explorer, [large]), within_seconds=GONE_SECONDS, what="the rest to go")
    violations = wrong(explorer, [large])
    figures.record(
        27,
        "a stop in the midst of workloads of 2 MB",
        trials=count,
        violations=violations,
        figure=f"stopped after {stopped_after:.1f} s with {left} left, which the next daemon took",
    )
    assert violations == []
    assert left > 0
    assert stopped_after <= DRAIN_SECONDS
