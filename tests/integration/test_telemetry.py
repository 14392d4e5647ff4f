"""What a running daemon tells over HTTP: asked from outside, as Prometheus and Kubernetes do."""

from pathlib import Path
from typing import Any

from arithmetic_model import Rates
from daemon_process import running_daemon
from deadline import wait_until
from endpoint import START_SECONDS, Endpoint
from explorer import CONTAINER, Explorer
from pymongo import MongoClient

from pool_daemon.embedded import EmbeddedMongod
from pool_daemon.store.lease import LEASE

NOTICE_SECONDS = 15


def test_a_daemon_tells_what_it_waits_for_and_what_it_did(
    mongo_uri: str, database_name: str, mongo: MongoClient[dict[str, Any]]
) -> None:
    explorer = Explorer(database=mongo[database_name])
    overdue = explorer.buy_expired(CONTAINER)
    with running_daemon(uri=mongo_uri, database_name=database_name) as daemon:
        endpoint = Endpoint(daemon)
        endpoint.wait_for("/startupz", 200)
        endpoint.wait_for("/readyz", 200)
        assert endpoint.ask("/livez")[0] == 200
        assert explorer.next_action(overdue.workload_ids[0]) == 4, "ready before the first catch-up"

        soon = explorer.buy(Rates(cu=6), [CONTAINER])
        wait_until(
            lambda: endpoint.status_json()["next"] == {"at": soon.empty_at, "pool_id": soon.pool_id},
            within_seconds=5,
            what="the next pool in sight",
        )
        by_kind = {"resource": "cu", "workload_type": "container"}
        wait_until(
            lambda: endpoint.sample("workloads_decommissioned_total", **by_kind) == 2,
            within_seconds=20,
            what="two gone",
        )
        within = endpoint.sample("lateness_seconds_bucket", le="30.0")
        assert within == 1, "one was on time, the other an hour late"
        assert endpoint.sample("leader") == 1
        assert endpoint.sample("stream_open") == 1
        assert endpoint.sample("backlog_pools") == 0
        assert (endpoint.sample("database_command_duration_seconds_count", command="commitTransaction") or 0) >= 2
        assert [
            event["pool_id"] for event in endpoint.status_json()["events"] if event["kind"] == "decommissioned"
        ] == [
            soon.pool_id,
            overdue.pool_id,
        ]


def test_a_standby_is_ready_and_says_for_whom_it_stands_by(mongo_uri: str, database_name: str) -> None:
    with (
        running_daemon(uri=mongo_uri, database_name=database_name) as first,
        running_daemon(uri=mongo_uri, database_name=database_name) as second,
    ):
        endpoints = [Endpoint(first), Endpoint(second)]
        for endpoint in endpoints:
            endpoint.wait_for("/readyz", 200)
        wait_until(
            lambda: sorted(endpoint.status_json()["role"] for endpoint in endpoints) == ["leader", "standby"],
            within_seconds=20,
            what="a leader and a standby",
        )
        leader, standby = sorted(endpoints, key=lambda endpoint: str(endpoint.status_json()["role"]))
        identity = leader.status_json()["identity"]
        wait_until(lambda: standby.status_json()["leader"] == identity, within_seconds=20, what="the leader's name")
        assert standby.status_json()["backlog"] is None


def test_a_daemon_that_cannot_write_the_lease_is_alive_but_not_ready(
    mongo_uri: str, database_name: str, mongo: MongoClient[dict[str, Any]]
) -> None:
    nothing_passes = {"never": {"$exists": True}}
    mongo[database_name].create_collection(LEASE, validator=nothing_passes)
    with running_daemon(uri=mongo_uri, database_name=database_name, LEASE__SECONDS="1") as daemon:
        endpoint = Endpoint(daemon)
        wait_until(
            lambda: endpoint.status_json()["completed_pass_age_seconds"] is not None,
            within_seconds=START_SECONDS,
            what="the first pass",
        )
        endpoint.wait_for("/readyz", 503)
        assert endpoint.status_json()["ready"]["problems"] == ["waits for somebody to hold the lease"]
        assert endpoint.ask("/livez")[0] == 200
        mongo[database_name].command("collMod", LEASE, validator={})
        endpoint.wait_for("/readyz", 200)
        mongo[database_name].command("collMod", LEASE, validator=nothing_passes)
        endpoint.wait_for("/readyz", 503, within_seconds=NOTICE_SECONDS)
        assert "nobody is known to have held the lease" in endpoint.ask("/readyz")[1]


async def test_a_daemon_without_its_database_is_alive_but_not_ready(tmp_path: Path) -> None:
    async with EmbeddedMongod(folder=tmp_path) as server:
        quick = {"DATABASE__TIMEOUT_SECONDS": "1", "EXPIRY__MAX_SLEEP_SECONDS": "0.5"}
        with running_daemon(uri=server.uri, database_name="explorer", **quick) as daemon:
            endpoint = Endpoint(daemon)
            endpoint.wait_for("/startupz", 200)
            endpoint.wait_for("/readyz", 200)
            await server.stop()
            endpoint.wait_for("/readyz", 503, within_seconds=NOTICE_SECONDS)
            assert "passes failed in a row" in endpoint.ask("/readyz")[1]
            assert endpoint.ask("/livez")[0] == 200
            assert endpoint.ask("/startupz")[0] == 200
            await server.start()
            endpoint.wait_for("/readyz", 200)
            assert (endpoint.sample("stream_reconnects_total", cause="unavailable") or 0) >= 1
            assert (endpoint.sample("passes_total", outcome="failed") or 0) >= 3
