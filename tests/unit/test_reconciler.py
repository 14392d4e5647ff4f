"""How the reconciler scans: how fast, what holds it up, and what it repairs on the way. Time leaps."""

import asyncio
import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
from reconciliation_in_memory import ReconciliationInMemory, RecordingObserver, drifts
from structlog.testing import capture_logs
from virtual_time import ProcessClock, in_virtual_time

from pool_daemon.errors import StoreError, StoreRefusedError, StoreUnavailableError, UnreadableDocumentError
from pool_daemon.expiry.throttle import Throttle
from pool_daemon.guards.gate import Closed
from pool_daemon.reconcile.findings import Findings
from pool_daemon.reconcile.reconciler import PAUSE_SECONDS, Reconciler
from pool_daemon.reconcile.scans import RESTORE_SECONDS, OrderScan, PoolScan
from pool_daemon.settings.sections import Expiry, Reconcile
from pool_daemon.settings.settings import LiveSettings, Settings
from pool_daemon.store.cases import Unreadable

CONFIRM_SECONDS = 60.0


class Scene:
    """A reconciler among things that a test can touch."""

    def __init__(self, *, pools: int = 0, orders_per_second: float = 0, **settings: Any) -> None:
        self.store = ReconciliationInMemory(pools=pools)
        self.metrics = RecordingObserver()
        self.unreadable: list[Unreadable] = []
        self.stop = asyncio.Event()
        self.reason: Closed | None = None
        self.closes_after = math.inf
        self.live = LiveSettings(Settings())
        self.change(**{"pools_per_second": 0, "confirm_seconds": CONFIRM_SECONDS} | settings)
        self.settled_through: int | None = None
        self.throttle = Throttle(clock=ProcessClock(), settings=Expiry(orders_per_second=orders_per_second))
        self.reconciler = self._reconciler()

    def _reconciler(self) -> Reconciler:
        findings = Findings(
            on_overdue=self.metrics.overdue, on_unreadable=self.unreadable.append, observer=self.metrics
        )
        shared: dict[str, Any] = {
            "findings": findings,
            "settings": self.live.view(lambda now: now.reconcile),
        }
        clock = ProcessClock()
        return Reconciler(
            scans=[
                OrderScan(store=self.store.orders, throttle=self.throttle, clock=clock, **shared),
                PoolScan(store=self.store, settled_through=lambda: self.settled_through, clock=clock, **shared),
            ],
            gate=self,
            stop=self.stop,
            **shared,
        )

    def change(self, **settings: Any) -> None:
        """Replace the settings while the reconciler runs."""
        self.live.replace(Settings(reconcile=Reconcile(**settings)))

    def closed_by(self) -> Closed | None:
        return Closed.STANDBY if len(self.store.repaired) >= self.closes_after else self.reason

    async def two_rounds(self) -> None:
        """Scan twice, so far apart that what is still wrong is wrong for sure."""
        await self.reconciler.run_round()
        await asyncio.sleep(CONFIRM_SECONDS + 1)
        await self.reconciler.run_round()


@contextmanager
def taking(seconds: float, *, tolerance: float = 0.01) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    yield
    assert loop.time() - began_at == pytest.approx(seconds, abs=tolerance)


@in_virtual_time
async def test_a_scan_passes_every_pool_once_a_page_at_a_time() -> None:
    scene = Scene(pools=2500)
    await scene.reconciler.run_round()
    assert scene.store.looks == [0, 1000, 2000, 2500]


@in_virtual_time
async def test_no_more_pools_are_looked_at_than_allowed_in_any_second() -> None:
    scene = Scene(pools=100, pools_per_second=10)
    with taking(10.0):
        await scene.reconciler.run_round()
    assert scene.store.looks == list(range(0, 101, 10))


@in_virtual_time
async def test_orders_are_looked_at_no_faster_than_pools() -> None:
    scene = Scene(pools_per_second=10)
    scene.store.orders.missing = list(range(50))
    with taking(5.0):
        await scene.reconciler.run_round()


@in_virtual_time
async def test_without_a_rate_nothing_is_waited_for() -> None:
    scene = Scene(pools=100_000)
    with taking(0.0):
        await scene.reconciler.run_round()


@in_virtual_time
async def test_it_rests_between_two_rounds() -> None:
    scene = Scene(pools=1, interval_seconds=60)
    running = asyncio.create_task(scene.reconciler.run())
    await asyncio.sleep(60 * 3 - 1)
    assert len(scene.store.looks) == 3 * 2
    scene.stop.set()
    await running


