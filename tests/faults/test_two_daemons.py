"""Two daemons on one database: the one that acts stops acting, or is thought to, and comes back."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime

import pytest
from arithmetic_model import Document, Rates
from daemon_process import DaemonProcess
from deadline import wait_for_instant, wait_until
from explorer import CONTAINER, Explorer, Purchase
from faults.daemons import IMPATIENT, STORM, daemon_on
from faults.figures import Figures
from faults.proxy import Proxy
from faults.transactions import transactions_expiring
from ledger import Ledger
from pymongo import MongoClient

LEASE_SECONDS = 15
"""What it is unless the settings say otherwise."""

TAKEOVER_SECONDS = 20
"""A guard beyond the length of the lease; the table has the figures."""

DONE_SECONDS = 60
RELIEF_SECONDS = 150
"""The server gives up a transaction that nobody goes on with after 60 s, at the latest 30 s later."""

IN_SMALL_STEPS = STORM | {"EXPIRY__BATCH_WORKLOADS": "50"}


@contextmanager
def holder_and_standby(
    holder_uri: str, standby_uri: str, explorer: Explorer, **settings: str
) -> Iterator[tuple[DaemonProcess, DaemonProcess]]:
    """Run two daemons, the first of which holds the lease; what becomes of it is the test's business."""
    name = explorer.database.name
    with DaemonProcess(uri=holder_uri, database_name=name, **settings) as holder:
        wait_until(lambda: holder.said("lease_acquired"), within_seconds=DONE_SECONDS, what="a holder")
        with daemon_on(standby_uri, explorer, **settings) as standby:
            wait_until(lambda: standby.said("standby"), within_seconds=DONE_SECONDS, what="a standby")
            yield holder, standby


def falling_due(explorer: Explorer, *, seconds: float, pools: int) -> list[Purchase]:
    """Create pools that run empty one after the other for so long."""
    purchases = [explorer.draft(Rates(cu=1.5 + seconds * n / pools), [CONTAINER]) for n in range(pools)]
    explorer.create(purchases)
    return purchases


def storm(explorer: Explorer, pools: int) -> list[int]:
    """Create pools that ran empty a minute ago; return the ids of their workloads."""
    bought_at = int(time.time()) - 60
    purchases = [explorer.draft(Rates(cu=0.5), [CONTAINER], bought_at=bought_at) for _ in range(pools)]
    explorer.create(purchases)
    return ids_of(purchases)


def ids_of(pools: list[Purchase]) -> list[int]:
    return [workload_id for pool in pools for workload_id in pool.workload_ids]


def takeover_at(standby: DaemonProcess) -> float:
    """Wait until the standby holds the lease; return since when, in unix seconds."""
    wait_until(
        lambda: standby.said("lease_acquired"), within_seconds=LEASE_SECONDS + TAKEOVER_SECONDS, what="a new holder"
    )
    return datetime.fromisoformat(standby.said("lease_acquired")[-1]["timestamp"]).timestamp()


@pytest.mark.parametrize("lease_seconds", [1, pytest.param(LEASE_SECONDS, marks=pytest.mark.faults)])
def test_20_a_standby_takes_the_place_of_a_holder_that_was_killed(
    lease_seconds: int, explorer: Explorer, ledger: Ledger, mongo_uri: str, figures: Figures
) -> None:
    with holder_and_standby(mongo_uri, mongo_uri, explorer, LEASE__SECONDS=str(lease_seconds)) as (holder, standby):
        ledger.settle()
        pools = falling_due(explorer, seconds=lease_seconds * 1.5, pools=40)
        killed_at = time.time()
        holder.process.kill()
        taken_over_after = takeover_at(standby) - killed_at
        explorer.wait_until_gone(ids_of(pools), within_seconds=lease_seconds * 2 + TAKEOVER_SECONDS)
    late = max(gone.committed_at - gone.pool["empty_at"] for gone in ledger.read().decommissions[1:])
    violations = ledger.violations()
    figures.record(
        20,
        f"holder killed -9, lease {lease_seconds} s",
        trials=1,
        violations=violations,
        figure=f"taken over after {taken_over_after:.1f} s; late by {late:.1f} s at most",
    )
    assert violations == []
    assert taken_over_after < lease_seconds + TAKEOVER_SECONDS


