"""Grace as operators meet it on a running daemon: given by policy, shown, ended by a word or a top-up, and counted."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from arithmetic_model import Rates
from daemon_process import DaemonProcess
from deadline import wait_until
from endpoint import Endpoint
from explorer import CONTAINER, PLENTY, VOLUME, Explorer, Purchase
from grace_scene import DAY, HOUR, in_grace

from pool_daemon.harness import environment

Run = Callable[..., list[str]]
PATIENT, OTHER, THIRD = 7, 8, 10
"""Customers with whom a day for their volumes is agreed; those of others go after a second."""

GRACE = {"GRACE__VOLUME": "1s", "GRACE__BUDGET": "30d"}


@pytest.fixture(scope="module")
def daemon_settings(explorer: Explorer) -> dict[str, str]:
    """Agree on graces before the daemon starts, which then has them from the first pass on."""
    agreed = [{"_id": owner, "grace": {"volume": DAY}, "reason": "a contract"} for owner in (PATIENT, OTHER, THIRD)]
    explorer.database["pool-daemon-policies"].insert_many(agreed)
    return {**GRACE, "HTTP__PORT": "0"}


@pytest.fixture
def run(run_command: Run, mongo_uri: str, explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run commands on the daemon's database, with its settings."""
    settings = environment(DATABASE__URI=mongo_uri, DATABASE__NAME=explorer.database.name, **GRACE)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return run_command


@pytest.fixture
def endpoint(daemon: DaemonProcess) -> Endpoint:
    endpoint = Endpoint(daemon)
    endpoint.wait_for("/readyz", 200)
    return endpoint


def metric(endpoint: Endpoint, name: str) -> float:
    lines = endpoint.ask("/metrics")[1].splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"pool_daemon_{name}"))


def runs_out(explorer: Explorer, *kinds: Any, owner: int = PATIENT) -> Purchase:
    """Buy a pool that has just run out of everything."""
    return explorer.buy(Rates(0.5, 0.05, 0.5), kinds, bought_at=int(time.time()) - 2, customer_tid=owner)


def wait_for_grace(explorer: Explorer, pool: Purchase) -> None:
    graces = explorer.database["pool-daemon-grace"]
    wait_until(lambda: graces.find_one({"_id": pool.pool_id, "running": True}), within_seconds=15, what="a grace")


def test_what_is_in_grace_is_shown_and_goes_at_an_operators_word(
    run: Run, endpoint: Endpoint, explorer: Explorer
) -> None:
    ended = metric(endpoint, 'graces_ended_total{reason="operator"}')
    pool = runs_out(explorer, CONTAINER, VOLUME)
    container, volume = pool.workload_ids
    explorer.wait_until_gone([container], within_seconds=10)
    wait_for_grace(explorer, pool)
    assert any(f"volume {volume} goes in 23 h" in line for line in run("pools", "show", str(pool.pool_id)))
    assert any(line.split()[0] == str(pool.pool_id) for line in run("grace", "list"))
    assert explorer.next_actions([volume]) == [3]

    run("grace", "end", str(pool.pool_id), "--yes", "--reason", "moved away")

    explorer.wait_until_gone([volume], within_seconds=10)
    wait_until(
        lambda: metric(endpoint, 'graces_ended_total{reason="operator"}') > ended, within_seconds=10, what="a count"
    )
    assert metric(endpoint, 'grace_seconds_total{workload_type="volume"}') > 0
    records = list(explorer.events.find({"pool_id": pool.pool_id, "kind": {"$regex": "grace"}}, sort=[("kind", 1)]))
    assert [(each["kind"], each["reason"]) for each in records] == [
        ("grace_began", "resource exhausted"),
        ("grace_changed", "moved away"),
        ("grace_ended", "operator"),
    ]


def test_a_top_up_ends_a_grace_and_the_workload_stays(run: Run, endpoint: Endpoint, explorer: Explorer) -> None:
    topped_up = metric(endpoint, 'graces_ended_total{reason="topped_up"}')
    pool = runs_out(explorer, VOLUME)
    wait_for_grace(explorer, pool)
    explorer.top_up(pool.pool_id, Rates(PLENTY, PLENTY, PLENTY))
    wait_until(
        lambda: metric(endpoint, 'graces_ended_total{reason="topped_up"}') > topped_up,
        within_seconds=15,
        what="a count",
    )
    assert explorer.next_actions(pool.workload_ids) == [3]
    assert not any(line.split()[0] == str(pool.pool_id) for line in run("grace", "list"))


def test_a_policy_holds_for_pools_in_grace_too(run: Run, endpoint: Endpoint, explorer: Explorer) -> None:
    pool = runs_out(explorer, VOLUME, owner=OTHER)
    wait_for_grace(explorer, pool)
    wait_until(lambda: endpoint.status_json()["grace"]["pools"] is not None, within_seconds=15, what="a count")
    run("policy", "unset", str(OTHER))
    explorer.wait_until_gone(pool.workload_ids, within_seconds=15)


def test_what_a_changed_policy_lets_go_counts_as_due_from_that_moment_on(
    run: Run, endpoint: Endpoint, explorer: Explorer
) -> None:
    pool = explorer.draft(Rates(0.5, 0.05, 0.5), [VOLUME], bought_at=int(time.time()) - 3 * HOUR, customer_tid=THIRD)
    in_grace(explorer, pool, for_seconds=2 * HOUR, owner=THIRD)
    settled = metric(endpoint, "batch_pools_sum")
    explorer.create([pool])
    wait_until(lambda: metric(endpoint, "batch_pools_sum") > settled, within_seconds=15, what="a settlement")
    assert explorer.next_actions(pool.workload_ids) == [3]
    late, lost = metric(endpoint, "lateness_seconds_sum"), metric(endpoint, "workloads_decommissioned_total")

    run("policy", "unset", str(THIRD))

    explorer.wait_until_gone(pool.workload_ids, within_seconds=15)
    wait_until(
        lambda: metric(endpoint, "workloads_decommissioned_total") > lost, within_seconds=10, what="a count of it"
    )
    assert metric(endpoint, "lateness_seconds_sum") - late < 60


def test_whose_grace_is_not_agreed_has_that_of_the_settings(endpoint: Endpoint, explorer: Explorer) -> None:
    del endpoint
    explorer.wait_until_gone(runs_out(explorer, VOLUME, owner=9).workload_ids, within_seconds=10)