@in_virtual_time
async def test_told_to_stop_it_ends_at_once_whatever_it_waits_for() -> None:
    for scene in (Scene(pools=1, interval_seconds=3600), Scene(pools=10**6, pools_per_second=1), closed_scene()):
        running = asyncio.create_task(scene.reconciler.run())
        await asyncio.sleep(10.5)
        scene.stop.set()
        with taking(0.0):
            await running


def closed_scene() -> Scene:
    scene = Scene(pools=1)
    scene.reason = Closed.STANDBY
    return scene


@in_virtual_time
async def test_a_scan_cut_short_by_a_stop_is_not_called_completed() -> None:
    scene = Scene(pools=10**6, pools_per_second=1)
    with capture_logs() as logs:
        running = asyncio.create_task(scene.reconciler.run())
        await asyncio.sleep(10.5)
        scene.stop.set()
        await running
    assert logs == []


@in_virtual_time
async def test_while_the_gate_is_closed_it_pauses_and_then_goes_on_where_it_was() -> None:
    scene = Scene(pools=100, pools_per_second=10)
    scanning = asyncio.create_task(scene.reconciler.run_round())
    await asyncio.sleep(4.5)
    seen = list(scene.store.looks)
    scene.reason = Closed.STANDBY
    await asyncio.sleep(3600)
    assert scene.store.looks == seen == [0, 10, 20, 30, 40]
    scene.reason = None
    with taking(5 + PAUSE_SECONDS, tolerance=PAUSE_SECONDS):
        await scanning
    assert scene.store.looks == list(range(0, 101, 10))


@in_virtual_time
async def test_when_the_database_is_away_it_waits_and_goes_on_where_it_was() -> None:
    scene = Scene(pools=100, pools_per_second=10)
    scanning = asyncio.create_task(scene.reconciler.run_round())
    await asyncio.sleep(4.5)
    scene.store.failures = [StoreUnavailableError("away")] * 5
    with capture_logs() as logs:
        await scanning
    assert scene.store.looks == list(range(0, 101, 10))
    assert [(line["event"], line["log_level"]) for line in logs] == [
        *[("reconciliation_failed", "warning")] * 5,
        ("reconciliation_completed", "debug"),
    ]
    waits = [line["retry_seconds"] for line in logs[:5]]
    assert waits == sorted(waits)


@in_virtual_time
async def test_when_the_orders_cannot_be_read_that_scan_begins_anew() -> None:
    scene = Scene()
    scene.store.orders.failures = [StoreUnavailableError("away")]
    scene.store.orders.missing = [5]
    await scene.two_rounds()
    assert scene.store.orders.restored == [5]


@in_virtual_time
async def test_what_is_wrong_is_repaired_at_the_second_look_and_told_once() -> None:
    scene = Scene(pools=10)
    scene.store.drift = drifts([3, 8])
    scene.store.orders.missing = [5]
    with capture_logs() as logs:
        await scene.reconciler.run_round()
        assert (scene.store.repaired, scene.store.orders.restored) == ([], [])
        await asyncio.sleep(CONFIRM_SECONDS + 1)
        await scene.reconciler.run_round()
        await asyncio.sleep(CONFIRM_SECONDS + 1)
        await scene.reconciler.run_round()
    assert (scene.store.repaired, scene.store.orders.restored) == ([3, 8], [5])
    assert scene.metrics.told == [("orders", 1), ("rates", 3), ("rates", 8)]
    assert [(line["event"], line["log_level"]) for line in logs] == [
        ("reconciliation_completed", "debug"),
        ("delete_order_restored", "info"),
        ("drift_repaired", "info"),
        ("drift_repaired", "info"),
        ("reconciliation_completed", "info"),
        ("reconciliation_completed", "debug"),
    ]
    assert {name: logs[4][name] for name in ("pools", "drift", "orders", "overdue")} == {
        "pools": 10,
        "drift": 2,
        "orders": 1,
        "overdue": 0,
    }


@in_virtual_time
async def test_two_looks_too_close_together_mend_nothing() -> None:
    scene = Scene(pools=10)
    scene.store.drift = drifts([3])
    scene.store.orders.missing = [5]
    for _ in range(3):
        await scene.reconciler.run_round()
        await asyncio.sleep(CONFIRM_SECONDS / 3)
    assert (scene.store.repaired, scene.store.orders.restored) == ([], [])


