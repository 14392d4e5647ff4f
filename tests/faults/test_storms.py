"""Everything at once: pools that fell due while no daemon ran."""

import time

import pytest
from arithmetic_model import Rates
from deadline import wait_until
from explorer import CONTAINER, YEAR_SECONDS, Explorer
from faults.daemons import STORM, daemon_on
from faults.figures import Figures
from ledger import Ledger

HOUR_SECONDS = 3600


@pytest.mark.parametrize(
    "pools", [100, *(pytest.param(pools, marks=pytest.mark.faults) for pools in (1, 1_000, 20_000))]
)
def test_1_what_is_overdue_at_the_start_goes_and_the_alarm_is_armed(
    pools: int, explorer: Explorer, ledger: Ledger, mongo_uri: str, figures: Figures
) -> None:
    bought_at = int(time.time()) - HOUR_SECONDS
    explorer.create([explorer.draft(Rates(cu=0.5), [CONTAINER], bought_at=bought_at) for _ in range(pools)])
    explorer.buy(Rates(cu=YEAR_SECONDS), [CONTAINER])
    began_at = time.time()
    with daemon_on(mongo_uri, explorer, STORM, {"LOG__LEVEL": "debug"}) as daemon:
        daemon.wait_for_log(lambda record: record["event"] == "armed", within_seconds=90, what="an armed alarm")
        armed_after = time.time() - began_at
        wait_until(lambda: explorer.running() == 1, within_seconds=5, what="the overdue workloads to go")
    done_after = max(gone.committed_at for gone in ledger.read().decommissions) - began_at
    violations = ledger.violations()
    figures.record(
        1,
        "overdue at the start",
        trials=pools,
        violations=violations,
        figure=f"armed {armed_after:.1f} s, done {done_after:.1f} s after the launch",
    )
    assert violations == []
