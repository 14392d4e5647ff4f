"""What is kept for whoever looks, and how long."""

import json
from dataclasses import FrozenInstanceError

import pytest
from telemetry_scene import PATIENCE, gone, make_ready
from virtual_clock import NOW, VirtualClock

from pool_daemon.capacity.exhaustion import Resource
from pool_daemon.errors import StoreError
from pool_daemon.expiry.pass_report import PassOutcome, PassReport
from pool_daemon.guards.gate import Closed
from pool_daemon.guards.leadership import Role
from pool_daemon.store.cases import Decommissioned
from pool_daemon.store.pool_counts import Upcoming
from pool_daemon.telemetry.endpoint.status_json import status_json
from pool_daemon.telemetry.observer import Observer
from pool_daemon.telemetry.snapshot import StreamState, Undone
from pool_daemon.telemetry.status import EVENTS, PASSES


def finish(observer: Observer, settled: int) -> None:
    observer.pass_finished(PassReport(settled=settled, decommissioned=settled), seconds=0.1)


def test_a_snapshot_stays_as_it_was_when_it_was_taken(observer: Observer) -> None:
    before = observer.status.snapshot
    make_ready(observer)
    assert before.events == ()
    assert before.role is Role.STARTING
    with pytest.raises(FrozenInstanceError):
        before.role = Role.LEADER  # type: ignore[misc] # that is the point


def test_the_last_events_are_kept_and_no_more(observer: Observer) -> None:
    for number in range(EVENTS + 30):
        observer.unreadable("pool", document_id=number, reason="NaN")
    events = observer.status.snapshot.events
    assert len(events) == EVENTS
    assert events[-1].text == f"pool {EVENTS + 29}: NaN"


def test_a_storm_leaves_the_last_of_its_pools_in_sight(observer: Observer) -> None:
    observer.batch_committed([gone(n, n, empty_at=NOW) for n in range(500)], pools=500, seconds=1, at=NOW)
    events = observer.status.snapshot.events
    assert [event.pool_id for event in events] == list(range(500 - EVENTS, 500))


def test_what_happens_again_and_again_is_one_event(observer: Observer, clock: VirtualClock) -> None:
    observer.drift_repaired(pool_id=17, dropped=(), excess={"cu": 1.0})
    for _ in range(500):
        clock.pass_time(1)
        observer.stream_lost("unavailable", reason="connection refused", retry_seconds=1)
        observer.pass_failed(StoreError("connection refused"), seconds=1, retry_seconds=1)
    events = observer.status.snapshot.events
    assert [(event.kind, event.times) for event in events] == [("repaired", 1), ("stream", 500), ("pass_failed", 500)]
    assert events[-1].at == NOW + 500


def test_an_event_tells_what_a_pool_lost(observer: Observer) -> None:
    observer.batch_committed([gone(n, 17, empty_at=NOW) for n in (1, 2)], pools=1, seconds=1, at=NOW + 0.5)
    (event,) = observer.status.snapshot.events
    assert (event.kind, event.pool_id, event.text) == ("decommissioned", 17, "cu ran out, 2 workloads")
    assert event.lateness_seconds == 0.5


def test_an_event_names_everything_that_ran_out(observer: Observer) -> None:
    for number in (2, 3):
        lost = Decommissioned(1, 17, 7, 12, "node", tuple(Resource)[:number], 0)
        observer.batch_committed([lost], pools=1, seconds=0.1, at=0.02)
    texts = [event.text for event in observer.status.snapshot.events]
    assert texts == ["cu and su ran out, 1 workload", "cu, su and ipv4u ran out, 1 workload"]


def test_passes_that_found_nothing_are_not_kept_but_for_the_last(observer: Observer) -> None:
    for _ in range(100):
        finish(observer, settled=0)
    finish(observer, settled=2)
    finish(observer, settled=0)
    now = observer.status.snapshot
    assert [finished.settled for finished in now.passes] == [2]
    assert now.last_pass is not None
    assert now.last_pass.settled == 0
    for number in range(1, PASSES + 10):
        finish(observer, settled=number)
    assert len(observer.status.snapshot.passes) == PASSES


def test_failures_in_a_row_end_with_a_completed_pass(observer: Observer) -> None:
    observer.pass_failed(StoreError("away"), seconds=1, retry_seconds=1)
    observer.pass_failed(StoreError("away"), seconds=1, retry_seconds=1)
    assert observer.status.snapshot.failures == 2
    finish(observer, settled=0)
    assert observer.status.snapshot.failures == 0


def test_a_held_pass_is_the_last_one_but_a_standby_fills_no_list_with_them(observer: Observer) -> None:
    observer.pass_finished(PassReport(cut_short_by=Closed.STANDBY), seconds=0.1)
    now = observer.status.snapshot
    assert now.last_pass is not None
    assert (now.last_pass.outcome, now.last_pass.reason) == (PassOutcome.HELD, "standby")
    assert now.passes == ()