@in_virtual_time
async def test_drift_that_is_another_at_the_second_look_is_not_repaired_yet() -> None:
    scene = Scene(pools=10)
    scene.store.drift = drifts([3])
    await scene.reconciler.run_round()
    await asyncio.sleep(CONFIRM_SECONDS + 1)
    scene.store.drift = drifts([3], excess=2.0)
    await scene.reconciler.run_round()
    assert scene.store.repaired == []
    await asyncio.sleep(CONFIRM_SECONDS + 1)
    await scene.reconciler.run_round()
    assert scene.store.repaired == [3]


@in_virtual_time
async def test_what_has_changed_under_its_hands_is_left_alone_and_not_told() -> None:
    scene = Scene(pools=10)
    scene.store.drift = drifts([3])
    scene.store.refusals = {3: None}
    scene.store.orders.missing = [5]
    scene.store.orders.refusals = {5: None}
    await scene.two_rounds()
    assert scene.metrics.told == []


@pytest.mark.parametrize("error", [StoreError("no"), StoreRefusedError("not allowed")])
@in_virtual_time
async def test_one_thing_that_cannot_be_repaired_does_not_keep_the_others_from_it(error: StoreError) -> None:
    scene = Scene(pools=10)
    scene.store.drift = drifts([3, 8])
    scene.store.refusals = {3: error}
    scene.store.orders.missing = [5, 6]
    scene.store.orders.refusals = {5: error}
    with capture_logs() as logs:
        await scene.two_rounds()
    assert (scene.store.repaired, scene.store.orders.restored) == ([8], [6])
    told = [line for line in logs if line["event"] == "repair_failed"]
    assert [(line.get("workload"), line.get("pool"), line["reason"]) for line in told] == [
        (5, None, str(error)),
        (None, 3, str(error)),
    ]


@in_virtual_time
async def test_a_workload_that_cannot_be_read_is_reported_and_gets_no_order() -> None:
    scene = Scene()
    scene.store.orders.missing = [5]
    scene.store.orders.refusals = {5: UnreadableDocumentError("no BSON")}
    await scene.two_rounds()
    assert scene.unreadable == [Unreadable("workload", 5, "no BSON")]


@in_virtual_time
async def test_a_database_that_goes_away_while_repairing_costs_nothing_but_time() -> None:
    scene = Scene(pools=10)
    scene.store.drift = drifts([3])
    await scene.reconciler.run_round()
    await asyncio.sleep(CONFIRM_SECONDS + 1)
    scene.store.refusals = {3: StoreUnavailableError("away")}
    await scene.reconciler.run_round()
    scene.store.refusals = {}
    await asyncio.sleep(CONFIRM_SECONDS + 1)
    await scene.reconciler.run_round()
    assert scene.store.repaired == [3]


@in_virtual_time
async def test_the_seconds_of_a_round_are_those_of_its_work_and_count_no_waiting() -> None:
    scene = Scene(pools=100, pools_per_second=10)
    scene.store.look_seconds = 0.25
    with capture_logs() as logs:
        scanning = asyncio.create_task(scene.reconciler.run_round())
        await asyncio.sleep(4.5)
        scene.reason = Closed.STANDBY
        await asyncio.sleep(3600)
        scene.reason = None
        await scanning
    assert logs[-1]["active_seconds"] == pytest.approx(10 * 0.25)


@in_virtual_time
async def test_restored_orders_leave_no_faster_than_orders_may() -> None:
    scene = Scene(orders_per_second=4)
    scene.store.orders.missing = list(range(40))
    await scene.two_rounds()
    times = scene.store.orders.restored_at
    assert len(times) == 40
    assert [later - earlier for earlier, later in pairwise(times)] == pytest.approx([0.25] * 39)


@in_virtual_time
async def test_an_order_waits_for_those_that_a_pass_has_given() -> None:
    scene = Scene(orders_per_second=4)
    scene.store.orders.missing = [5]
    await scene.reconciler.run_round()
    await asyncio.sleep(CONFIRM_SECONDS + 1)
    scene.throttle.record(20)
    with taking(5.0):
        await scene.reconciler.run_round()
    assert scene.store.orders.restored == [5]
    assert scene.throttle.wait_seconds() == pytest.approx(0.25)


