"""The first reference: what the explorer service itself does when its timer fires, as plain code."""

import time
from typing import Any

from pymongo.database import Database

from pool_daemon.capacity.workload import NextAction
from pool_daemon.store.pools import CAPACITY_POOLS
from pool_daemon.store.workloads import WORKLOADS, WORKQUEUE


def one_by_one(database: Database[dict[str, Any]], *, now: int, patience_seconds: float) -> float:
    """Decommission what is due at the unix second `now`, and return the workloads a second.

    It reads all expired pools, and for each its deployed workloads; it updates each of those, then puts its order on
    the queue. No state is kept from one workload to the next, so the rate is constant and `patience_seconds` suffice to
    measure it.
    """
    started_at = time.perf_counter()
    done = 0
    for pool in list(database[CAPACITY_POOLS].find({"empty_at": {"$lte": now}})):
        deployed = {"pool_id": pool["_id"], "next_action": int(NextAction.DEPLOY)}
        for workload in list(database[WORKLOADS].find(deployed)):
            workload["next_action"] = int(NextAction.DELETE)
            change = {"$set": {"next_action": int(NextAction.DELETE)}}
            database[WORKLOADS].update_one({"_id": workload["_id"]}, change)
            database[WORKQUEUE].replace_one({"_id": workload["_id"]}, workload, upsert=True)
            done += 1
            if time.perf_counter() - started_at > patience_seconds:
                return done / (time.perf_counter() - started_at)
    return done / (time.perf_counter() - started_at)
