"""Half of what is due stays undone: a daemon that gets nothing done must not look healthy."""

from datetime import UTC, datetime, timedelta

import pytest
from bson import Int64
from deadline import wait_until
from endpoint import Endpoint
from explorer import CONTAINER, Explorer
from faults.daemons import STORM, daemon_on
from faults.figures import Figures
from ledger import Ledger

NOTICE_SECONDS = 150
DONE_SECONDS = 20


@pytest.mark.timeout(300)
@pytest.mark.faults
def test_47_a_daemon_that_leaves_half_of_its_work_undone_is_not_ready(
    explorer: Explorer, ledger: Ledger, mongo_uri: str, figures: Figures
) -> None:
    undone = [explorer.buy_expired(CONTAINER) for _ in range(5)]
    now = datetime.now(UTC)
    quarantine = explorer.database["pool-daemon-quarantine"]
    quarantine.insert_many(
        {
            "_id": Int64(pool.pool_id),
            "reason": "put there by a test",
            "tries": 5,
            "first_failed_at": now,
            "next_try_at": now + timedelta(hours=1),
            "by": "a test",
        }
        for pool in undone
    )
    with daemon_on(mongo_uri, explorer, **STORM) as daemon:
        endpoint = Endpoint(daemon)
        endpoint.wait_for("/readyz", 200)
        wait_until(
            lambda: [each["short"] for each in endpoint.status_json()["attention"]] == ["5 pools in quarantine"],
            within_seconds=10,
            what="the quarantine to come first",
        )
        endpoint.wait_for("/readyz", 503, within_seconds=NOTICE_SECONDS)
        told = next(line for line in endpoint.ask("/readyz")[1].splitlines() if line.startswith("- "))
        assert endpoint.sample("undone_pools", reason="quarantine") == 5
        quarantine.delete_many({})
        explorer.wait_until_gone([each for pool in undone for each in pool.workload_ids], within_seconds=DONE_SECONDS)
        endpoint.wait_for("/readyz", 200)
        wait_until(
            lambda: endpoint.sample("undone_pools", reason="quarantine") == 0, within_seconds=10, what="none left"
        )
    violations = ledger.violations()
    figures.record(
        47,
        "half of what is due stays undone for minutes",
        trials=len(undone),
        violations=violations,
        figure="not ready, with the reason; ready again once it is done",
    )
    assert violations == []
    assert told.startswith("- undone: 5 pools due and undone for minutes, 0 settled: 5 pools in quarantine")
