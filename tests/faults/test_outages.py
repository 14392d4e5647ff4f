"""The database is away: at the start, and while much falls due."""

import time
from collections.abc import Callable

import pytest
from arithmetic_model import Rates
from deadline import wait_for_instant
from explorer import CONTAINER, Explorer
from faults.daemons import STORM, daemon_on
from faults.figures import Figures
from faults.proxy import Proxy
from ledger import Ledger

NOTICED_SECONDS = 30
RETURN_SECONDS = 60
"""A guard only: it may take a driver 30 s to notice that what was silent speaks again; the table has the figures."""

Outage = Callable[[Proxy], None]


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("outage", "seconds"),
    [
        pytest.param(Proxy.refuse, 10, marks=pytest.mark.faults),
        pytest.param(Proxy.swallow, 10, marks=pytest.mark.faults),
    ],
)
def test_2_a_daemon_that_starts_without_its_database_waits_for_it(
    outage: Outage, seconds: int, explorer: Explorer, ledger: Ledger, network: Proxy, figures: Figures
) -> None:
    overdue = [explorer.buy_expired(CONTAINER) for _ in range(10)]
    began_at = int(time.time())
    falling_due = [explorer.buy(Rates(cu=seconds / 2 + 0.5), [CONTAINER]) for _ in range(10)]
    workload_ids = [workload_id for pool in (*overdue, *falling_due) for workload_id in pool.workload_ids]
    outage(network)
    with daemon_on(network.uri, explorer) as daemon:
        daemon.wait_for_log(is_complaint, within_seconds=NOTICED_SECONDS, what="a word that the database is away")
        wait_for_instant(began_at + seconds)
        ledger.assert_untouched(workload_ids)
        network.heal()
        healed_at = time.time()
        explorer.wait_until_gone(workload_ids, within_seconds=RETURN_SECONDS)
    latest_seconds = ledger.read().decommissions[-1].committed_at - healed_at
    violations = ledger.violations()
    figures.record(
        2,
        f"database {named(outage)} at the start",
        trials=len(workload_ids),
        violations=violations,
        figure=f"away for {seconds} s; all was done {latest_seconds:.1f} s after its return",
    )
    assert violations == []


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("outage", "seconds", "count"),
    [
        (Proxy.refuse, 1, 20),
        pytest.param(Proxy.refuse, 60, 500, marks=pytest.mark.faults),
        pytest.param(Proxy.swallow, 20, 500, marks=pytest.mark.faults),
    ],
)
def test_4_what_falls_due_in_an_outage_goes_after_it(
    outage: Outage, seconds: int, count: int, explorer: Explorer, ledger: Ledger, network: Proxy, figures: Figures
) -> None:
    with daemon_on(network.uri, explorer, **STORM) as daemon:
        ledger.settle()
        bought_at = int(time.time())
        pools = [
            explorer.draft(Rates(cu=2.5 + seconds * number / count), [CONTAINER], bought_at=bought_at)
            for number in range(count)
        ]
        explorer.create(pools)
        wait_for_instant(bought_at + 1.5)
        outage(network)
        wait_for_instant(pools[-1].empty_at)
        workload_ids = [workload_id for pool in pools for workload_id in pool.workload_ids]
        ledger.assert_untouched(workload_ids)
        assert daemon.is_running
        network.heal()
        healed_at = time.time()
        explorer.wait_until_gone(workload_ids, within_seconds=RETURN_SECONDS)
        ledger.settle()
    late = [
        gone.committed_at - max(gone.pool["empty_at"], healed_at)
        for gone in ledger.read().decommissions
        if gone.workload_id in set(workload_ids)
    ]
    quarantined = explorer.database["pool-daemon-quarantine"].count_documents({})
    violations = ledger.violations()
    figures.record(
        4,
        f"database {named(outage)} for {seconds} s",
        trials=count,
        violations=violations,
        figure=f"late by {max(late):.1f} s at most after its return; quarantined: {quarantined}",
    )
    assert violations == []
    assert quarantined == 0


def is_complaint(record: dict[str, object]) -> bool:
    return record["event"] == "database_unavailable"


def named(outage: Outage) -> str:
    return "silent" if outage is Proxy.swallow else "away"
