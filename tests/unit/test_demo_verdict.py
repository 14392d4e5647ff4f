"""The demo's verdict: every way in which the daemon can fail to hold what was expected is named."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pool_daemon.demo.scenario import SCENARIO, PlannedPool, Timetable
from pool_daemon.demo.scene import DatabaseState, Record
from pool_daemon.demo.verdict import Observations, exit_code, judge
from pool_daemon.errors import ExitCode

PLANS = {plan.name: plan for plan in SCENARIO}
OPENED_AT = 1_700_000_000
STARTED_AT = OPENED_AT + 10
TIMETABLE = Timetable(opened_at=OPENED_AT, started_at=STARTED_AT)


def record_of(workload_id: int, plan: PlannedPool, *, late: timedelta = timedelta(milliseconds=4)) -> Record:
    empty_at = TIMETABLE.empty_at(plan) or 0
    return Record(
        workload_id=workload_id,
        resources=("cu",),
        empty_at=empty_at,
        decommissioned_at=datetime.fromtimestamp(empty_at, UTC) + late,
    )


def good_evidence(*plans: PlannedPool) -> Observations:
    """What the database says when the daemon did everything right."""
    leaving = {workload_id: plan for plan in plans for workload_id in plan.leaving}
    workload_ids = [workload_id for plan in plans for workload_id in plan.all_workloads]
    workloads = {key: {"_id": key, "next_action": 4 if key in leaving else 3} for key in workload_ids}
    written = {plan.pool_id: {"_id": plan.pool_id, "cus": 100.0, "active_cu": 0.5} for plan in plans}
    snapshot = DatabaseState(
        pools={plan.pool_id: written[plan.pool_id] | ({"cus": 0.1} if plan.leaving else {}) for plan in plans},
        workloads=workloads,
        orders={key: dict(workloads[key]) for key in leaving},
        records=tuple(record_of(key, plan) for key, plan in leaving.items()),
    )
    return Observations(timetable=TIMETABLE, snapshot=snapshot, written=written, belated=(), exit_code=0)


def changed(observed: Observations, **fields: Any) -> Observations:
    return replace(observed, snapshot=replace(observed.snapshot, **fields))


def without(documents: Mapping[int, Any], key: int) -> dict[int, Any]:
    return {other: document for other, document in documents.items() if other != key}


def with_field(documents: Mapping[int, Any], key: int, **fields: Any) -> dict[int, Any]:
    return {**documents, key: documents[key] | fields}


def late_by(observed: Observations, **lateness: float) -> Observations:
    plan = PLANS["container"]
    return changed(observed, records=[record_of(301, plan, late=timedelta(**lateness))])


STAYING, LEAVING = PLANS["topped up"], PLANS["container"]
WAYS_NOT_TO_HOLD: list[tuple[str, PlannedPool, Callable[[Observations], Observations]]] = [
    (
        "workload 301 was not stopped",
        LEAVING,
        lambda good: changed(good, workloads=with_field(good.snapshot.workloads, 301, next_action=3)),
    ),
    (
        "workload 301 was not stopped",
        LEAVING,
        lambda good: changed(good, workloads=without(good.snapshot.workloads, 301)),
    ),
    ("workload 301 has no work order", LEAVING, lambda good: changed(good, orders={})),
    (
        "the work order of 301 is no copy of it",
        LEAVING,
        lambda good: changed(good, orders=with_field(good.snapshot.orders, 301, next_action=3)),
    ),
    ("workload 301 has 0 records", LEAVING, lambda good: changed(good, records=())),
    ("workload 301 has 2 records", LEAVING, lambda good: changed(good, records=[*good.snapshot.records] * 2)),
    (
        "stopped for second 2",
        LEAVING,
        lambda good: changed(good, records=[replace(good.snapshot.records[0], empty_at=STARTED_AT + 2)]),
    ),
    ("stopped 1 ms early", LEAVING, lambda good: late_by(good, milliseconds=-1)),
    ("stopped 1000 ms late", LEAVING, lambda good: late_by(good, seconds=1)),
    (
        "its pool is not as its customer wrote it",
        LEAVING,
        lambda good: changed(good, pools=with_field(good.snapshot.pools, 3, active_cu=0.0)),
    ),
    (
        "its pool is not as its customer wrote it",
        STAYING,
        lambda good: changed(good, pools=with_field(good.snapshot.pools, 10, cus=99.0)),
    ),
    ("its pool is not as its customer wrote it", STAYING, lambda good: changed(good, pools={})),
    (
        "workload 1001 does not run any more",
        STAYING,
        lambda good: changed(good, workloads=with_field(good.snapshot.workloads, 1001, next_action=4)),
    ),
    ("workload 1001 has a work order", STAYING, lambda good: changed(good, orders={1001: {}})),
    (
        "workload 1001 has a record of being stopped",
        STAYING,
        lambda good: changed(good, records=[record_of(1001, STAYING)]),
    ),
    (
        "its customer came too late: this machine is too busy",
        STAYING,
        lambda good: replace(good, belated={10}),
    ),
]


class TestVerdict:
    def test_everything_held_if_the_daemon_did_everything_right(self) -> None:
        findings = judge(SCENARIO, good_evidence(*SCENARIO))
        assert [finding.name for finding in findings if not finding.held] == []
        assert exit_code(findings) is ExitCode.OK

    @pytest.mark.parametrize(("fault", "plan", "spoil"), WAYS_NOT_TO_HOLD)
    def test_each_way_not_to_hold_is_named_and_fails_the_demo(
        self, fault: str, plan: PlannedPool, spoil: Callable[[Observations], Observations]
    ) -> None:
        finding, of_the_daemon = judge([plan], spoil(good_evidence(plan)))
        assert fault in finding.faults
        assert of_the_daemon.held
        assert exit_code([finding, of_the_daemon]) is ExitCode.FAILED

    def test_a_workload_that_must_stay_is_told_from_its_neighbours_that_must_go(self) -> None:
        plan = PLANS["storage"]
        small, volume = plan.all_workloads
        assert plan.leaving == [volume]
        good = good_evidence(plan)
        spoilt = changed(good, workloads=with_field(good.snapshot.workloads, small, next_action=4))
        assert judge([plan], spoilt)[0].faults == (f"workload {small} does not run any more",)

    @pytest.mark.parametrize("milliseconds", [0, 999])
    def test_within_the_second_is_in_time(self, milliseconds: int) -> None:
        findings = judge([LEAVING], late_by(good_evidence(LEAVING), milliseconds=milliseconds))
        assert exit_code(findings) is ExitCode.OK

    def test_a_pool_overdue_before_the_daemon_ran_is_not_held_to_its_second(self) -> None:
        plan = PLANS["overdue"]
        good = good_evidence(plan)
        late = changed(good, records=[record_of(101, plan, late=timedelta(minutes=10))])
        finding = judge([plan], late)[0]
        assert (finding.faults, finding.lateness) == ((), None)

    def test_a_daemon_that_stops_badly_fails_the_demo(self) -> None:
        findings = judge([LEAVING], replace(good_evidence(LEAVING), exit_code=70))
        assert findings[-1].faults == ("ended with exit code 70 when told to stop",)
        assert exit_code(findings) is ExitCode.FAILED

    def test_a_record_of_something_unknown_fails_the_demo(self) -> None:
        good = good_evidence(LEAVING)
        records = [*good.snapshot.records, record_of(999, LEAVING)]
        findings = judge([LEAVING], changed(good, records=records))
        assert findings[-1].faults == ("a record of workload 999, which does not exist",)
        assert exit_code(findings) is ExitCode.FAILED