@in_virtual_time
async def test_orders_that_take_their_time_do_not_keep_the_pools_from_theirs() -> None:
    scene = Scene(pools=10, orders_per_second=1)
    scene.store.orders.missing = list(range(1000))
    scene.store.drift = drifts([3])
    await scene.reconciler.run_round()
    await asyncio.sleep(CONFIRM_SECONDS + 1)
    with taking(RESTORE_SECONDS):
        await scene.reconciler.run_round()
    assert scene.store.repaired == [3]
    assert len(scene.store.orders.restored) == RESTORE_SECONDS
    await scene.reconciler.run_round()
    assert len(scene.store.orders.restored) == 2 * RESTORE_SECONDS


@in_virtual_time
async def test_missing_documents_are_told_once_and_counted_until_they_are_back() -> None:
    scene = Scene(pools=3000)
    scene.store.missing = {7: 2, 1001: 1, 2500: 1}
    with capture_logs() as logs:
        await scene.reconciler.run_round()
        await scene.two_rounds()
        assert scene.metrics.missing == 3
        del scene.store.missing[7]
        await scene.reconciler.run_round()
        assert scene.metrics.missing == 2
        scene.store.missing = {}
        await scene.reconciler.run_round()
        assert scene.metrics.missing == 0
    told = [line for line in logs if line["event"].startswith("workload_documents")]
    assert [line["event"] for line in told] == [
        "workload_documents_missing",
        "workload_documents_missing",
        "workload_documents_complete",
    ]
    assert {name: told[0][name] for name in ("pools", "workloads", "pool_ids", "log_level")} == {
        "pools": 1,
        "workloads": 2,
        "pool_ids": [7],
        "log_level": "warning",
    }
    assert (told[1]["pools"], told[1]["pool_ids"]) == (3, [7, 1001, 2500])


@in_virtual_time
async def test_an_incident_beside_old_damage_is_told_again() -> None:
    scene = Scene(pools=100)
    scene.store.missing = {7: 1}
    with capture_logs() as logs:
        await scene.reconciler.run_round()
        scene.store.missing = dict.fromkeys(range(1, 61), 1)
        await scene.reconciler.run_round()
        scene.store.missing = {7: 1}
        await scene.reconciler.run_round()
        scene.store.missing = dict.fromkeys(range(1, 61), 1)
        await scene.reconciler.run_round()
    assert [line["pools"] for line in logs if line["event"] == "workload_documents_missing"] == [1, 60, 60]


@in_virtual_time
async def test_a_daemon_that_stands_by_counts_no_missing_documents() -> None:
    scene = Scene(pools=10)
    scene.store.missing = {7: 2}
    await scene.reconciler.run_round()
    assert scene.metrics.missing == 1
    scene.reason = Closed.STANDBY
    running = asyncio.create_task(scene.reconciler.run_round())
    await asyncio.sleep(1)
    assert scene.metrics.missing is None
    scene.stop.set()
    await running


@in_virtual_time
async def test_a_gate_that_closes_stops_the_repairing_before_the_next_write() -> None:
    scene = Scene(pools=10)
    scene.store.drift = drifts([3, 8])
    scene.closes_after = 1
    await scene.reconciler.run_round()
    await asyncio.sleep(CONFIRM_SECONDS + 1)
    scanning = asyncio.create_task(scene.reconciler.run_round())
    await asyncio.sleep(3600)
    assert scene.store.repaired == [3]
    scene.stop.set()
    await scanning


@in_virtual_time
async def test_a_pool_that_should_have_been_settled_by_now_is_handed_on() -> None:
    scene = Scene(pools=10)
    now = int(ProcessClock().now())
    scene.settled_through = now - 5
    scene.store.overdue = {3: now, 4: now - 5, 5: now - 3600}
    await scene.reconciler.run_round()
    assert scene.metrics.told == [("overdue", 4), ("overdue", 5)]


@in_virtual_time
async def test_while_everything_overdue_is_yet_to_be_looked_at_no_pool_is_handed_on() -> None:
    scene = Scene(pools=10)
    scene.store.overdue = {5: int(ProcessClock().now()) - 3600}
    await scene.reconciler.run_round()
    assert scene.metrics.told == []


@in_virtual_time
async def test_settings_that_change_count_from_the_next_page_on() -> None:
    scene = Scene(pools=1000, pools_per_second=10)
    scene.store.drift = drifts(range(1, 501))
    scanning = asyncio.create_task(scene.reconciler.run_round())
    await asyncio.sleep(0.5)
    scene.change(pools_per_second=495, confirm_seconds=1)
    with taking(0.5 + 2):
        await scanning
    assert scene.store.looks == [0, 10, 505, 1000]
    await asyncio.sleep(2)
    await scene.reconciler.run_round()
    assert len(scene.store.repaired) == 500
