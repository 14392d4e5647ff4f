"""One bad document stops nothing: it is left as it is and named in the log, and all others go on."""

from collections.abc import Iterator
from typing import Any

import pytest
from arithmetic_model import NEVER, Rates
from bson import Decimal128, Int64, encode
from bson.datetime_ms import DatetimeMS
from bson.raw_bson import RawBSONDocument
from daemon_process import DaemonProcess, running_daemon
from explorer import CONTAINER, MISSING, VOLUME, Explorer, Kind, Purchase
from ledger import Ledger

AT_ONCE_SECONDS = 10
"""Patience of a slow machine: what is not done at once waits for a minute."""

UNREADABLE_POOLS: dict[str, dict[str, Any]] = {
    "empty_at is a string": {"empty_at": "tomorrow"},
    "empty_at is not a number": {"empty_at": float("nan")},
    "empty_at is infinite": {"empty_at": float("-inf")},
    "empty_at is null": {"empty_at": None},
    "empty_at is missing": {"empty_at": MISSING},
    "cus is a string": {"cus": "lots"},
    "cus is not a number": {"cus": float("nan")},
    "cus is infinite": {"cus": float("inf")},
    "last_updated is an object": {"last_updated": {"seconds": 1}},
    "last_updated is not whole": {"last_updated": 1.5},
    "active_workload_ids is a string": {"active_workload_ids": "1,2,3"},
    "node_ids holds numbers": {"node_ids": [1, 2]},
}

UNREADABLE_WORKLOADS: dict[str, Kind] = {
    "its type is unknown": Kind(99, {}, Rates()),
    "its type is a string": Kind(1, {"workload_type": "container"}, Rates()),
    "its type is null": Kind(1, {"workload_type": None}, Rates()),
    "its capacity is a list": Kind(1, {"capcity": [2, 4096]}, Rates()),
    "its processors are a word": Kind(
        1, {"capcity": {"cpu": "two", "memory": 4096, "disk_size": 0, "disk_type": 1}}, Rates()
    ),
    "its memory is not a number": Kind(
        1, {"capcity": {"cpu": 2, "memory": float("nan"), "disk_size": 0, "disk_type": 1}}, Rates()
    ),
    "it is a volume of no known disk": Kind(2, {"size": Int64(10), "type": 7}, Rates()),
    "it is a zdb of endless size": Kind(0, {"size": float("inf"), "disk_type": 1}, Rates()),
    "its size is unknown": Kind(4, {"size": Int64(99)}, Rates()),
    "its custom size is a list": Kind(12, {"size": Int64(-1), "custom_size": [1, 2, 3]}, Rates()),
}


@pytest.fixture(scope="module")
def unreadable_pools(explorer: Explorer) -> dict[str, Purchase]:
    """Make every unreadable pool before the daemon starts; each counts a workload that runs."""
    return {name: explorer.buy_expired(CONTAINER, **fields) for name, fields in UNREADABLE_POOLS.items()}


@pytest.fixture(scope="module", autouse=True)
def daemon(
    mongo_uri: str, explorer: Explorer, ledger: Ledger, unreadable_pools: dict[str, Purchase]
) -> Iterator[DaemonProcess]:
    """Run one daemon for the whole module, on a database that is bad when it starts."""
    assert unreadable_pools
    with running_daemon(uri=mongo_uri, database_name=explorer.database.name) as daemon:
        ledger.settle()
        yield daemon
    assert ledger.violations_of_i1() == []
    assert ledger.violations_of_i2() == []


@pytest.mark.parametrize("name", UNREADABLE_POOLS)
def test_an_unreadable_pool_is_named_and_left_alone(
    explorer: Explorer,
    ledger: Ledger,
    daemon: DaemonProcess,
    unreadable_pools: dict[str, Purchase],
    name: str,
) -> None:
    pool = unreadable_pools[name]

    ledger.settle()

    assert explorer.bytes_of(explorer.pools, pool.pool_id) == encode(pool.document)
    ledger.assert_untouched(pool.workload_ids)
    daemon.wait_for_mention(pool.pool_id)


@pytest.mark.parametrize("fields", [{"cus": "lots"}, {"cus": float("nan")}, {"active_cu": None}], ids=str)
def test_a_pool_that_is_inserted_unreadable_is_named_and_left_alone(
    explorer: Explorer, ledger: Ledger, daemon: DaemonProcess, fields: dict[str, Any]
) -> None:
    pool = explorer.buy_expired(CONTAINER, **fields)

    ledger.settle()

    assert explorer.bytes_of(explorer.pools, pool.pool_id) == encode(pool.document)
    ledger.assert_untouched(pool.workload_ids)
    daemon.wait_for_mention(pool.pool_id)


