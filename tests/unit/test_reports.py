"""What the pass tells of a batch: how late it was, and in how many lines."""

from dataclasses import replace

import pytest
from structlog.testing import capture_logs
from telemetry_scene import gone, new_observer

from pool_daemon.capacity.pool import new_pool
from pool_daemon.settings.sections import Log
from pool_daemon.store.cases import Case, Settlement, Unreadable
from pool_daemon.telemetry.observer import Observer
from pool_daemon.telemetry.reports import Reports

EMPTY_AT = 1_800_000_000
POOL_ID = 17


@pytest.fixture
def observer() -> Observer:
    return new_observer()


@pytest.fixture
def reports(observer: Observer) -> Reports:
    return Reports(observer=observer, settings=Log())


def settlement_of(*workload_ids: int) -> Settlement:
    """Let a pool that ran empty lose some workloads."""
    pool = new_pool(POOL_ID, 144, 0, None, now=EMPTY_AT)
    pool.empty_at = EMPTY_AT
    workloads = tuple(gone(workload_id, POOL_ID, empty_at=EMPTY_AT) for workload_id in workload_ids)
    return Settlement([Case(pool, pool, workloads, (None,) * len(workloads), (1,) * len(workloads))])


@pytest.mark.parametrize(
    ("asked_for", "late_seconds"),
    [
        ({}, 10),
        ({POOL_ID: EMPTY_AT + 7}, 3),
        ({POOL_ID: EMPTY_AT - 3600}, 10),
        ({POOL_ID + 1: EMPTY_AT + 7}, 10),
    ],
    ids=["its end", "asked for after its end", "asked for before its end", "another was asked for"],
)
def test_lateness_counts_from_the_end_of_the_pool_or_from_what_came_after_it(
    observer: Observer, reports: Reports, asked_for: dict[int, int], late_seconds: float
) -> None:
    reports.due_since(asked_for)
    with capture_logs() as lines:
        reports.settlement(settlement_of(1), at=EMPTY_AT + 10, seconds=0.1)

    assert lines[0]["lateness_ms"] == late_seconds * 1000
    assert observer.metrics.registry.get_sample_value("pool_daemon_lateness_seconds_sum") == late_seconds


@pytest.mark.parametrize("detail", ["workload", "pool"])
def test_what_was_in_grace_is_late_from_the_end_of_its_grace_alone(observer: Observer, detail: str) -> None:
    reports = Reports(observer=observer, settings=Log.model_validate({"detail": detail}))
    settlement = settlement_of(1)
    (case,) = settlement.cases
    settlement.cases = [replace(case, gone=(replace(case.gone[0], grace_ended_at=EMPTY_AT + 8),))]
    with capture_logs() as lines:
        reports.settlement(settlement, at=EMPTY_AT + 10, seconds=0.1)

    assert lines[0]["lateness_ms"] == 2000
    assert observer.metrics.registry.get_sample_value("pool_daemon_lateness_seconds_sum") == 2


def test_what_was_asked_for_in_the_pass_before_counts_no_more(reports: Reports) -> None:
    reports.due_since({POOL_ID: EMPTY_AT + 7})
    reports.begin()
    with capture_logs() as lines:
        reports.settlement(settlement_of(1), at=EMPTY_AT + 10, seconds=0.1)

    assert lines[0]["lateness_ms"] == 10_000


@pytest.mark.parametrize(
    ("detail", "events"), [("workload", 3 * ["workload_decommissioned"]), ("pool", ["pool_decommissioned"])]
)
def test_there_is_a_line_a_workload_or_one_a_pool(observer: Observer, detail: str, events: list[str]) -> None:
    reports = Reports(observer=observer, settings=Log.model_validate({"detail": detail}))
    with capture_logs() as lines:
        reports.settlement(settlement_of(1, 2, 3), at=EMPTY_AT, seconds=0.1)

    assert [line["event"] for line in lines] == events


def test_a_document_that_is_left_alone_is_told_once_for_each_reason(reports: Reports) -> None:
    with capture_logs() as lines:
        for reason in ("size 99 is unknown", "size 99 is unknown", "size 98 is unknown"):
            reports.unreadable(Unreadable("workload", 5, reason))

    assert [line["reason"] for line in lines] == ["size 99 is unknown", "size 98 is unknown"]
