"""A pool whose amounts are changed behind its end: only the stream tells, for nobody walks the pools here."""

import pytest
from arithmetic_model import Rates
from deadline import soonest, wait_until
from explorer import CONTAINER, VOLUME, Explorer
from ledger import Ledger

pytestmark = pytest.mark.usefixtures("daemon")

AT_ONCE_SECONDS = 10
"""Patience of a slow machine: what is not done at once waits for a minute."""


@pytest.fixture(scope="module")
def daemon_settings() -> dict[str, str]:
    return {"RECONCILE__ENABLED": "false"}


def test_a_workload_whose_own_resource_is_cut_short_goes_though_its_pool_is_as_empty_as_before(
    explorer: Explorer, ledger: Ledger
) -> None:
    wait_until(lambda: len(explorer.workloads.index_information()) >= 3, within_seconds=30, what="the set-up to end")

    def took() -> float:
        pool = explorer.buy(Rates(cu=2.5, su=1e6), [CONTAINER, VOLUME])
        container, volume = pool.workload_ids
        ledger.wait_for_decommissions([container], within_seconds=3 + AT_ONCE_SECONDS)
        cut_at = ledger.now()
        explorer.pools.update_one({"_id": pool.pool_id}, {"$set": {"sus": 0.5}})
        (gone,) = ledger.wait_for_decommissions([volume], within_seconds=AT_ONCE_SECONDS)
        return gone.committed_at - cut_at

    soonest(took, within_seconds=2, what="a workload whose resource is cut short to go")
