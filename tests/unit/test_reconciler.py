"""How the reconciler walks: how fast, what holds it up, and what it mends on the way. Time leaps."""

import asyncio
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from books_in_memory import BooksInMemory, Ears, drifts
from structlog.testing import capture_logs
from virtual_time import ProcessClock, in_virtual_time

from pool_daemon.errors import StoreError, StoreRefusedError, StoreUnavailableError, UnreadableDocumentError
from pool_daemon.scheduling.findings import Findings
from pool_daemon.scheduling.reconciler import PAUSE_SECONDS, Reconciler
from pool_daemon.scheduling.walks import OrderWalk, PoolWalk
from pool_daemon.settings.live import LiveSettings
from pool_daemon.settings.sections import Reconcile, Settings
from pool_daemon.store.cases import Unreadable

GRACE_SECONDS = 60.0


class Scene:
    """A reconciler among things that a test can touch."""

    def __init__(self, *, pools: int = 0, **settings: Any) -> None:
        self.books = BooksInMemory(pools=pools)
        self.ears = Ears()
        self.unreadable: list[Unreadable] = []
        self.stop = asyncio.Event()
        self.reason: str | None = None
        self.closes_after = math.inf
        self.live = LiveSettings(Settings())
        self.change(**{"pools_per_second": 0, "order_grace_seconds": GRACE_SECONDS} | settings)
        self.looked_past: int | None = None
        self.reconciler = self._reconciler()

    def _reconciler(self) -> Reconciler:
        findings = Findings(on_overdue=self.ears.overdue, on_unreadable=self.unreadable.append, metrics=self.ears)
        shared: dict[str, Any] = {
            "findings": findings,
            "clock": ProcessClock(),
            "settings": self.live.view(lambda now: now.reconcile),
        }
        return Reconciler(
            walks=[
                OrderWalk(store=self.books.orders, **shared),
                PoolWalk(store=self.books, looked_past=lambda: self.looked_past, **shared),
            ],
            gate=self,
            stop=self.stop,
            **shared,
        )

    def change(self, **settings: Any) -> None:
        """Replace the settings while the reconciler runs."""
        self.live.replace(Settings(reconcile=Reconcile(**settings)))

    def closed_by(self) -> str | None:
        return "standby" if len(self.books.mended) >= self.closes_after else self.reason

    async def two_walks(self) -> None:
        """Walk twice, so far apart that what is still wrong is wrong for sure."""
        await self.reconciler.walk()
        await asyncio.sleep(GRACE_SECONDS + 1)
        await self.reconciler.walk()


@contextmanager
def taking(seconds: float, *, tolerance: float = 0.01) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    yield
    assert loop.time() - began_at == pytest.approx(seconds, abs=tolerance)


@in_virtual_time
async def test_a_walk_passes_every_pool_once_a_page_at_a_time() -> None:
    scene = Scene(pools=2500)
    await scene.reconciler.walk()
    assert scene.books.looks == [0, 1000, 2000, 2500]


@in_virtual_time
async def test_no_more_pools_are_looked_at_than_allowed_in_any_second() -> None:
    scene = Scene(pools=100, pools_per_second=10)
    with taking(10.0):
        await scene.reconciler.walk()
    assert scene.books.looks == list(range(0, 101, 10))


@in_virtual_time
async def test_orders_are_looked_at_no_faster_than_pools() -> None:
    scene = Scene(pools_per_second=10)
    scene.books.orders.missing = list(range(50))
    with taking(5.0):
        await scene.reconciler.walk()


@in_virtual_time
async def test_without_a_rate_nothing_is_waited_for() -> None:
    scene = Scene(pools=100_000)
    with taking(0.0):
        await scene.reconciler.walk()


@in_virtual_time
async def test_it_rests_between_two_walks() -> None:
    scene = Scene(pools=1, interval_seconds=60)
    running = asyncio.create_task(scene.reconciler.run())
    await asyncio.sleep(60 * 3 - 1)
    assert len(scene.books.looks) == 3 * 2
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
    scene.reason = "standby"
    return scene


@in_virtual_time
async def test_a_walk_cut_short_by_a_stop_is_not_called_completed() -> None:
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
    walking = asyncio.create_task(scene.reconciler.walk())
    await asyncio.sleep(4.5)
    seen = list(scene.books.looks)
    scene.reason = "standby"
    await asyncio.sleep(3600)
    assert scene.books.looks == seen == [0, 10, 20, 30, 40]
    scene.reason = None
    with taking(5 + PAUSE_SECONDS, tolerance=PAUSE_SECONDS):
        await walking
    assert scene.books.looks == list(range(0, 101, 10))


