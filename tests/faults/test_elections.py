"""What an election undoes, and a primary that no majority follows."""

import time
from collections.abc import Iterator
from uuid import uuid4

import pytest
from arithmetic_model import Document, Rates
from deadline import wait_for_instant, wait_until
from endpoint import Endpoint
from explorer import CONTAINER, YEAR_SECONDS, Explorer
from faults.daemons import STORM, daemon_on
from faults.figures import Figures
from faults.pools import ids_of
from faults.streams import DEAF
from faults.three_members import ThreeMembers
from ledger import Ledger
from pymongo import MongoClient

BELIEVED_SECONDS = 0.6
"""So long after its old end a pool that was topped up has been looked at, and left alone."""

RETURN_SECONDS = 60
NOTICE_SECONDS = 20
"""Fifteen, and what a busy machine takes."""


@pytest.fixture
def client(three: ThreeMembers) -> Iterator[MongoClient[Document]]:
    """Connect to the set as the explorer does."""
    client: MongoClient[Document] = MongoClient(three.uri, w="majority")
    with client:
        yield client


@pytest.fixture
def explorer(client: MongoClient[Document]) -> Explorer:
    """Write to the set, in place of the lone mongod."""
    return Explorer(database=client[f"elections-{uuid4().hex[:8]}"])


@pytest.fixture
def ledger(client: MongoClient[Document], explorer: Explorer) -> Ledger:
    """Judge by the set's own log of commits."""
    return Ledger(client=client, explorer=explorer)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("trials", [1, pytest.param(3, marks=pytest.mark.faults)])
def test_42_a_top_up_that_an_election_undoes_is_believed_no_longer_than_the_election(
    trials: int, explorer: Explorer, ledger: Ledger, three: ThreeMembers, figures: Figures
) -> None:
    late: list[float] = []
    with daemon_on(three.uri, explorer, **DEAF) as daemon:
        ledger.settle()
        for _ in range(trials):
            pool = explorer.buy(Rates(cu=6.5), [CONTAINER])

            def top_up(primary: MongoClient[Document], pool_id: int = pool.pool_id, end: int = pool.empty_at) -> None:
                only_there = Explorer(database=primary[explorer.database.name])
                wait_for_instant(end - 1.5)
                only_there.top_up(pool_id, Rates(cu=YEAR_SECONDS))
                wait_for_instant(end + BELIEVED_SECONDS)

            three.lose(top_up)
            elected_at = time.time()
            assert explorer.stored(explorer.pools, pool.pool_id)["empty_at"] == pool.empty_at, "it is undone"
            explorer.wait_until_gone(pool.workload_ids, within_seconds=RETURN_SECONDS)
            late.append(time.time() - elected_at)
            three.mend()
        assert len(daemon.said("primary_changed")) >= trials, "each election brings a full scan"
    violations = [f"{seconds:.1f} s" for seconds in late if seconds > 5]
    figures.record(
        42,
        "a top-up that an election undoes",
        trials=trials,
        violations=violations,
        figure=f"gone {max(late):.1f} s after the election at most",
    )
    assert violations == []


@pytest.mark.timeout(300)
@pytest.mark.faults
def test_44_without_a_majority_it_is_not_ready_and_all_is_done_once_there_is_one(
    explorer: Explorer, ledger: Ledger, three: ThreeMembers, figures: Figures
) -> None:
    with daemon_on(three.uri, explorer, **STORM) as daemon:
        endpoint = Endpoint(daemon)

        def is_ready() -> bool:
            return endpoint.ask("/readyz")[0] == 200

        ledger.settle()
        pools = [explorer.draft(Rates(cu=20.5), [CONTAINER]) for _ in range(40)]
        explorer.create(pools)
        wait_until(is_ready, within_seconds=NOTICE_SECONDS, what="ready")
        with three.replication_stopped():
            stopped_at = time.monotonic()
            wait_until(
                lambda: not is_ready(),
                within_seconds=RETURN_SECONDS,
                what="not ready",
            )
            noticed_seconds = time.monotonic() - stopped_at
            wait_for_instant(pools[0].empty_at + 5)
        majority_at = time.time()
        explorer.wait_until_gone(ids_of(pools), within_seconds=RETURN_SECONDS)
        done_seconds = time.time() - majority_at
        wait_until(
            is_ready,
            within_seconds=RETURN_SECONDS,
            what="ready again",
        )
    violations = ledger.violations_of_i1()
    violations += [f"not ready after {noticed_seconds:.1f} s"] * (noticed_seconds > NOTICE_SECONDS)
    violations += [f"done after {done_seconds:.1f} s"] * (done_seconds > NOTICE_SECONDS)
    figures.record(
        44,
        "a primary without a majority",
        trials=len(pools),
        violations=violations,
        figure=f"not ready after {noticed_seconds:.1f} s; all done {done_seconds:.1f} s after the majority is back",
    )
    assert violations == []
