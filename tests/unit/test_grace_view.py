"""What people see of a pool in grace: what the next settlement would find, in words and in numbers."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from pool_daemon.capacity.exhaustion import Resource
from pool_daemon.capacity.grace import GracePolicy, PoolGrace
from pool_daemon.capacity.pool import Pool, new_pool
from pool_daemon.capacity.workload import WorkloadType
from pool_daemon.store.grace import GraceRecord
from pool_daemon.views import grace_view as module
from pool_daemon.views.grace_view import GraceView, grace_json, grace_lines, grace_view, latest_end
from pool_daemon.views.texts import remaining

HOUR, DAY = 3600, 86_400
END = 1_700_000_000
NOW = END + 22 * HOUR
POLICY = GracePolicy({WorkloadType.VOLUME: 7 * DAY, WorkloadType.ZDB: 2 * DAY}, budget_seconds=30 * DAY)
VOLUME = {"_id": 93, "workload_type": 2, "size": 300, "type": 1}
ZDB = {"_id": 92, "workload_type": 0, "size": 300, "disk_type": 1}
CONTAINER = {"_id": 91, "workload_type": 1, "capcity": {"cpu": 2, "memory": 4096, "disk_size": 0, "disk_type": 1}}


def pool(*, cus: float = 1e9, sus: float = 0) -> Pool:
    """Return a pool as the explorer has written it at its end: two storage units and a compute unit are in use."""
    pool = new_pool(17, 7, 0, None, now=END)
    pool.add_capacity(cus, sus, 0, now=END)
    for workload_id, cu, su in ((91, 1, 0), (92, 0, 1), (93, 0, 1)):
        pool.add_workload(workload_id, cu, su, 0, now=END)
    return pool


def record(**fields: Any) -> GraceRecord:
    grace = PoolGrace(since={Resource.STORAGE: END}, newest={Resource.STORAGE: 93}, **fields)
    return GraceRecord(17, 7, grace, "ann@desk", "ticket")


def seen(
    *documents: Mapping[str, Any],
    of: Pool | None = None,
    known: GraceRecord | None = None,
    policy: GracePolicy = POLICY,
) -> GraceView | None:
    return grace_view(policy, of or pool(), known, documents, now=NOW)


def texts(view: GraceView | None, purchase: Mapping[Resource, int] | None = None) -> list[str]:
    assert view is not None
    return list(grace_lines(view, purchase or {}, 30 * DAY, now=NOW))


def test_each_workload_goes_after_the_time_of_its_type_the_first_one_first() -> None:
    view = seen(VOLUME, ZDB, CONTAINER, known=record())
    assert texts(view, {Resource.STORAGE: round(12.4 * DAY), Resource.COMPUTE: 3 * DAY}) == [
        "in grace since 2023-11-14 22:13:20, 22 h ago: out of storage",
        "zdb 92 goes in 1 d 2 h",
        "volume 93 goes in 6 d 2 h",
        "12.4 SU-days and 3 CU-days buy 30 d",
    ]
    assert grace_json(view) == {
        "since": {"su": END},
        "workloads": [
            {"workload_id": 92, "goes_at": END + 2 * DAY},
            {"workload_id": 93, "goes_at": END + 7 * DAY},
        ],
        "is_whole": True,
        "operator": None,
    }


def test_a_pool_that_the_daemon_has_not_come_to_yet_is_shown_as_it_is_going_to_be() -> None:
    assert texts(seen(VOLUME, known=None))[1:] == ["volume 93 goes in 6 d 2 h"]


def test_what_has_no_grace_is_not_said_to_have_any() -> None:
    out_of_compute = replace(pool(cus=0, sus=1e9), last_updated=END)
    assert seen(CONTAINER, of=out_of_compute) is None
    assert grace_json(None) is None


def test_a_workload_that_was_deployed_after_the_end_has_none() -> None:
    view = seen(VOLUME, VOLUME | {"_id": 94}, known=record())
    assert texts(view)[1:] == ["volume 93 goes in 6 d 2 h"]
    assert view is not None
    assert (view.spares(93), view.spares(94)) == (True, False)


def test_an_operators_end_holds_for_all_types_and_is_named_with_its_reason() -> None:
    view = seen(VOLUME, ZDB, known=record(operator_until=NOW + 3 * HOUR + 240, operator_at=END + 5))
    assert texts(view)[1:] == [
        "volume 93 goes in 3 h 4 min",
        "zdb 92 goes in 3 h 4 min",
        "ends 2023-11-15 23:17:20, in 3 h, by ann@desk: ticket",
    ]
    shown = grace_json(view)
    assert shown is not None
    assert shown["operator"] == {"until": NOW + 3 * HOUR + 240, "by": "ann@desk", "reason": "ticket"}


def test_no_more_than_some_workloads_are_named() -> None:
    many = [VOLUME | {"_id": number} for number in range(80, 90)]
    assert texts(seen(*many, known=record()))[1:] == [
        *(f"volume {number} goes in 6 d 2 h" for number in (80, 81, 82)),
        "and 7 more go later",
    ]


def test_of_a_pool_with_more_workloads_than_are_looked_at_any_may_be_in_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 1)
    view = seen(CONTAINER, known=record())
    assert view is not None
    assert (view.is_whole, view.spares(1)) == (False, True)


def test_the_latest_end_is_that_of_the_type_with_the_most_within_the_budget() -> None:
    assert latest_end(POLICY, record().grace, now=NOW) == END + 7 * DAY
    assert latest_end(replace(POLICY, budget_seconds=3 * DAY), record().grace, now=NOW) == END + 3 * DAY
    assert latest_end(POLICY, record(operator_until=NOW, operator_at=END).grace, now=NOW) == NOW


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (6 * DAY + 2 * HOUR + 59, "6 d 2 h"),
        (6 * DAY + 59, "6 d"),
        (3 * HOUR, "3 h"),
        (3 * HOUR + 60, "3 h 1 min"),
        (61, "1 min 1 s"),
        (5, "5 s"),
        (0, "0 s"),
    ],
)
def test_what_remains_is_said_in_two_units(seconds: int, text: str) -> None:
    assert remaining(seconds) == text
