"""What a running daemon does to pools and workloads, judged from the database alone."""

import time
from datetime import UTC

import pytest
from arithmetic_model import Rates
from bson import Int64, encode
from daemon_process import DaemonProcess
from deadline import soonest, wait_until
from explorer import (
    CONTAINER,
    FREE,
    PLENTY,
    PUBLIC_IP,
    VOLUME,
    YEAR_SECONDS,
    Explorer,
    Purchase,
)
from ledger import Ledger

pytestmark = pytest.mark.usefixtures("daemon")

AT_ONCE_SECONDS = 10
"""Patience of a slow machine: what is not done at once waits for a minute."""


def test_a_pool_with_a_fractional_end_goes_within_a_second_of_it(explorer: Explorer, ledger: Ledger) -> None:
    def late() -> float:
        pool = explorer.buy(Rates(cu=2.7), [CONTAINER])
        (gone,) = ledger.wait_for_decommissions(pool.workload_ids, within_seconds=3 + AT_ONCE_SECONDS)
        event = explorer.only_event(pool)
        decided_at = event["decommissioned_at"].replace(tzinfo=UTC).timestamp()
        assert pool.empty_at <= decided_at <= gone.committed_at + 0.001
        assert pool.empty_at <= gone.committed_at
        return gone.committed_at - pool.empty_at

    soonest(late, within_seconds=1, what="a pool to go at its end")


def test_a_pool_topped_up_50_ms_before_its_end_keeps_every_workload(explorer: Explorer, ledger: Ledger) -> None:
    pool = topped_up_in_time(explorer, ledger)

    ledger.settle(pool.empty_at + 1)

    ledger.assert_untouched(pool.workload_ids)


def test_a_pool_shortened_from_next_year_goes_at_its_new_end(explorer: Explorer, ledger: Ledger) -> None:
    def late() -> float:
        pool = explorer.buy(Rates(cu=YEAR_SECONDS), [CONTAINER])
        explorer.shorten(pool.pool_id, Rates(cu=2.5))
        (gone,) = ledger.wait_for_decommissions(pool.workload_ids, within_seconds=3 + AT_ONCE_SECONDS)
        empty_at: int = gone.pool["empty_at"]
        assert empty_at < pool.empty_at
        assert empty_at <= gone.committed_at
        return gone.committed_at - empty_at

    soonest(late, within_seconds=1, what="a pool to go at its new end")


def test_a_pool_inserted_already_expired_goes_at_once(explorer: Explorer, ledger: Ledger) -> None:
    def took() -> float:
        inserted_at = ledger.now()
        pool = explorer.buy_expired(CONTAINER)
        (gone,) = ledger.wait_for_decommissions(pool.workload_ids, within_seconds=AT_ONCE_SECONDS)
        return gone.committed_at - inserted_at

    soonest(took, within_seconds=1, what="a pool that is inserted expired to go")


def test_a_pool_replaced_by_an_expired_one_goes_at_once(explorer: Explorer, ledger: Ledger) -> None:
    def took() -> float:
        pool = explorer.buy(Rates(cu=YEAR_SECONDS), [CONTAINER])
        ledger.settle()
        replaced_at = ledger.now()
        ended = pool.document | {"cus": 0.0, "empty_at": Int64(int(time.time()))}
        explorer.pools.replace_one({"_id": pool.pool_id}, ended)
        (gone,) = ledger.wait_for_decommissions(pool.workload_ids, within_seconds=AT_ONCE_SECONDS)
        return gone.committed_at - replaced_at

    soonest(took, within_seconds=1, what="a pool that is replaced by an expired one to go")


def test_free_workloads_outlive_their_pool(explorer: Explorer, ledger: Ledger) -> None:
    pool = explorer.buy_expired(CONTAINER, *FREE)
    container, *free = pool.workload_ids

    ledger.wait_for_decommissions([container], within_seconds=AT_ONCE_SECONDS)
    ledger.settle()

    ledger.assert_untouched(free)


def test_a_workload_goes_when_its_own_resource_runs_out(explorer: Explorer, ledger: Ledger) -> None:
    """Nobody ever updates the pool: the nodes do not answer, so what had to go first keeps counting."""

    def late() -> float:
        pool = explorer.buy(Rates(cu=1.5, su=3.5), [CONTAINER, VOLUME])
        bought_at = pool.empty_at - 1
        container, volume = ledger.wait_for_decommissions(pool.workload_ids, within_seconds=4 + AT_ONCE_SECONDS)
        assert bought_at + 1 <= container.committed_at
        assert bought_at + 3 <= volume.committed_at
        return max(container.committed_at - bought_at - 1, volume.committed_at - bought_at - 3)

    soonest(late, within_seconds=1, what="each to go when its resource ends")


def test_a_workload_goes_though_its_pool_does_not_list_it(explorer: Explorer, ledger: Ledger) -> None:
    pool = explorer.buy_expired(CONTAINER, active_workload_ids=None)

    ledger.wait_for_decommissions(pool.workload_ids, within_seconds=AT_ONCE_SECONDS)

    assert (explorer.pools.find_one({"_id": pool.pool_id}) or {})["active_workload_ids"] is None


def test_a_clock_that_stepped_back_credits_no_capacity(explorer: Explorer, ledger: Ledger) -> None:
    tomorrow = Int64(int(time.time()) + 86_400)
    pool = explorer.buy_expired(CONTAINER, next_action=1, last_updated=tomorrow)

    explorer.deploy(pool.workload_ids[0])
    ledger.wait_for_decommissions(pool.workload_ids, within_seconds=AT_ONCE_SECONDS)

    assert explorer.bytes_of(explorer.pools, pool.pool_id) == encode(pool.document)