def test_undone_pools_are_counted_since_the_first_and_forgotten_with_the_last(
    observer: Observer, clock: VirtualClock
) -> None:
    tick = clock.monotonic()
    observer.quarantine_seen(2, [])
    observer.put_on_hold("brake", detail="a backup", pools=5)
    observer.undone_seen("failing", 3, clock.now() - 60)
    clock.pass_time(100)
    observer.quarantine_seen(7, [])
    assert list(observer.status.snapshot.undone) == [
        Undone("brake", 5, tick),
        Undone("failing", 3, tick - 60),
        Undone("quarantine", 7, tick),
    ]
    observer.quarantine_seen(0, [])
    observer.taken_off_hold("brake")
    observer.undone_seen("failing", 0)
    assert list(observer.status.snapshot.undone) == []


def test_settled_pools_are_counted_for_ten_minutes(observer: Observer, clock: VirtualClock) -> None:
    for _ in range(1000):
        observer.batch_committed([gone(1, 16, empty_at=NOW)], pools=3, seconds=0.1, at=NOW)
        clock.pass_time(1)
    settled = observer.status.snapshot.lately_decommissioned
    assert 570 <= sum(each.pools for each in settled) <= 660
    assert len(settled) <= 21


def test_a_batch_is_progress_though_the_pass_goes_on(observer: Observer, clock: VirtualClock) -> None:
    make_ready(observer)
    clock.pass_time(500)
    observer.batch_committed([], pools=250, seconds=1, at=NOW)
    now = observer.status.snapshot
    assert now.progress_monotonic == clock.monotonic()
    assert now.completed_monotonic == clock.monotonic() - 500


def test_a_role_is_news_once(observer: Observer) -> None:
    for _ in range(3):
        observer.role_seen(Role.STANDBY, leader="other")
    for _ in range(3):
        observer.role_seen(Role.LEADER, term=8, leader="me")
    assert [event.text for event in observer.status.snapshot.events] == ["stands by for other", "leads in term 8"]


def test_a_hold_is_news_once_and_keeps_its_beginning(observer: Observer, clock: VirtualClock) -> None:
    observer.put_on_hold("clock", detail="3 s apart")
    clock.pass_time(30)
    observer.put_on_hold("clock", detail="4 s apart")
    (hold,) = observer.status.snapshot.holds
    assert (hold.detail, hold.since_at) == ("4 s apart", NOW)
    observer.taken_off_hold("clock")
    assert [event.kind for event in observer.status.snapshot.events] == ["held", "released"]


def test_a_stream_that_comes_back_forgets_why_it_went(observer: Observer) -> None:
    observer.stream_lost("stalled", reason="stands still", retry_seconds=1)
    observer.stream_opened(resumed=False)
    stream = observer.status.snapshot.stream
    assert (stream.state, stream.reason, stream.reopened) == (StreamState.OPEN, None, 1)


def test_the_costly_parts_are_wanted_while_somebody_looks(observer: Observer, clock: VirtualClock) -> None:
    assert not observer.status.wanted()
    observer.status.looked_at()
    clock.pass_time(10)
    assert observer.status.wanted()
    clock.pass_time(1)
    assert not observer.status.wanted()


def test_stopping_is_told_once(observer: Observer) -> None:
    observer.stopping(drain_seconds=60)
    observer.stopping(drain_seconds=60)
    assert [event.kind for event in observer.status.snapshot.events] == ["stopping"]


def test_the_picture_is_json_from_the_first_moment_on(observer: Observer, clock: VirtualClock) -> None:
    shown = json.loads(
        json.dumps(status_json(observer.status.snapshot, at=NOW, tick=clock.monotonic(), staleness_limits=PATIENCE))
    )
    assert shown["role"] == "starting"
    assert shown["last_pass"] is shown["clocks"] is shown["expiring"] is shown["brake"] is None
    assert shown["next"] == {"at": None, "pool_id": None}


def test_the_picture_holds_what_an_operator_asks_for(observer: Observer, clock: VirtualClock) -> None:
    make_ready(observer)
    observer.armed(NOW + 5, pool_id=17)
    observer.put_on_hold("brake", detail="too many at once")
    observer.upcoming_seen([Upcoming(16, 7, int(NOW) - 1), Upcoming(17, 7, int(NOW) + 5)])
    clock.pass_time(2)
    shown = status_json(observer.status.snapshot, at=clock.now(), tick=clock.monotonic(), staleness_limits=PATIENCE)
    assert (shown["role"], shown["term"]) == ("leader", 7)
    assert shown["next"] == {"at": NOW + 5, "pool_id": 17}
    assert shown["last_pass"]["outcome"] is PassOutcome.COMPLETED
    assert shown["stream"]["token_age_seconds"] == 2
    assert shown["clocks"]["difference_seconds"] == 0.003
    assert shown["brake"]["detail"] == "too many at once"
    assert shown["quarantine"] == {"pools": 0, "first": []}
    assert shown["backlog"] == 0
    assert [pool["pool_id"] for pool in shown["upcoming"]] == [17]
    assert shown["events"][0]["kind"] == "held"
    assert (shown["live"]["ok"], shown["started"]["ok"], shown["ready"]["ok"]) == (True, True, True)