@pytest.mark.timeout(300)
@pytest.mark.faults
def test_20_a_holder_that_was_frozen_for_a_minute_in_mid_pass_stands_by_afterwards(
    explorer: Explorer, ledger: Ledger, mongo_uri: str, figures: Figures
) -> None:
    seconds = 60
    with holder_and_standby(mongo_uri, mongo_uri, explorer, **IN_SMALL_STEPS) as (holder, standby):
        overdue = storm(explorer, 3_000)
        wait_until(lambda: explorer.running() < 2_700, within_seconds=DONE_SECONDS, what="a pass to be under way")
        with holder.frozen():
            frozen_at = time.time()
            pools = falling_due(explorer, seconds=seconds - 2, pools=30)
            taken_over_after = takeover_at(standby) - frozen_at
            wait_for_instant(frozen_at + seconds)
        wait_until(lambda: holder.said("lease_lost"), within_seconds=DONE_SECONDS, what="the holder to notice")
        explorer.wait_until_gone([*overdue, *ids_of(pools)], within_seconds=RELIEF_SECONDS)
        done_after = ledger.read().decommissions[-1].committed_at - frozen_at
        holder.stop()
    by = {event["by"] for event in explorer.events.find()}
    violations = ledger.violations()
    figures.record(
        20,
        f"holder frozen for {seconds} s in mid-pass",
        trials=1,
        violations=violations,
        figure=f"taken over after {taken_over_after:.1f} s; all was done {done_after:.0f} s after it froze",
    )
    assert violations == []
    assert len(by) == 2


@pytest.mark.timeout(300)
@pytest.mark.faults
def test_20_holders_that_are_frozen_in_mid_pass_again_and_again_do_nothing_twice(
    explorer: Explorer, ledger: Ledger, mongo: MongoClient[Document], mongo_uri: str, figures: Figures
) -> None:
    trials, count = 8, 1_000
    settings = IN_SMALL_STEPS | {"LEASE__SECONDS": "1"}
    with (
        transactions_expiring(mongo, after_seconds=2),
        holder_and_standby(mongo_uri, mongo_uri, explorer, **settings) as (holder, standby),
    ):
        for trial in range(trials):
            overdue = storm(explorer, count)
            wait_until(lambda: explorer.running() < count, within_seconds=DONE_SECONDS, what="a pass to be under way")
            with holder.frozen():
                wait_until(
                    lambda: len(standby.said("lease_acquired")) > trial // 2, within_seconds=DONE_SECONDS, what="XX"
                )
            explorer.wait_until_gone(overdue, within_seconds=DONE_SECONDS)
            holder, standby = standby, holder
            ...


@pytest.mark.parametrize(
    ("cut_off", "lease_seconds"),
    [pytest.param(cut_off, LEASE_SECONDS, marks=pytest.mark.faults) for cut_off in (Proxy.refuse, Proxy.swallow)],
)
def test_20_a_holder_that_is_cut_off_stops_acting_before_another_begins(
    cut_off: Callable[[Proxy], None], lease_seconds: int, explorer: Explorer, ledger: Ledger, network: Proxy, mongo_uri: str, figures: Figures
) -> None:
    ...


@pytest.mark.parametrize(("trials", "count"), [(1, 300), pytest.param(8, 2_000, marks=pytest.mark.faults)])
def test_20_daemons_that_act_at_once_do_nothing_twice(
    trials: int, count: int, explorer: Explorer, ledger: Ledger, mongo_uri: str, figures: Figures
) -> None:
    name = explorer.database.name
    codes = []
    for _ in range(trials):
        overdue = storm(explorer, count)
        with ExitStack() as stack:
            daemons = [
                stack.enter_context(DaemonProcess("--once", uri=mongo_uri, database_name=name, **IN_SMALL_STEPS))
                for _ in range(3)
            ]
            codes += [daemon.process.wait(DONE_SECONDS) for daemon in daemons]
        #explorer.wait_until_gone(overdue, within_seconds=0)
    print(codes, explorer.running())
    shares = [explorer.events.count_documents({"by": by}) for by in explorer.events.distinct("by")]
    print(shares)
    violations = ledger.violations()
    figures.record(20, "three acting at once, without a lease", trials=trials, violations=violations, figure=f"{shares}")
    assert violations == []