def test_a_workload_stays_while_its_resource_lasts_whatever_empty_at_says(explorer: Explorer, ledger: Ledger) -> None:
    pool = explorer.buy(Rates(cu=PLENTY), [CONTAINER], empty_at=Int64(int(time.time()) - 60))

    ledger.settle()

    ledger.assert_untouched(pool.workload_ids)


@pytest.mark.parametrize("next_action", [0, 1, 2, 4, 5, 6, 7])
def test_a_workload_that_does_not_run_is_never_touched(explorer: Explorer, ledger: Ledger, next_action: int) -> None:
    pool = explorer.buy_expired(CONTAINER, next_action=next_action)
    running = explorer.new_workload(pool.pool_id, CONTAINER)
    explorer.workloads.insert_one(running)

    ledger.wait_for_decommissions([running["_id"]], within_seconds=AT_ONCE_SECONDS)
    ledger.settle()

    ledger.assert_untouched(pool.workload_ids, next_action=next_action)


def test_a_workload_inserted_into_an_expired_pool_goes_soon(explorer: Explorer, ledger: Ledger) -> None:
    def took() -> float:
        pool = explorer.buy_expired(CONTAINER, next_action=6)
        ledger.settle()
        late = explorer.new_workload(pool.pool_id, CONTAINER)
        inserted_at = ledger.now()
        explorer.workloads.insert_one(late)
        (gone,) = ledger.wait_for_decommissions([late["_id"]], within_seconds=AT_ONCE_SECONDS)
        return gone.committed_at - inserted_at

    soonest(took, within_seconds=2, what="a workload that is inserted into an expired pool to go")


@pytest.mark.parametrize("rewritten", ["updated", "replaced"])
def test_a_workload_deployed_in_an_expired_pool_goes_soon(explorer: Explorer, ledger: Ledger, rewritten: str) -> None:
    def took() -> float:
        pool = explorer.buy_expired(CONTAINER, next_action=1)
        (workload,) = pool.workloads
        ledger.settle()
        deployed_at = ledger.now()
        if rewritten == "updated":
            explorer.deploy(workload["_id"])
        else:
            explorer.workloads.replace_one({"_id": workload["_id"]}, workload | {"next_action": 3})
        (gone,) = ledger.wait_for_decommissions(pool.workload_ids, within_seconds=AT_ONCE_SECONDS)
        return gone.committed_at - deployed_at

    soonest(took, within_seconds=2, what="a workload that is deployed in an expired pool to go")


def test_a_workload_goes_again_when_it_is_deployed_again(explorer: Explorer, ledger: Ledger) -> None:
    """Each transition has its order and its event: the second does not hide behind the first."""
    pool = explorer.buy(Rates(cu=0.5), [CONTAINER], bought_at=int(time.time()) - 60)
    (workload_id,) = pool.workload_ids
    ledger.wait_for_decommissions(pool.workload_ids, within_seconds=AT_ONCE_SECONDS)
    explorer.orders.delete_one({"_id": workload_id})
    explorer.workloads.update_one({"_id": workload_id}, {"$set": {"next_action": 6}})

    explorer.top_up(pool.pool_id, Rates(cu=1.5))
    again_empty_at = (explorer.pools.find_one({"_id": pool.pool_id}) or {})["empty_at"]
    explorer.deploy(workload_id)
    wait_until(
        lambda: explorer.orders.find_one({"_id": workload_id}),
        within_seconds=AT_ONCE_SECONDS,
        what="a second order",
    )

    ends = {event["empty_at"] for event in explorer.events.find({"workload_id": workload_id})}
    assert ends == {pool.empty_at, again_empty_at}


def test_a_workload_goes_again_though_its_pool_has_not_changed(explorer: Explorer, ledger: Ledger) -> None:
    """The event of the first time is there already, and must not keep the workload running."""
    pool = explorer.buy_expired(CONTAINER)
    (workload_id,) = pool.workload_ids
    ledger.wait_for_decommissions(pool.workload_ids, within_seconds=AT_ONCE_SECONDS)

    explorer.orders.delete_one({"_id": workload_id})
    explorer.deploy(workload_id)
    ledger.wait_for_decommissions(pool.workload_ids, within_seconds=AT_ONCE_SECONDS)

    assert explorer.orders.find_one({"_id": workload_id})


def test_a_daemon_that_has_nothing_to_do_is_idle(explorer: Explorer, ledger: Ledger, daemon: DaemonProcess) -> None:
    """Overdue pools that nobody repairs must not keep it busy."""
    explorer.buy(Rates(cu=PLENTY), [CONTAINER], empty_at=Int64(int(time.time()) - 60))
    explorer.buy_expired(CONTAINER, next_action=6)
    explorer.buy_expired(*FREE)
    ledger.settle()
    used_before, began_at = daemon.cpu_seconds(), time.monotonic()

    ledger.settle(int(time.time()) + 2)

    assert daemon.cpu_seconds() - used_before < 0.25 * (time.monotonic() - began_at)


def topped_up_in_time(explorer: Explorer, ledger: Ledger) -> Purchase:
    """Top a pool up 50 ms before its end; on a machine that was too slow for that, another."""
    for _ in range(5):
        pool = explorer.buy(Rates(cu=1.5, su=1.5, ipv4u=1.5), [CONTAINER, VOLUME, PUBLIC_IP, *FREE])
        plenty = Rates(YEAR_SECONDS, YEAR_SECONDS, YEAR_SECONDS)
        explorer.top_up(pool.pool_id, plenty, not_before=pool.empty_at - 0.05)
        top_up = ledger.read().top_ups[-1]
        if top_up.committed_at < pool.empty_at:
            return pool
    raise AssertionError("no top-up came in time")
