"""What a decommissioning looks like in the log: a line a workload, or turned down to a line a pool."""

from daemon_process import Record, running_daemon
from explorer import CONTAINER, VOLUME, Explorer

KEYS = {"timestamp", "level", "logger", "event", "pool", "owner", "resources", "empty_at", "lateness_ms", "term"}


def decommissionings(mongo_uri: str, explorer: Explorer, **settings: str) -> list[Record]:
    """Let a daemon settle a pool of three workloads; return what it said of that."""
    pool = explorer.buy_expired(CONTAINER, VOLUME, CONTAINER)
    with running_daemon(uri=mongo_uri, database_name=explorer.database.name, **settings) as daemon:
        explorer.wait_until_gone(pool.workload_ids, within_seconds=15)
    (acquired,) = daemon.said("lease_acquired")
    (owner,) = (found["customer_tid"] for found in explorer.pools.find({"_id": pool.pool_id}))
    told = [record for record in daemon.records if record["event"].endswith("_decommissioned")]
    names = {(record["pool"], record["owner"], record["term"]) for record in told}
    assert names == {(pool.pool_id, owner, acquired["term"])}
    return told


def test_each_workload_has_a_line(mongo_uri: str, explorer: Explorer) -> None:
    told = decommissionings(mongo_uri, explorer)

    assert [(record["level"], record["event"]) for record in told] == [("info", "workload_decommissioned")] * 3
    assert all(record.keys() == KEYS | {"workload"} for record in told)
    recorded = explorer.events.distinct("workload_id", {"kind": "decommissioned"})
    assert {record["workload"] for record in told} == set(recorded)
    assert sorted(resource for record in told for resource in record["resources"]) == ["cu", "cu", "su"]


def test_turned_down_each_pool_has_a_line(mongo_uri: str, explorer: Explorer) -> None:
    (told,) = decommissionings(mongo_uri, explorer, LOG__DETAIL="pool")

    assert (told["level"], told["event"]) == ("info", "pool_decommissioned")
    assert told.keys() == KEYS | {"workloads"}
    assert told["workloads"] == 3
    assert told["resources"] == ["cu", "su"]
