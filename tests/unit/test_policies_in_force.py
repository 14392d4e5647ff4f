"""Whose policy is in force: what is agreed with an owner, before the default, as far as it can be read."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from structlog.testing import capture_logs
from telemetry_scene import LogOnly
from virtual_time import in_virtual_time

from pool_daemon.capacity.grace import GracePolicy
from pool_daemon.capacity.workload import WorkloadType
from pool_daemon.errors import StoreUnavailableError
from pool_daemon.expiry.policies_in_force import INTERVAL_SECONDS, PoliciesInForce
from pool_daemon.store.policies import OwnerPolicy, Policies, policies_of

DAY = 86_400
DEFAULT = GracePolicy({WorkloadType.VOLUME: 7 * DAY, WorkloadType.CONTAINER: 0}, 7 * DAY, until_told_seconds=60)
AGREED = {"_id": 7, "grace": {"container": 3600}, "budget": 10 * DAY, "reason": "contract", "by": "ann", "at": 5}


class Documents:
    """The documents in the collection; a source that may be away."""

    def __init__(self, *documents: Mapping[str, Any]) -> None:
        self.documents = list(documents)
        self.is_away = False

    async def read_all(self) -> Policies:
        if self.is_away:
            raise StoreUnavailableError("away")
        return policies_of(self.documents)


class Scene:
    """The policies in force, and how often they have changed."""

    def __init__(self, *documents: Mapping[str, Any]) -> None:
        self.source = Documents(*documents)
        self.changes = 0
        self.in_force = PoliciesInForce(source=self.source, default=DEFAULT, changed=self._changed, observer=LogOnly())

    def _changed(self) -> None:
        self.changes += 1


async def test_what_is_agreed_ranks_above_the_default_and_the_rest_is_the_default() -> None:
    scene = Scene(AGREED, {"_id": 8, "grace": {"volume": 0}})
    await scene.in_force.load()

    seven = GracePolicy({WorkloadType.VOLUME: 7 * DAY, WorkloadType.CONTAINER: 3600}, 10 * DAY, until_told_seconds=60)
    assert scene.in_force.of(7) == seven
    assert scene.in_force.of(8).seconds[WorkloadType.VOLUME] == 0
    assert scene.in_force.of(8).budget_seconds == 7 * DAY
    assert scene.in_force.of(9) == DEFAULT


@in_virtual_time
async def test_a_change_is_known_after_an_interval_and_called_out_once() -> None:
    scene = Scene()
    await scene.in_force.load()
    running = asyncio.create_task(scene.in_force.run())
    scene.source.documents.append(AGREED)
    await asyncio.sleep(INTERVAL_SECONDS - 0.1)
    assert (scene.in_force.of(7), scene.changes) == (DEFAULT, 0)
    await asyncio.sleep(3 * INTERVAL_SECONDS)
    assert (scene.in_force.of(7).budget_seconds, scene.changes) == (10 * DAY, 1)
    scene.source.documents.clear()
    await asyncio.sleep(INTERVAL_SECONDS)
    assert (scene.in_force.of(7), scene.changes) == (DEFAULT, 2)
    running.cancel()


@in_virtual_time
async def test_a_reading_that_fails_keeps_what_was_known() -> None:
    scene = Scene(AGREED)
    await scene.in_force.load()
    scene.source.is_away = True
    with capture_logs() as logs:
        running = asyncio.create_task(scene.in_force.run())
        await asyncio.sleep(2.5 * INTERVAL_SECONDS)
    assert [log["event"] for log in logs] == ["policies_read_failed"] * 2
    assert scene.in_force.of(7).budget_seconds == 10 * DAY
    assert not running.done()
    running.cancel()


async def test_the_first_reading_has_to_succeed() -> None:
    scene = Scene(AGREED)
    scene.source.is_away = True
    with pytest.raises(StoreUnavailableError):
        await scene.in_force.load()


async def test_a_malformed_policy_is_told_once_and_means_the_default_and_stops_no_other() -> None:
    scene = Scene({"_id": 5, "grace": {"volume": "7d"}}, AGREED)
    with capture_logs() as logs:
        await scene.in_force.load()
        await scene.in_force.load()
        scene.source.documents[0] = {"_id": 5, "grace": {"ship": 1}}
        await scene.in_force.load()
    assert [(log["event"], log["owner"]) for log in logs] == [("policy_malformed", 5)] * 2
    assert "volume is of type str" in logs[0]["reason"]
    assert "grace.ship is none of zdb, container, volume" in logs[1]["reason"]
    assert scene.in_force.of(5) == DEFAULT
    assert scene.in_force.of(7).budget_seconds == 10 * DAY


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"_id": 5}, "grace is missing"),
        ({"_id": 5, "grace": []}, "grace is missing, or no document"),
        ({"_id": 5, "grace": {"volume": -1}}, "volume is -1 s"),
        ({"_id": 5, "grace": {"volume": True}}, "volume is of type bool"),
        ({"_id": 5, "grace": {"volume": 1.5}}, "not a whole number"),
        ({"_id": 5, "grace": {"volume": 2**63}}, "does not fit"),
        ({"_id": 5, "grace": {"volume": 367 * DAY}}, f"not from 0 to {366 * DAY}"),
        ({"_id": 5, "grace": {"network": 1}}, "grace.network is none of"),
        ({"_id": 5, "grace": {}, "budget": "10d"}, "budget is of type str"),
        ({"_id": "5", "grace": {}}, "_id is of type str"),
        ({"_id": None, "grace": {}}, "_id is null"),
    ],
)
def test_what_decides_is_read_strictly(document: Mapping[str, Any], reason: str) -> None:
    found = policies_of([document])
    assert found.by_owner == {}
    assert [reason in each for each in found.malformed.values()] == [True]


def test_who_set_it_when_and_why_is_read_leniently_and_numbers_as_everywhere() -> None:
    document = {"_id": 7.0, "grace": {"volume": 7.0}, "budget": None, "reason": None, "by": 3, "at": "today", "more": 1}
    assert policies_of([document]).by_owner == {7: OwnerPolicy(7, {WorkloadType.VOLUME: 7}, None, "", "3", 0)}
