"""The event loop stands still for seconds, as it does if anything in the process computes or waits without it."""

import pytest
from arithmetic_model import Rates
from deadline import wait_for_instant, wait_until
from explorer import CONTAINER, YEAR_SECONDS, Explorer
from faults.daemons import STORM, daemon_on
from faults.figures import Figures
from faults.pools import falling_due, ids_of, overdue
from faults.stalls import STALL_SECONDS, StallingDaemon
from ledger import Ledger

DONE_SECONDS = 60


@pytest.mark.faults
def test_23_a_loop_that_was_blocked_goes_on_where_it_stood(
    explorer: Explorer, ledger: Ledger, mongo_uri: str, figures: Figures
) -> None:
    trials = 3
    late: list[float] = []
    answered_after: list[float] = []
    with StallingDaemon(uri=mongo_uri, database_name=explorer.database.name, **STORM) as daemon:
        ledger.settle()
        for trial in range(trials):
            pools = falling_due(explorer, 100, within_seconds=STALL_SECONDS + 1)
            topped_up = explorer.buy(Rates(cu=2.5), [CONTAINER])
            storm = overdue(explorer, 1_000 * trial + 1)
            until = daemon.stall()
            explorer.top_up(topped_up.pool_id, Rates(cu=YEAR_SECONDS))
            answered_after.append(daemon.seconds_to_answer())
            wait_for_instant(until)
            explorer.wait_until_gone(ids_of([*pools, *storm]), within_seconds=DONE_SECONDS)
            late += ledger.lateness(ids_of(pools))
        daemon.stop()
    violations = ledger.violations()
    figures.record(
        23,
        f"event loop blocked for {STALL_SECONDS} s",
        trials=trials,
        violations=violations,
        figure=f"late by {max(late):.1f} s at most; metrics were told within {max(answered_after):.2f} s",
    )
    assert violations == []


@pytest.mark.faults
def test_23_a_loop_that_was_blocked_for_longer_than_the_lease_lasts_stands_by_afterwards(
    explorer: Explorer, ledger: Ledger, mongo_uri: str, figures: Figures
) -> None:
    settings = STORM | {"LEASE__SECONDS": "2"}
    with StallingDaemon(uri=mongo_uri, database_name=explorer.database.name, **settings) as holder:
        wait_until(lambda: holder.said("lease_acquired"), within_seconds=DONE_SECONDS, what="a holder")
        with daemon_on(mongo_uri, explorer, **settings) as standby:
            wait_until(lambda: standby.said("standby"), within_seconds=DONE_SECONDS, what="a standby")
            pools = falling_due(explorer, 100, within_seconds=STALL_SECONDS + 1)
            storm = overdue(explorer, 2_000)
            wait_until(lambda: explorer.running() < 2_000, within_seconds=DONE_SECONDS, what="the storm to begin")
            holder.stall()
            wait_until(lambda: standby.said("lease_acquired"), within_seconds=DONE_SECONDS, what="a takeover")
            explorer.wait_until_gone(ids_of([*pools, *storm]), within_seconds=DONE_SECONDS)
            wait_until(lambda: holder.said("lease_lost"), within_seconds=DONE_SECONDS, what="the holder to notice")
            holder.stop()
    violations = ledger.violations()
    figures.record(
        23,
        f"loop blocked for {STALL_SECONDS} s, lease 2 s",
        trials=1,
        violations=violations,
        figure=f"late by {max(ledger.lateness(ids_of(pools))):.1f} s at most, of which the standby needed its lease",
    )
    assert violations == []
