"""A dry run reads, decides and tells; that it writes nothing is told by the server's own counters."""

from typing import Any

from arithmetic_model import Rates
from daemon_process import DaemonProcess
from deadline import wait_until
from endpoint import Endpoint
from explorer import CONTAINER, Explorer
from pymongo import MongoClient

WRITES = ("insert", "update", "delete")


def writes(mongo: MongoClient[dict[str, Any]]) -> dict[str, int]:
    counters = mongo.admin.command("serverStatus")["opcounters"]
    return {name: counters[name] for name in WRITES}


def test_a_dry_run_tells_what_it_would_do_and_writes_nothing(
    mongo: MongoClient[dict[str, Any]], mongo_uri: str, database_name: str
) -> None:
    explorer = Explorer(database=mongo[database_name])
    overdue = explorer.buy_expired(CONTAINER, CONTAINER)
    coming = explorer.buy(Rates(2.5, 1e9, 0), [CONTAINER])
    collections = sorted(explorer.database.list_collection_names())
    before = writes(mongo)
    with DaemonProcess("--dry-run", uri=mongo_uri, database_name=database_name) as daemon:

        def told() -> set[int]:
            return {
                record["workload"] for record in daemon.records if record["event"] == "workload_would_be_decommissioned"
            }

        wanted = {*overdue.workload_ids, *coming.workload_ids}
        wait_until(lambda: told() == wanted, within_seconds=20, what="the dry run to tell of every workload")
        endpoint = Endpoint(daemon)
        endpoint.wait_for("/readyz", 200)
        wait_until(lambda: endpoint.status_json()["role"] != "starting", within_seconds=5, what="its role")
        picture = endpoint.status_json()
        assert (picture["role"], picture["term"], picture["leader"]) == ("dry run", None, None)
        assert endpoint.sample("leader") == 0
        daemon.stop()
    assert writes(mongo) == before
    assert sorted(explorer.database.list_collection_names()) == collections
    assert set(explorer.next_actions(sorted(wanted))) == {3}
