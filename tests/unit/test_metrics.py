"""What each verb moves, and what the text for Prometheus looks like."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import cast

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse
from telemetry_scene import gone, make_ready, new_observer
from virtual_clock import NOW, VirtualClock

from pool_daemon import events
from pool_daemon.capacity.exhaustion import Resource
from pool_daemon.capacity.grace import GraceEnd
from pool_daemon.errors import StoreError
from pool_daemon.expiry.pass_report import PassOutcome, PassReport
from pool_daemon.expiry.watcher import StreamEnd
from pool_daemon.guards.gate import Closed
from pool_daemon.guards.leadership import Role
from pool_daemon.store.cases import Decommissioned
from pool_daemon.store.quarantine import Quarantined
from pool_daemon.store.receivers import Standing
from pool_daemon.telemetry.metric_table import LATENESS, TABLE, Counter, Gauge, Histogram
from pool_daemon.telemetry.observer import Observer

EMPTY_AT = int(NOW) - 2


def sample(observer: Observer, name: str, **labels: str) -> float | None:
    return observer.metrics.registry.get_sample_value(f"pool_daemon_{name}", labels)


def two_of_one_pool(observer: Observer) -> None:
    workloads = [gone(1, 17, empty_at=EMPTY_AT), gone(2, 17, empty_at=EMPTY_AT, workload_type=12)]
    observer.batch_committed(workloads, pools=3, seconds=0.02, at=NOW)


def after_its_grace(observer: Observer) -> None:
    workload = replace(gone(1, 17, empty_at=EMPTY_AT, workload_type=2), grace_ended_at=EMPTY_AT, grace_seconds=90)
    observer.batch_committed([workload], pools=1, seconds=0.02, at=NOW)


WAITING = {"webhook": Standing(pending=3, oldest_at=None, dead=2, off="status 410")}

MOVES: list[tuple[Callable[[Observer], None], str, dict[str, str], float]] = [
    (lambda o: o.beat(0.004), "event_loop_lag_seconds_sum", {}, 0.004),
    (
        lambda o: o.command_finished("find", 0.2, failed=False),
        "database_command_duration_seconds_sum",
        {"command": "find"},
        0.2,
    ),
    (lambda o: o.command_finished("find", 0.2, failed=True), "database_command_errors_total", {"command": "find"}, 1),
    (lambda o: o.command_finished("find", 0.2, failed=False), "database_command_errors_total", {"command": "find"}, 0),
    (lambda o: o.command_finished("find", 0.2, failed=False), "database_answer_age_seconds", {}, 0),
    (
        lambda o: o.event_sent("webhook", "delivered", delay_seconds=3),
        "notices_sent_total",
        {"receiver": "webhook", "outcome": "delivered"},
        1,
    ),
    (lambda o: o.event_sent("webhook", "delivered", delay_seconds=3), "notice_delay_seconds_sum", {}, 3),
    (lambda o: o.receivers_seen(WAITING), "oldest_pending_notice_age_seconds", {"receiver": "webhook"}, 0),
    (lambda o: o.receivers_seen(WAITING), "notices_dead", {"receiver": "webhook"}, 2),
    (lambda o: o.receivers_seen(WAITING), "receiver_off", {"receiver": "webhook"}, 1),
    (lambda o: o.ends_untold(3, reason="refused"), "ends_untold_total", {}, 3),
    (
        lambda o: o.tell(events.RECONCILIATION_FAILED, reason="no"),
        "background_failures_total",
        {"event": "reconciliation_failed"},
        1,
    ),
    (lambda o: o.role_seen(Role.LEADER, term=7, leader="me"), "leader", {}, 1),
    (lambda o: o.role_seen(Role.LEADER, term=7, leader="me"), "leader_term", {}, 7),
    (lambda o: o.role_seen(Role.STANDBY, leader="other"), "leader", {}, 0),
    (lambda o: o.armed(NOW + 5, pool_id=17), "next_deadline_timestamp_seconds", {}, NOW + 5),
    (lambda o: finish(o, PassOutcome.COMPLETED), "passes_total", {"outcome": "completed"}, 1),
    (lambda o: finish(o, PassOutcome.HELD), "passes_total", {"outcome": "held"}, 1),
    (lambda o: finish(o, PassOutcome.STOPPED), "passes_total", {"outcome": "stopped"}, 1),
    (lambda o: finish(o, PassOutcome.COMPLETED), "pass_duration_seconds_sum", {}, 0.5),
    (lambda o: o.pass_failed(StoreError("away"), seconds=2, retry_seconds=1), "passes_total", {"outcome": "failed"}, 1),
    (lambda o: o.pass_failed(StoreError("away"), seconds=2, retry_seconds=1), "retries_total", {"step": "pass"}, 1),
    (lambda o: o.backlog_counted(40), "backlog_pools", {}, 40),
    (lambda o: o.waiting_orders_seen(3, since_at=NOW - 60), "delete_orders_waiting", {}, 3),
    (lambda o: o.waiting_orders_seen(3, since_at=NOW - 60), "oldest_delete_order_age_seconds", {}, 60),
    (lambda o: o.waiting_orders_seen(0), "oldest_delete_order_age_seconds", {}, 0),
    (lambda o: o.in_grace_counted(3), "pools_in_grace", {}, 3),
    (lambda o: o.grace_ended(GraceEnd.TOPPED_UP), "graces_ended_total", {"reason": "topped_up"}, 1),
    (after_its_grace, "grace_seconds_total", {"workload_type": "volume"}, 90),
    (two_of_one_pool, "batch_duration_seconds_sum", {}, 0.02),
    (two_of_one_pool, "batch_pools_sum", {}, 3),
    (two_of_one_pool, "batch_workloads_sum", {}, 2),
    (two_of_one_pool, "pools_decommissioned_total", {"resource": "cu"}, 1),
    (two_of_one_pool, "workloads_decommissioned_total", {"resource": "cu", "workload_type": "container"}, 1),
    (two_of_one_pool, "workloads_decommissioned_total", {"resource": "cu", "workload_type": "virtual_machine"}, 1),
    (two_of_one_pool, "lateness_seconds_sum", {}, 4),
    (lambda o: o.batch_split(), "retries_total", {"step": "batch"}, 1),
    (lambda o: o.pool_failed(17, reason="poison", retry_seconds=1), "retries_total", {"step": "pool"}, 1),
    (
        lambda o: o.quarantine_seen(3, [Quarantined(17, "poison", 5, 0, 60, "me")]),
        "quarantined_pools",
        {},
        3,
    ),
    (lambda o: o.undone_seen("failing", 4, NOW - 121), "undone_pools", {"reason": "failing"}, 4),
    (lambda o: o.undone_seen("failing", 4, NOW - 119), "undone_pools", {"reason": "failing"}, 0),
    (lambda o: o.unreadable("pool", document_id=17, reason="NaN"), "unreadable_documents_total", {"kind": "pool"}, 1),
    (lambda o: o.put_on_hold("brake", detail="too many"), "on_hold", {"reason": "brake"}, 1),
    (lambda o: o.put_on_hold("brake", detail="too many"), "on_hold", {"reason": "clock"}, 0),
    (lambda o: o.put_on_hold("brake", detail="too many"), "holds_total", {"reason": "brake"}, 1),
    (lambda o: o.clocks_compared(-0.25, agree=True), "clock_difference_seconds", {}, -0.25),
    (
        lambda o: o.drift_repaired(pool_id=17, dropped=(), excess={"cu": 1.0}),
        "drift_repaired_total",
        {"kind": "rates"},
        1,
    ),
    (lambda o: o.order_restored(5, pool_id=17), "delete_orders_restored_total", {}, 1),
    (lambda o: o.missing_workloads_counted(3), "pools_missing_workloads", {}, 3),
    (lambda o: o.settings_rejected("a typo"), "settings_reloads_total", {"outcome": "refused"}, 1),
    (lambda o: o.indexes_missing({"pools: a": "no room"}), "indexes_missing", {}, 1),
    (lambda o: o.stream_opened(resumed=False), "stream_open", {}, 1),
    (lambda o: o.stream_opened(resumed=False), "stream_token_age_seconds", {}, 0),
    (
        lambda o: o.stream_lost("stalled", reason="still", retry_seconds=1),
        "stream_reconnects_total",
        {"cause": "stalled"},
        1,
    ),
    (lambda o: o.stream_lost("stalled", reason="still", retry_seconds=1), "stream_open", {}, 0),
    (lambda o: drop_lines(o, 2, 5), "log_lines_dropped_total", {}, 5),
    (lambda o: o.expiring_counted({"1h": 1, "1d": 2, "7d": 3}), "pools_expiring", {"within": "1d"}, 2),
]


def drop_lines(observer: Observer, *totals: int) -> None:
    for total in totals:
        observer.log_lines_dropped(total)


CUT_SHORT_BY = {
    PassOutcome.COMPLETED: None,
    PassOutcome.HELD: Closed.STANDBY,
    PassOutcome.STOPPED: Closed.STOPPING,
}


def finish(observer: Observer, outcome: PassOutcome) -> None:
    observer.pass_finished(PassReport(settled=3, decommissioned=2, cut_short_by=CUT_SHORT_BY[outcome]), seconds=0.5)


@pytest.mark.parametrize(
    ("verb", "name", "labels", "value"), MOVES, ids=[f"{row[1]}{list(row[2].values())}" for row in MOVES]
)
def test_every_verb_moves_its_metric(
    observer: Observer, verb: Callable[[Observer], None], name: str, labels: dict[str, str], value: float
) -> None:
    verb(observer)
    assert sample(observer, name, **labels) == pytest.approx(value)


def test_a_dry_run_counts_nothing_as_decommissioned(clock: VirtualClock) -> None:
    observer = Observer(identity="me", version="0", clock=clock, dry_run=True)
    before = observer.metrics.render()[1]
    two_of_one_pool(observer)
    assert [line for line in observer.metrics.render()[1].splitlines() if b"pool_daemon" in line] == [
        line for line in before.splitlines() if b"pool_daemon" in line
    ]
    now = observer.status.snapshot
    assert (now.pools_decommissioned, now.workloads_decommissioned) == (0, 0)
    assert [(event.kind, event.text) for event in now.events] == [
        ("dry_run", "would be decommissioned: cu ran out, 2 workloads")
    ]


def test_every_metric_of_the_table_is_moved_by_a_verb() -> None:
    moved = {name for _, name, _, _ in MOVES}
    derived = {"build_info", "last_completed_pass_age_seconds"}
    for row in TABLE:
        assert row.name in derived or any(name in (row.name, f"{row.name}_sum") for name in moved), row.name


def test_no_failure_that_is_repeated_goes_uncounted() -> None:
    """Else nobody would notice that it fails for ever."""
    counted_by_others = {"pass_failed", "pool_failed", "delivery_failed", "http_failed"}
    counted = {event.name for event in events.BACKGROUND_FAILURES}
    assert {event.name for event in events.TABLE if event.name.endswith("_failed")} - counted == counted_by_others


def test_the_version_is_a_label_of_the_build(observer: Observer) -> None:
    assert sample(observer, "build_info", version="1.2.3") == 1


def test_ages_grow_while_nothing_happens(observer: Observer, clock: VirtualClock) -> None:
    make_ready(observer)
    clock.pass_time(90)
    ages = ("last_completed_pass_age_seconds", "stream_token_age_seconds", "database_answer_age_seconds")
    assert [sample(observer, name) for name in ages] == [90, 90, 90]


def test_no_step_of_the_wall_clock_makes_anything_look_old(observer: Observer, clock: VirtualClock) -> None:
    make_ready(observer)
    clock.step(86_400)
    assert sample(observer, "last_completed_pass_age_seconds") == 0
    assert sample(observer, "stream_token_age_seconds") == 0


def test_the_age_of_a_pass_that_never_completed_counts_from_the_start(observer: Observer, clock: VirtualClock) -> None:
    clock.pass_time(300)
    observer.pass_failed(StoreError("away"), seconds=5, retry_seconds=1)
    assert sample(observer, "last_completed_pass_age_seconds") == 300


@pytest.mark.parametrize(
    "name",
    [
        "leader_term",
        "next_deadline_timestamp_seconds",
        "stream_token_age_seconds",
        "database_answer_age_seconds",
        "clock_difference_seconds",
        "backlog_pools",
        "delete_orders_waiting",
        "oldest_delete_order_age_seconds",
    ],
)
def test_what_is_not_known_yet_has_no_sample(observer: Observer, name: str) -> None:
    assert sample(observer, name) is None


def test_a_workload_that_had_to_go_later_than_its_pool_ran_empty_is_late_from_then(observer: Observer) -> None:
    observer.batch_committed(
        [gone(1, 17, empty_at=NOW - 7200), gone(2, 18, empty_at=NOW - 1)],
        pools=2,
        seconds=0.02,
        at=NOW,
        due_at={17: NOW - 3},
    )
    assert sample(observer, "lateness_seconds_sum") == pytest.approx(3 + 1)


def test_a_workload_counts_once_under_the_first_of_the_resources_that_ran_out(observer: Observer) -> None:
    both = Decommissioned(1, 17, 7, 12, "node", (Resource.COMPUTE, Resource.STORAGE), EMPTY_AT)
    storage = Decommissioned(2, 17, 7, 2, "node", (Resource.STORAGE,), EMPTY_AT)
    observer.batch_committed([storage, both], pools=1, seconds=0.01, at=NOW)
    assert sample(observer, "workloads_decommissioned_total", resource="cu", workload_type="virtual_machine") == 1
    assert sample(observer, "workloads_decommissioned_total", resource="su", workload_type="volume") == 1
    assert sample(observer, "pools_decommissioned_total", resource="cu") == 1
    assert sample(observer, "pools_decommissioned_total", resource="su") == 0


def test_a_workload_of_no_known_type_counts_as_unknown(observer: Observer) -> None:
    observer.batch_committed([gone(1, 17, empty_at=EMPTY_AT, workload_type=99)], pools=1, seconds=0.01, at=NOW)
    assert sample(observer, "workloads_decommissioned_total", resource="cu", workload_type="unknown") == 1


def test_no_label_grows_with_what_it_is_told(observer: Observer) -> None:
    for number in range(100):
        observer.command_finished(f"command{number}", 0.1, failed=True)
        observer.stream_lost(cast("StreamEnd", f"cause{number}"), reason="any", retry_seconds=1)
        observer.put_on_hold(f"reason{number}", detail="any")
    assert sample(observer, "database_command_errors_total", command="other") == 100
    assert sample(observer, "stream_reconnects_total", cause="other") == 100
    assert sample(observer, "on_hold", reason="other") == 1


def test_holding_ends_with_the_last_reason(observer: Observer) -> None:
    observer.put_on_hold("clock", detail="apart")
    observer.taken_off_hold("clock")
    observer.taken_off_hold("clock")
    assert sample(observer, "on_hold", reason="clock") == 0
    assert sample(observer, "holds_total", reason="clock") == 1


def test_batches_take_from_the_backlog_before_and_after_it_is_counted(observer: Observer) -> None:
    observer.backlog_counted(1000)
    observer.batch_committed([], pools=250, seconds=0.1, at=NOW)
    assert sample(observer, "backlog_pools") == 750
    observer.backlog_counted(1100)
    assert sample(observer, "backlog_pools") == 850
    finish(observer, PassOutcome.COMPLETED)
    observer.backlog_counted(3)
    assert sample(observer, "backlog_pools") == 3
    observer.batch_committed([], pools=250, seconds=0.1, at=NOW)
    assert sample(observer, "backlog_pools") == 0


def test_a_standby_has_no_backlog_of_its_own(observer: Observer) -> None:
    observer.backlog_counted(3)
    observer.backlog_counted(None)
    assert sample(observer, "backlog_pools") is None


def test_counters_start_at_zero_so_that_the_first_of_a_kind_is_seen_as_a_rise(observer: Observer) -> None:
    assert sample(observer, "workloads_decommissioned_total", resource="ipv4u", workload_type="public_ip") == 0
    assert sample(observer, "stream_reconnects_total", cause="invalidated") == 0
    assert sample(observer, "retries_total", step="pool") == 0


def test_lateness_is_told_apart_from_5_milliseconds_to_an_hour() -> None:
    assert (LATENESS.buckets[0], LATENESS.buckets[-1]) == (0.005, 3600)


def test_the_table_keeps_the_rules_of_names() -> None:
    assert len({row.name for row in TABLE}) == len(TABLE)
    for row in TABLE:
        assert row.about.endswith("."), row.name
        assert not {"job", "instance", "le"} & row.labels.keys()
        assert isinstance(row, Counter) == row.name.endswith("_total")
        if isinstance(row, Histogram):
            assert all(small < large for small, large in pairwise(row.buckets))
        if isinstance(row, Gauge):
            assert len(row.labels) <= 1


def test_what_prometheus_reads_by_default_holds_every_metric_and_those_of_the_process(observer: Observer) -> None:
    content_type, text = observer.metrics.render()
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    families = {family.name: family for family in parse(text.decode())}
    for row in TABLE:
        name = row.full_name.removesuffix("_total")
        assert families[name].documentation == row.about
        assert families[name].type == row.kind
    assert {"process_resident_memory_bytes", "python_info", "python_gc_collections"} < families.keys()
    assert "_created" not in text.decode()


def test_openmetrics_is_given_to_whoever_asks_for_it(observer: Observer) -> None:
    make_ready(observer)
    content_type, text = observer.metrics.render("application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    families = list(parse_openmetrics(text.decode()))  # type: ignore[no-untyped-call] # it has no annotations
    assert len(families) > len(TABLE)
    assert text.endswith(b"# EOF\n")


def test_two_daemons_in_one_process_share_no_metric(clock: VirtualClock) -> None:
    one, other = new_observer(clock), new_observer(clock)
    one.batch_split()
    assert sample(other, "retries_total", step="batch") == 0
