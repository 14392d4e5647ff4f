"""The primary of a replica set of three steps down, or dies, while pools run empty all the time."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from uuid import uuid4

import pymongo
import pytest
from arithmetic_model import Document, Rates
from explorer import CONTAINER, Explorer, Purchase
from faults.daemons import STORM, daemon_on
from faults.figures import Figures
from faults.three_members import ThreeMembers
from ledger import Ledger
from pymongo import MongoClient

POOLS_A_SECOND = 30
LEAD_SECONDS = 6
"""Pools are created so long before they run empty: longer than there is ever no primary to create them on."""

RHYTHM_SECONDS = 0.2
RETURN_SECONDS = 60
"""A guard only: how late the last one was is in the table."""


@pytest.fixture
def client(three: ThreeMembers) -> Iterator[MongoClient[Document]]:
    """Connect to the set as the explorer does."""
    client: MongoClient[Document] = MongoClient(three.uri)
    with client:
        yield client


@pytest.fixture
def explorer(client: MongoClient[Document]) -> Explorer:
    """Write to the set, in place of the lone mongod."""
    return Explorer(database=client[f"failover-{uuid4().hex[:8]}"])


@pytest.fixture
def ledger(client: MongoClient[Document], explorer: Explorer) -> Ledger:
    """Judge by the set's own log of commits."""
    return Ledger(client=client, explorer=explorer)


@pytest.mark.timeout(300)
@pytest.mark.faults
def test_11_a_primary_that_steps_down_again_and_again_costs_nobody_anything(
    explorer: Explorer, ledger: Ledger, three: ThreeMembers, figures: Figures
) -> None:
    step_downs = 10
    with daemon_on(three.uri, explorer, **STORM):
        ledger.settle()
        with load(explorer) as pools:
            for _ in range(step_downs):
                three.step_down()
                ledger.settle()
        figure = lateness_of(pools, explorer, ledger)
    violations = ledger.violations()
    figures.record(11, "primary stepped down", trials=step_downs, violations=violations, figure=figure)
    assert violations == []


@pytest.mark.timeout(300)
@pytest.mark.faults
def test_12_a_primary_that_is_killed_costs_nobody_anything(
    explorer: Explorer, ledger: Ledger, three: ThreeMembers, figures: Figures
) -> None:
    kills = 3
    with daemon_on(three.uri, explorer, **STORM):
        ledger.settle()
        with load(explorer) as pools:
            for _ in range(kills):
                three.kill_primary()
                ledger.settle()
                three.mend()
        figure = lateness_of(pools, explorer, ledger)
    violations = ledger.violations()
    figures.record(12, "primary killed -9", trials=kills, violations=violations, figure=figure)
    assert violations == []


@contextmanager
def load(explorer: Explorer) -> Iterator[list[Purchase]]:
    """Create pools all the time, so that as many run empty in every second; give them when it is over."""
    pools: list[Purchase] = []
    over = threading.Event()

    def create() -> None:
        second = int(time.time()) + 1
        while not over.wait(RHYTHM_SECONDS):
            now = int(time.time())
            for empty_at in range(second, now + LEAD_SECONDS + 1):
                fresh = [explorer.draft(Rates(cu=empty_at - now + 0.5), [CONTAINER]) for _ in range(POOLS_A_SECOND)]
                with pymongo.timeout(RETURN_SECONDS):  # with a limit the driver tries again and again, else only once
                    explorer.create(fresh)
                pools.extend(fresh)
            second = now + LEAD_SECONDS + 1

    with ThreadPoolExecutor(1) as beside:
        task = beside.submit(create)
        try:
            yield pools
        finally:
            over.set()
            task.result()


def lateness_of(pools: list[Purchase], explorer: Explorer, ledger: Ledger) -> str:
    """Wait until all of them are gone, and say how late the latest was."""
    workload_ids = {workload_id for pool in pools for workload_id in pool.workload_ids}
    explorer.wait_until_gone(workload_ids, within_seconds=RETURN_SECONDS)
    late = sorted(
        gone.committed_at - gone.pool["empty_at"]
        for gone in ledger.read().decommissions
        if gone.workload_id in workload_ids
    )
    return f"{len(late):,} pools, late by {late[-1]:.1f} s at most, median {late[len(late) // 2]:.2f} s"