@in_virtual_time
async def test_when_the_database_is_away_it_waits_and_goes_on_where_it_was() -> None:
    scene = Scene(pools=100, pools_per_second=10)
    walking = asyncio.create_task(scene.reconciler.walk())
    await asyncio.sleep(4.5)
    scene.books.failures = [StoreUnavailableError("away")] * 5
    with capture_logs() as logs:
        await walking
    assert scene.books.looks == list(range(0, 101, 10))
    assert [line["event"] for line in logs] == ["reconciliation_failed"] * 5 + ["reconciliation_completed"]
    waits = [line["retry_seconds"] for line in logs[:5]]
    assert waits == sorted(waits)


@in_virtual_time
async def test_when_the_orders_cannot_be_read_that_walk_begins_anew() -> None:
    scene = Scene()
    scene.books.orders.failures = [StoreUnavailableError("away")]
    scene.books.orders.missing = [5]
    await scene.two_walks()
    assert scene.books.orders.restored == [5]


@in_virtual_time
async def test_what_is_wrong_is_mended_at_the_second_look_and_told_once() -> None:
    scene = Scene(pools=10)
    scene.books.drift = drifts([3, 8])
    scene.books.orders.missing = [5]
    with capture_logs() as logs:
        await scene.reconciler.walk()
        assert (scene.books.mended, scene.books.orders.restored) == ([], [])
        await asyncio.sleep(GRACE_SECONDS + 1)
        await scene.reconciler.walk()
        await asyncio.sleep(GRACE_SECONDS + 1)
        await scene.reconciler.walk()
    assert (scene.books.mended, scene.books.orders.restored) == ([3, 8], [5])
    assert scene.ears.heard == [("orders", 1), ("rates", 3), ("rates", 8)]
    assert [line["event"] for line in logs] == [
        "reconciliation_completed",
        "order_restored",
        "drift_mended",
        "drift_mended",
        "reconciliation_completed",
        "reconciliation_completed",
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
    scene.books.drift = drifts([3])
    scene.books.orders.missing = [5]
    for _ in range(3):
        await scene.reconciler.walk()
        await asyncio.sleep(GRACE_SECONDS / 3)
    assert (scene.books.mended, scene.books.orders.restored) == ([], [])


@in_virtual_time
async def test_drift_that_is_another_at_the_second_look_is_not_mended_yet() -> None:
    scene = Scene(pools=10)
    scene.books.drift = drifts([3])
    await scene.reconciler.walk()
    await asyncio.sleep(GRACE_SECONDS + 1)
    scene.books.drift = drifts([3], excess=2.0)
    await scene.reconciler.walk()
    assert scene.books.mended == []
    await asyncio.sleep(GRACE_SECONDS + 1)
    await scene.reconciler.walk()
    assert scene.books.mended == [3]


@in_virtual_time
async def test_what_has_changed_under_its_hands_is_left_alone_and_not_told() -> None:
    scene = Scene(pools=10)
    scene.books.drift = drifts([3])
    scene.books.refusals = {3: None}
    scene.books.orders.missing = [5]
    scene.books.orders.refusals = {5: None}
    await scene.two_walks()
    assert scene.ears.heard == []


@pytest.mark.parametrize("error", [StoreError("no"), StoreRefusedError("not allowed")])
@in_virtual_time
async def test_one_thing_that_cannot_be_mended_does_not_keep_the_others_from_it(error: StoreError) -> None:
    scene = Scene(pools=10)
    scene.books.drift = drifts([3, 8])
    scene.books.refusals = {3: error}
    scene.books.orders.missing = [5, 6]
    scene.books.orders.refusals = {5: error}
    with capture_logs() as logs:
        await scene.two_walks()
    assert (scene.books.mended, scene.books.orders.restored) == ([8], [6])
    told = [line for line in logs if line["event"] == "not_mended"]
    assert [(line.get("workload"), line.get("pool"), line["reason"]) for line in told] == [
        (5, None, str(error)),
        (None, 3, str(error)),
    ]


@in_virtual_time
async def test_a_workload_that_cannot_be_read_is_reported_and_gets_no_order() -> None:
    scene = Scene()
    scene.books.orders.missing = [5]
    scene.books.orders.refusals = {5: UnreadableDocumentError("no BSON")}
    await scene.two_walks()
    assert scene.unreadable == [Unreadable("workload", 5, "no BSON")]


@in_virtual_time
async def test_a_database_that_goes_away_while_mending_costs_nothing_but_time() -> None:
    scene = Scene(pools=10)
    scene.books.drift = drifts([3])
    await scene.reconciler.walk()
    await asyncio.sleep(GRACE_SECONDS + 1)
    scene.books.refusals = {3: StoreUnavailableError("away")}
    await scene.reconciler.walk()
    scene.books.refusals = {}
    await asyncio.sleep(GRACE_SECONDS + 1)
    await scene.reconciler.walk()
    assert scene.books.mended == [3]


@in_virtual_time
async def test_more_drift_than_is_credible_is_held_and_told_at_every_walk() -> None:
    scene = Scene(pools=1000, pools_per_second=100, hold_percent=20)
    scene.books.drift = drifts(range(1, 202))
    with capture_logs() as logs:
        await scene.two_walks()
        await scene.two_walks()
    assert scene.books.mended == []
    held = [line for line in logs if line["event"] == "drift_held"]
    assert [(line["pools"], line["drifted"]) for line in held] == [(1000, 201)] * 4
    assert scene.ears.heard == [("held", 1000, 201)] * 4


@in_virtual_time
async def test_drift_that_exceeds_what_is_credible_on_the_way_is_held_from_there_on() -> None:
    """Workloads that go missing during a walk: at its end few pools seemed wrong, at the next look all are."""
    scene = Scene(pools=2000, pools_per_second=100, hold_percent=20)
    scene.books.drift = drifts(range(1901, 2001))
    await scene.reconciler.walk()
    await asyncio.sleep(GRACE_SECONDS + 1)
    scene.books.drift = drifts(range(1, 2001))
    await scene.reconciler.walk()
    assert scene.books.mended == []


@in_virtual_time
async def test_a_hundred_pools_may_drift_whatever_share_that_is() -> None:
    scene = Scene(pools=100, hold_percent=0)
    scene.books.drift = drifts(range(1, 101))
    await scene.two_walks()
    assert len(scene.books.mended) == 100


@in_virtual_time
async def test_whoever_wants_it_has_everything_mended() -> None:
    scene = Scene(pools=3000, hold_percent=100)
    scene.books.drift = drifts(range(1, 3001))
    await scene.two_walks()
    assert len(scene.books.mended) == 3000


@in_virtual_time
async def test_a_gate_that_closes_stops_the_mending_before_the_next_write() -> None:
    scene = Scene(pools=10)
    scene.books.drift = drifts([3, 8])
    scene.closes_after = 1
    await scene.reconciler.walk()
    await asyncio.sleep(GRACE_SECONDS + 1)
    walking = asyncio.create_task(scene.reconciler.walk())
    await asyncio.sleep(3600)
    assert scene.books.mended == [3]
    scene.stop.set()
    await walking


@in_virtual_time
async def test_a_pool_that_should_have_been_settled_by_now_is_handed_on() -> None:
    scene = Scene(pools=10)
    now = int(ProcessClock().now())
    scene.looked_past = now - 5
    scene.books.overdue = {3: now, 4: now - 5, 5: now - 3600}
    await scene.reconciler.walk()
    assert scene.ears.heard == [("overdue", 4), ("overdue", 5)]


@in_virtual_time
async def test_while_everything_overdue_is_yet_to_be_looked_at_no_pool_is_handed_on() -> None:
    scene = Scene(pools=10)
    scene.books.overdue = {5: int(ProcessClock().now()) - 3600}
    await scene.reconciler.walk()
    assert scene.ears.heard == []


@in_virtual_time
async def test_settings_that_change_count_from_the_next_page_on() -> None:
    scene = Scene(pools=1000, pools_per_second=10, hold_percent=0)
    scene.books.drift = drifts(range(1, 501))
    walking = asyncio.create_task(scene.reconciler.walk())
    await asyncio.sleep(0.5)
    scene.change(pools_per_second=495, order_grace_seconds=1, hold_percent=100)
    with taking(0.5 + 2):
        await walking
    assert scene.books.looks == [0, 10, 505, 1000]
    await asyncio.sleep(2)
    await scene.reconciler.walk()
    assert len(scene.books.mended) == 500