@pytest.mark.parametrize("name", UNREADABLE_WORKLOADS)
def test_a_workload_of_unknown_units_is_named_and_keeps_running(
    explorer: Explorer, ledger: Ledger, daemon: DaemonProcess, name: str
) -> None:
    pool = explorer.buy_expired(UNREADABLE_WORKLOADS[name], CONTAINER)
    unreadable, container = pool.workload_ids
    before = explorer.bytes_of(explorer.workloads, unreadable)

    ledger.wait_for_decommissions([container], within_seconds=AT_ONCE_SECONDS)

    ledger.assert_untouched([unreadable])
    assert explorer.bytes_of(explorer.workloads, unreadable) == before
    daemon.wait_for_mention(unreadable)


@pytest.mark.parametrize("empty_at", [NEVER, NEVER - 1, 10**15, 253_402_300_800])
def test_a_pool_that_lasts_beyond_every_calendar_delays_nobody(
    explorer: Explorer, ledger: Ledger, empty_at: int
) -> None:
    pool = explorer.buy(Rates(cu=1e300), [CONTAINER], empty_at=Int64(empty_at))

    ledger.settle()

    assert explorer.bytes_of(explorer.pools, pool.pool_id) == encode(pool.document)
    ledger.assert_untouched(pool.workload_ids)


@pytest.mark.parametrize("empty_at", [0, -1, -(2**63)])
def test_a_pool_that_ended_before_all_time_goes_at_once(explorer: Explorer, ledger: Ledger, empty_at: int) -> None:
    pool = explorer.buy_expired(CONTAINER, empty_at=Int64(empty_at))

    ledger.wait_for_decommissions(pool.workload_ids, within_seconds=AT_ONCE_SECONDS)


@pytest.mark.parametrize("next_action", [[3], [4, 3], Decimal128("3")], ids=str)
def test_a_workload_whose_next_action_is_no_whole_number_keeps_running(
    explorer: Explorer, ledger: Ledger, next_action: Any
) -> None:
    """To MongoDB an array that holds a number matches it, and one decimal equals another."""
    pool = explorer.buy_expired(CONTAINER, next_action=next_action)
    explorer.rates |= dict.fromkeys(pool.workload_ids, Rates())

    ledger.settle()

    ledger.assert_untouched(pool.workload_ids, next_action=next_action)


def test_a_workload_whose_pool_does_not_exist_keeps_running(explorer: Explorer, ledger: Ledger) -> None:
    orphan = explorer.new_workload(404, CONTAINER)
    explorer.workloads.insert_one(orphan)

    ledger.settle()

    ledger.assert_untouched([orphan["_id"]])
    assert explorer.bytes_of(explorer.workloads, orphan["_id"]) == encode(orphan)


def test_a_pool_that_lists_workloads_that_do_not_exist_goes(explorer: Explorer, ledger: Ledger) -> None:
    ghosts = [Int64(404), Int64(-1), Int64(404)]
    pool = explorer.buy_expired(CONTAINER, VOLUME, active_workload_ids=ghosts)

    ledger.wait_for_decommissions(pool.workload_ids, within_seconds=AT_ONCE_SECONDS)

    assert (explorer.pools.find_one({"_id": pool.pool_id}) or {})["active_workload_ids"] == ghosts
    assert list(explorer.orders.find({"_id": {"$in": [404, -1]}})) == []


@pytest.mark.parametrize(
    "workload_bytes",
    [
        pytest.param(lambda workload: encode(workload | {"expires": DatetimeMS(2**60)}), id="date"),
        pytest.param(lambda workload: encode(workload).replace(b"2cad", b"\xff\xfe\xc0\x80"), id="text"),
    ],
)
def test_a_workload_that_python_cannot_decode_is_ordered_byte_for_byte(
    explorer: Explorer, ledger: Ledger, workload_bytes: Any
) -> None:
    """Go writes dates beyond Python's calendar and strings that are no UTF-8; neither is our concern."""
    pool = explorer.buy_expired(CONTAINER, next_action=6)
    workload = explorer.new_workload(pool.pool_id, CONTAINER)
    before = workload_bytes(workload)
    explorer.workloads.insert_one(RawBSONDocument(before))

    ledger.wait_for_decommissions([workload["_id"]], within_seconds=AT_ONCE_SECONDS)

    order = explorer.bytes_of(explorer.orders, workload["_id"])
    assert order == before.replace(b"\x10next_action\x00\x03", b"\x10next_action\x00\x04")
