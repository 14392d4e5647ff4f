"""One batch, on a real server: what it writes, and what it does when the world changes in the middle of it."""

import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC
from typing import Any

import pymongo
import pytest
import pytest_asyncio
from actors import ME, ROOMY
from arithmetic_model import Rates
from bson import Decimal128, Int64
from deadline import soonest_of
from explorer import CONTAINER, FREE, MISSING, PUBLIC_IP, VOLUME, Explorer, Purchase
from fail_point import fail_point
from meanwhile import Meanwhile
from pymongo import MongoClient
from waiting_build import waiting_build

from pool_daemon.clock import SystemClock
from pool_daemon.errors import StoreConflictError, StoreError, StoreUnavailableError
from pool_daemon.store import impact
from pool_daemon.store.cases import Limits, Settlement
from pool_daemon.store.client import CommandLog, Database, connect
from pool_daemon.store.decommissions import Decommissions
from pool_daemon.store.sessions import TRANSACTION_ATTEMPTS
from pool_daemon.store.workloads import WorkloadStore, deployed_workload

Client = MongoClient[dict[str, Any]]


@pytest_asyncio.fixture
async def database(mongo_uri: str, database_name: str) -> AsyncIterator[Database]:
    database = connect(uri=mongo_uri, name=database_name, timeout_seconds=5)
    yield database
    database.close()


def decommissions_of(database: Database) -> Decommissions:
    return Decommissions(database=database, clock=SystemClock(), actor=ME)


@pytest.fixture
def decommissions(database: Database) -> Decommissions:
    return decommissions_of(database)


def now() -> int:
    return int(time.time())


def assert_decommissioned(explorer: Explorer, workload_ids: list[int]) -> None:
    """Each has its one transition, its one order, which is the document itself, and its one record."""
    assert set(explorer.next_actions(workload_ids)) == {4}
    for workload_id in workload_ids:
        document = explorer.bytes_of(explorer.workloads, workload_id)
        assert explorer.bytes_of(explorer.orders, workload_id) == document
        assert explorer.events.count_documents({"workload_id": workload_id}) == 1


def assert_untouched(explorer: Explorer, workload_ids: list[int]) -> None:
    assert set(explorer.next_actions(workload_ids)) == {3}
    assert explorer.orders.count_documents({"_id": {"$in": workload_ids}}) == 0
    assert explorer.events.count_documents({"workload_id": {"$in": workload_ids}}) == 0


async def test_what_uses_an_exhausted_resource_goes_and_the_rest_stays(
    explorer: Explorer, decommissions: Decommissions
) -> None:
    pool = explorer.buy(Rates(0.5, 1e9, 0.5), [CONTAINER, VOLUME, PUBLIC_IP, FREE[0]], bought_at=now() - 3600)
    container, volume, address, free = pool.workload_ids
    settlement = await decommissions.settle([pool.pool_id], now=now(), limits=ROOMY)
    assert_decommissioned(explorer, [container, address])
    assert_untouched(explorer, [volume, free])
    assert {gone.workload_id: gone.resources for gone in settlement.decommissioned} == {
        container: ("cu",),
        address: ("ipv4u",),
    }


async def test_the_pool_is_asked_for_again_when_the_next_resource_runs_out(
    explorer: Explorer, decommissions: Decommissions
) -> None:
    moment = now()
    pool = explorer.buy(Rates(0.5, 5000, 0), [CONTAINER, VOLUME], bought_at=moment - 3600)
    settlement = await decommissions.settle([pool.pool_id], now=moment, limits=ROOMY)
    drained = sum(explorer.rates[workload].su for workload in pool.workload_ids)
    assert settlement.look_again == {pool.pool_id: moment - 3600 + int(5000 / drained)}


async def test_settling_again_finds_nothing_left_to_do(explorer: Explorer, decommissions: Decommissions) -> None:
    pool = explorer.buy_expired(CONTAINER)
    await decommissions.settle([pool.pool_id], now=now(), limits=ROOMY)
    saved = explorer.bytes_of(explorer.pools, pool.pool_id)
    again = await decommissions.settle([pool.pool_id], now=now() + 5, limits=ROOMY)
    assert again.decommissioned == []
    assert explorer.bytes_of(explorer.pools, pool.pool_id) == saved
    assert_decommissioned(explorer, pool.workload_ids)


@pytest.mark.parametrize(
    "missing",
    [("ipv4us", "active_ipv4", "sponsor_tid"), ("last_updated",), ("sus", "active_su", "customer_tid")],
    ids=str,
)
async def test_a_pool_of_an_old_explorer_is_settled_and_no_field_is_added(
    explorer: Explorer, decommissions: Decommissions, missing: tuple[str, ...]
) -> None:
    moment = now()
    pool = explorer.buy_expired(CONTAINER, **dict.fromkeys(missing, MISSING))
    before = explorer.pools.find_one({"_id": pool.pool_id}) or {}
    await decommissions.settle([pool.pool_id], now=moment, limits=ROOMY)
    assert_decommissioned(explorer, pool.workload_ids)
    after = explorer.pools.find_one({"_id": pool.pool_id}) or {}
    assert list(after) == list(before)
    assert after["cus"] == 0.0
    saved = explorer.bytes_of(explorer.pools, pool.pool_id)
    explorer.deploy(pool.workload_ids[0])
    await decommissions.settle([pool.pool_id], now=moment, limits=ROOMY)
    assert explorer.bytes_of(explorer.pools, pool.pool_id) == saved


@pytest.mark.parametrize("last_updated", [Int64(2**63 - 1), Int64(-(2**63)), 2**31 - 1, 1.5e9], ids=str)
async def test_a_pool_is_protected_whatever_its_last_update_says(
    explorer: Explorer, decommissions: Decommissions, last_updated: float
) -> None:
    pool = explorer.buy_expired(CONTAINER, last_updated=last_updated, cus=0.0, active_cu=0.0)
    await decommissions.settle([pool.pool_id], now=now(), limits=ROOMY)
    assert_decommissioned(explorer, pool.workload_ids)


async def test_an_order_takes_the_place_of_an_older_one_though_a_field_of_the_workload_begins_with_a_dollar(
    explorer: Explorer, decommissions: Decommissions
) -> None:
    pool = explorer.buy_expired(CONTAINER)
    (workload_id,) = pool.workload_ids
    explorer.workloads.delete_one({"_id": workload_id})
    explorer.workloads.insert_one(pool.workloads[0] | {"$top": {"$inner": ["$x"], "a.b": 1}, "": "$$ROOT"})
    explorer.orders.insert_one({"_id": workload_id, "next_action": 3, "stale": True})
    await decommissions.settle([pool.pool_id], now=now(), limits=ROOMY)
    assert_decommissioned(explorer, pool.workload_ids)


async def test_a_record_is_no_older_than_the_decision_when_the_clock_steps_back(
    explorer: Explorer, database: Database
) -> None:
    pool = explorer.buy_expired(CONTAINER)
    decided_at = now()

    class SteppedBack(SystemClock):
        def now(self) -> float:
            return super().now() - 3600

    stepped = Decommissions(database=database, clock=SteppedBack(), actor=ME)
    await stepped.settle([pool.pool_id], now=decided_at, limits=ROOMY)
    record = explorer.events.find_one({"workload_id": pool.workload_ids[0]})
    assert record is not None
    assert record["at"].replace(tzinfo=UTC).timestamp() == decided_at


async def test_a_pool_that_is_not_due_is_left_alone(explorer: Explorer, decommissions: Decommissions) -> None:
    pool = explorer.buy(Rates(100, 100, 0), [CONTAINER])
    settlement = await decommissions.settle([pool.pool_id, 404], now=now(), limits=ROOMY)
    assert list(settlement.cases) == []
    assert_untouched(explorer, pool.workload_ids)


async def during(uri: str, explorer: Explorer, pool: Purchase, command: str, act: Any) -> Settlement:
    """Settle a pool, and act before the daemon's first command of that name reaches the server."""
    meanwhile = Meanwhile(command, act)
    database = connect(uri=uri, name=explorer.database.name, listeners=[meanwhile])
    settlement = await decommissions_of(database).settle([pool.pool_id], now=now(), limits=ROOMY)
    database.close()
    assert meanwhile.acted
    return settlement


async def test_a_top_up_committed_between_reading_and_writing_keeps_every_workload(
    explorer: Explorer, mongo_uri: str
) -> None:
    pool = explorer.buy_expired(CONTAINER, VOLUME)
    await during(mongo_uri, explorer, pool, "aggregate", lambda: explorer.top_up(pool.pool_id, Rates(1e6, 1e6, 1e6)))
    assert_untouched(explorer, pool.workload_ids)


async def test_a_top_up_is_noticed_even_if_the_daemon_had_nothing_to_change_in_the_pool(
    explorer: Explorer, mongo_uri: str
) -> None:
    """A pool that is empty since this very second: syncing it again changes nothing, and yet it must be written."""
    pool = explorer.buy_expired(CONTAINER)
    explorer.pools.update_one({"_id": pool.pool_id}, {"$set": {"cus": 0.0, "sus": 0.0, "ipv4us": 0.0}})
    explorer.rewrite(pool.pool_id, lambda document: document.update(last_updated=now() + 60))
    await during(mongo_uri, explorer, pool, "aggregate", lambda: explorer.top_up(pool.pool_id, Rates(1e6, 1e6, 1e6)))
    assert_untouched(explorer, pool.workload_ids)


async def test_a_pool_empty_since_this_very_second_is_decommissioned_and_stays_as_it_is(
    explorer: Explorer, decommissions: Decommissions
) -> None:
    pool = explorer.buy_expired(CONTAINER)
    moment = now()
    explorer.pools.update_one(
        {"_id": pool.pool_id},
        {"$set": {"cus": 0.0, "sus": 0.0, "ipv4us": 0.0}, "$max": {"last_updated": moment, "empty_at": moment}},
    )
    saved = explorer.bytes_of(explorer.pools, pool.pool_id)
    await decommissions.settle([pool.pool_id], now=moment, limits=ROOMY)
    assert_decommissioned(explorer, pool.workload_ids)
    assert explorer.bytes_of(explorer.pools, pool.pool_id) == saved


async def test_a_workload_deleted_by_its_customer_meanwhile_is_not_decommissioned_too(
    explorer: Explorer, mongo_uri: str
) -> None:
    pool = explorer.buy_expired(CONTAINER, CONTAINER)
    theirs, other = pool.workload_ids
    await during(
        mongo_uri,
        explorer,
        pool,
        "update",
        lambda: explorer.workloads.update_one({"_id": theirs}, {"$set": {"next_action": 6}}),
    )
    assert explorer.next_action(theirs) == 6
    assert explorer.orders.count_documents({"_id": theirs}) == 0
    assert_decommissioned(explorer, [other])


@pytest.mark.parametrize(
    "answer_lost", [{"closeConnection": True}, {"errorCode": 6, "errorLabels": ["RetryableWriteError"]}]
)
async def test_a_commit_that_fails_once_is_repeated_and_happens_once(
    explorer: Explorer, mongo: Client, decommissions: Decommissions, answer_lost: dict[str, Any]
) -> None:
    pool = explorer.buy_expired(CONTAINER)
    with fail_point(mongo, "commitTransaction", **answer_lost):
        await decommissions.settle([pool.pool_id], now=now(), limits=ROOMY)
    assert_decommissioned(explorer, pool.workload_ids)


async def test_a_commit_whose_answer_never_comes_raises_and_settling_again_does_it_once(
    explorer: Explorer, mongo: Client, decommissions: Decommissions
) -> None:
    pool = explorer.buy_expired(CONTAINER)
    with (
        fail_point(mongo, "commitTransaction", mode="alwaysOn", closeConnection=True),
        pytest.raises(StoreUnavailableError),
    ):
        await decommissions.settle([pool.pool_id], now=now(), limits=ROOMY)
    await decommissions.settle([pool.pool_id], now=now(), limits=ROOMY)
    assert_decommissioned(explorer, pool.workload_ids)


async def test_a_commit_that_is_refused_leaves_nothing_locked(
    explorer: Explorer, mongo: Client, decommissions: Decommissions
) -> None:
    pool = explorer.buy_expired(CONTAINER)
    with fail_point(mongo, "commitTransaction", mode="alwaysOn", errorCode=8), pytest.raises(StoreError):
        await decommissions.settle([pool.pool_id], now=now(), limits=ROOMY)
    with pymongo.timeout(5):
        explorer.pools.update_one({"_id": pool.pool_id}, {"$set": {"x_note": 1}})
    assert_untouched(explorer, pool.workload_ids)


BYTES = 2**20


async def test_of_several_pools_those_that_do_not_fit_are_left_over_whole(
    explorer: Explorer, database: Database
) -> None:
    pools = [explorer.buy_expired(*[CONTAINER] * 3) for _ in range(3)]
    settlement = await decommissions_of(database).settle(
        [pool.pool_id for pool in pools], now=now(), limits=Limits(workloads=5, size=BYTES)
    )
    assert settlement.left_over == [pool.pool_id for pool in pools[1:]]
    assert_decommissioned(explorer, pools[0].workload_ids)
    for pool in pools[1:]:
        assert_untouched(explorer, pool.workload_ids)


async def test_a_protected_pool_that_would_lose_something_stays_as_it_is_and_the_others_go(
    explorer: Explorer, database: Database
) -> None:
    """One of them has nothing to lose, so it is synced; large documents of what is withheld take no room of others."""
    withheld = explorer.buy(Rates(1000, 1e9, 0), [CONTAINER] * 3, bought_at=now() - 3600)
    empty, other = (explorer.buy_expired(*[CONTAINER] * number) for number in (1, 2))
    lengthen(explorer, withheld.workload_ids, size=BYTES)
    explorer.workloads.update_many({"_id": {"$in": empty.workload_ids}}, {"$set": {"next_action": 4}})
    ids = [pool.pool_id for pool in (withheld, empty, other)]
    settlement = await decommissions_of(database).settle(
        ids, now=now(), limits=Limits(workloads=100, size=BYTES, protected=frozenset(ids[:2]))
    )
    [pool] = settlement.withheld
    assert (pool.pool_id, pool.owner, pool.workloads) == (ids[0], withheld.document["customer_tid"], 3)
    assert (pool.empty_at, pool.synced) == (withheld.empty_at, False)
    assert settlement.settled_of(ids) == ids[1:]
    assert explorer.pools.find_one({"_id": ids[0]}) == withheld.document
    assert_untouched(explorer, withheld.workload_ids)
    assert_decommissioned(explorer, other.workload_ids)


@pytest.mark.parametrize("lasting", [0, 12])
async def test_a_protected_pool_of_which_only_a_part_fits_is_withheld_with_all_that_is_deployed(
    explorer: Explorer, database: Database, lasting: int
) -> None:
    pool = explorer.buy(Rates(0.5, 1e9, 0), [*[VOLUME] * lasting, *[CONTAINER] * 13], bought_at=now() - 3600)
    limits = Limits(workloads=5, size=BYTES, protected=frozenset([pool.pool_id]))
    portions = await settle_in_portions(decommissions_of(database), pool, limits)
    assert len(portions) == 1 + lasting // 5
    assert [(each.pool_id, each.workloads) for each in portions[-1].withheld] == [(pool.pool_id, lasting + 13)]
    assert portions[-1].settled_of([pool.pool_id]) == []
    assert_untouched(explorer, pool.workload_ids)


async def test_an_evaluation_counts_what_would_go_however_many_portions_it_is_read_in(
    explorer: Explorer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(impact, "PORTION", Limits(workloads=2, size=1))
    pools = [explorer.buy(Rates(0.5, 1e9, 0), [*[CONTAINER] * 5, VOLUME], bought_at=now() - 3600) for _ in range(3)]
    lasting = explorer.buy(Rates(1e9, 1e9, 0), [CONTAINER])
    ids = [pool.pool_id for pool in (*pools, lasting)]
    assert await impact.ImpactReader(database=database).of(ids, now=now()) == dict.fromkeys(ids[:3], 5)
    assert_untouched(explorer, [workload_id for pool in pools for workload_id in pool.workload_ids])


async def settle_in_portions(decommissions: Decommissions, pool: Purchase, limits: Limits) -> list[Settlement]:
    """Settle a pool until nothing of it is left."""
    portions = [await decommissions.settle([pool.pool_id], now=now(), limits=limits)]
    while (rest := portions[-1].rest) is not None:
        assert rest.pool_id == pool.pool_id
        portions.append(await decommissions.settle([pool.pool_id], now=now(), limits=limits, after=rest.after))
    return portions


async def test_one_pool_with_more_workloads_than_a_batch_holds_is_done_in_steps_even_if_the_first_ones_stay(
    explorer: Explorer, database: Database
) -> None:
    pool = explorer.buy(Rates(0.5, 1e9, 0), [*[VOLUME] * 12, *[CONTAINER] * 13], bought_at=now() - 3600)
    portions = await settle_in_portions(decommissions_of(database), pool, Limits(workloads=5, size=BYTES))
    assert len(portions) == 5
    assert_untouched(explorer, pool.workload_ids[:12])
    assert_decommissioned(explorer, pool.workload_ids[12:])


async def test_free_workloads_are_not_even_looked_at(explorer: Explorer, database: Database) -> None:
    pool = explorer.buy_expired(*[FREE[0]] * 12, *[CONTAINER] * 3)
    portions = await settle_in_portions(decommissions_of(database), pool, Limits(workloads=5, size=BYTES))
    assert len(portions) == 1
    assert_untouched(explorer, pool.workload_ids[:12])
    assert_decommissioned(explorer, pool.workload_ids[12:])


def lengthen(explorer: Explorer, workload_ids: list[int], *, size: int) -> None:
    """Have workloads carry a description of so many bytes."""
    explorer.workloads.update_many({"_id": {"$in": workload_ids}}, {"$set": {"description": "x" * size}})


async def test_a_pool_of_large_workloads_goes_in_portions_of_so_many_bytes(
    explorer: Explorer, database: Database
) -> None:
    pool = explorer.buy_expired(*[CONTAINER] * 7)
    lengthen(explorer, pool.workload_ids, size=300_000)
    portions = await settle_in_portions(decommissions_of(database), pool, Limits(workloads=100, size=BYTES))
    assert [len(portion.decommissioned) for portion in portions] == [3, 3, 1]
    assert_decommissioned(explorer, pool.workload_ids)


async def test_a_workload_larger_than_a_portion_goes_alone(explorer: Explorer, database: Database) -> None:
    pool = explorer.buy_expired(*[CONTAINER] * 2)
    lengthen(explorer, pool.workload_ids, size=15_000_000)
    portions = await settle_in_portions(decommissions_of(database), pool, Limits(workloads=100, size=BYTES))
    assert [len(portion.decommissioned) for portion in portions] == [1, 1]
    assert_decommissioned(explorer, pool.workload_ids)


@pytest.mark.parametrize("size", [100_000, BYTES])
async def test_a_pool_of_large_workloads_is_left_over_by_the_others_and_goes_by_itself(
    explorer: Explorer, database: Database, size: int
) -> None:
    """They do not wait until megabytes are read a second time, to be copied."""
    pools = [explorer.buy_expired(CONTAINER) for _ in range(3)]
    large = pools[1]
    lengthen(explorer, large.workload_ids, size=size)
    limits = Limits(workloads=100, size=BYTES)
    settlement = await decommissions_of(database).settle([each.pool_id for each in pools], now=now(), limits=limits)
    assert settlement.left_over == [large.pool_id]
    assert settlement.look_again == {}
    assert_decommissioned(explorer, [*pools[0].workload_ids, *pools[2].workload_ids])
    assert_untouched(explorer, large.workload_ids)
    await decommissions_of(database).settle(settlement.left_over, now=now(), limits=limits)
    assert_decommissioned(explorer, large.workload_ids)


async def test_of_a_large_workload_only_what_is_decided_on_is_read_before_it_goes(
    explorer: Explorer, database: Database
) -> None:
    pool = explorer.buy(Rates(1e6, 1e6, 0), [CONTAINER])
    lengthen(explorer, pool.workload_ids, size=1_000_000)
    explorer.workloads.update_many({}, {"$set": {"node_id": "n" * 1_000_000}})
    (raw,) = await WorkloadStore(database=database).deployed([pool.pool_id], limit=10)
    assert len(raw.raw) < 2000
    workload = deployed_workload(raw)
    assert workload.size > 2_000_000
    assert workload.order is None
    assert workload.document["capcity"] == explorer.stored(explorer.workloads, pool.workload_ids[0])["capcity"]


async def test_a_pool_with_megabytes_of_nodes_and_ids_is_read_without_them(
    explorer: Explorer, decommissions: Decommissions
) -> None:
    pool = explorer.buy_expired(CONTAINER)
    grown = {"node_ids": ["n" * 1000] * 8000, "active_workload_ids": list(range(10**9, 10**9 + 200_000))}
    explorer.pools.update_one({"_id": pool.pool_id}, {"$set": grown})
    before = explorer.bytes_by_id("capacity-pools")[pool.pool_id]
    settlement = await decommissions.settle([pool.pool_id], now=now(), limits=ROOMY)
    assert settlement.cases[0].as_read.node_ids is None
    assert_decommissioned(explorer, pool.workload_ids)
    assert len(explorer.bytes_by_id("capacity-pools")[pool.pool_id]) == len(before)


async def test_an_older_order_of_a_workload_with_a_dollar_sign_is_replaced_too(
    explorer: Explorer, decommissions: Decommissions
) -> None:
    pool = explorer.buy_expired(CONTAINER)
    (workload_id,) = pool.workload_ids
    document = explorer.stored(explorer.workloads, workload_id)
    explorer.workloads.delete_one({"_id": workload_id})
    explorer.workloads.insert_one({**document, "$odd": {"$set": "$literal"}})
    explorer.orders.insert_one({"_id": workload_id, "next_action": 3})
    await decommissions.settle([pool.pool_id], now=now(), limits=ROOMY)
    assert_decommissioned(explorer, [workload_id])


async def test_a_pool_at_the_end_of_all_time_loses_its_workloads(
    explorer: Explorer, decommissions: Decommissions
) -> None:
    pool = explorer.buy_expired(CONTAINER)
    explorer.pools.update_one({"_id": pool.pool_id}, {"$set": {"cus": 0.0, "last_updated": Int64(2**63 - 1)}})
    before = explorer.bytes_of(explorer.pools, pool.pool_id)
    await decommissions.settle([pool.pool_id], now=now(), limits=ROOMY)
    assert_decommissioned(explorer, pool.workload_ids)
    assert explorer.bytes_of(explorer.pools, pool.pool_id) == before


async def test_a_field_that_a_pool_lacks_is_zero_and_stays_missing(
    explorer: Explorer, decommissions: Decommissions
) -> None:
    pool = explorer.buy_expired(CONTAINER)
    lacking = ("ipv4us", "active_ipv4", "sponsor_tid", "sus", "active_su")
    explorer.pools.update_one({"_id": pool.pool_id}, {"$unset": dict.fromkeys(lacking, "")})
    before = explorer.stored(explorer.pools, pool.pool_id)
    await decommissions.settle([pool.pool_id], now=now(), limits=ROOMY)
    assert_decommissioned(explorer, pool.workload_ids)
    assert set(explorer.stored(explorer.pools, pool.pool_id)) == set(before)


async def test_what_another_transaction_has_written_is_given_up_in_milliseconds(
    explorer: Explorer, decommissions: Decommissions, mongo: Client
) -> None:
    pool = explorer.buy_expired(CONTAINER)

    async def took() -> float:
        began_at = time.monotonic()
        with pytest.raises(StoreConflictError):
            await decommissions.settle([pool.pool_id], now=now(), limits=ROOMY)
        return time.monotonic() - began_at

    with mongo.start_session() as session, session.start_transaction():
        explorer.pools.update_one({"_id": pool.pool_id}, {"$set": {"x_note": 1}}, session=session)
        await soonest_of(took, within_seconds=0.5, what="what is locked to be given up")
        session.abort_transaction()
    await decommissions.settle([pool.pool_id], now=now(), limits=ROOMY)
    assert_decommissioned(explorer, pool.workload_ids)


async def settled_though_refused(
    uri: str, explorer: Explorer, pool: Purchase, react: Callable[[list[str]], None]
) -> list[str]:
    """Settle a pool; return the names of the commands that were refused meanwhile.

    `react` is called with those so far, at each of them, before its error is raised: it ends what the pool waits for.
    """
    refused: list[str] = []

    def finished(name: str, seconds: float, /, *, failed: bool) -> None:
        del seconds
        if failed and name != "abortTransaction":
            refused.append(name)
            react(refused)

    database = connect(uri=uri, name=explorer.database.name, listeners=[CommandLog(finished)])
    await decommissions_of(database).settle([pool.pool_id], now=now(), limits=ROOMY)
    database.close()
    assert_decommissioned(explorer, pool.workload_ids)
    return refused


@pytest.mark.parametrize("conflicts", range(1, TRANSACTION_ATTEMPTS))
async def test_a_batch_that_loses_to_a_writer_who_is_soon_done_is_begun_again_at_once(
    explorer: Explorer, mongo: Client, mongo_uri: str, conflicts: int
) -> None:
    pool = explorer.buy_expired(CONTAINER)
    with mongo.start_session() as session, session.start_transaction():
        explorer.pools.update_one({"_id": pool.pool_id}, {"$set": {"x_note": 1}}, session=session)

        def commit_once_met(refused: list[str]) -> None:
            if len(refused) == conflicts:
                session.commit_transaction()

        refused = await settled_though_refused(mongo_uri, explorer, pool, commit_once_met)
    assert refused == ["update"] * conflicts
    assert explorer.stored(explorer.pools, pool.pool_id)["x_note"] == 1


async def test_a_collection_that_an_index_build_locks_for_moments_is_waited_for(
    explorer: Explorer, mongo: Client, mongo_uri: str
) -> None:
    """More attempts are refused than another writer is given."""
    pool = explorer.buy_expired(CONTAINER)
    with waiting_build(mongo, explorer.workloads) as build:

        def let_build(refused: list[str]) -> None:
            if len(refused) == TRANSACTION_ATTEMPTS + 1:
                build.abort_transaction()

        refused = await settled_though_refused(mongo_uri, explorer, pool, let_build)
    assert len(refused) > TRANSACTION_ATTEMPTS


async def test_what_a_locked_collection_refuses_is_no_conflict_with_another_writer(
    explorer: Explorer, mongo: Client, mongo_uri: str
) -> None:
    """An index build ends, and then a writer is met who is soon done: that is the first conflict, and not the last."""
    pool = explorer.buy_expired(CONTAINER)
    with waiting_build(mongo, explorer.workloads) as build, mongo.start_session() as writer, writer.start_transaction():
        explorer.pools.update_one({"_id": pool.pool_id}, {"$set": {"x_note": 1}}, session=writer)

        def let_build_and_commit_once_met(refused: list[str]) -> None:
            if len(refused) == TRANSACTION_ATTEMPTS:
                build.abort_transaction()
            elif refused[-1] == "update" and writer.in_transaction:
                writer.commit_transaction()

        refused = await settled_though_refused(mongo_uri, explorer, pool, let_build_and_commit_once_met)
    assert "update" not in refused[:TRANSACTION_ATTEMPTS]
    assert refused.count("update") == 1
    assert explorer.stored(explorer.pools, pool.pool_id)["x_note"] == 1


async def test_a_collection_that_stays_locked_is_no_pool_s_fault(
    explorer: Explorer, mongo: Client, decommissions: Decommissions
) -> None:
    pool = explorer.buy_expired(CONTAINER)
    with waiting_build(mongo, explorer.workloads), pytest.raises(StoreUnavailableError):
        await decommissions.settle([pool.pool_id], now=now(), limits=ROOMY)
    assert_untouched(explorer, pool.workload_ids)


async def test_a_duplicate_that_stays_is_no_matter_of_who_was_faster(
    explorer: Explorer, decommissions: Decommissions
) -> None:
    pool = explorer.buy_expired(CONTAINER)
    explorer.orders.create_index("node_id", unique=True)
    node_id = explorer.stored(explorer.workloads, pool.workload_ids[0])["node_id"]
    explorer.orders.insert_one({"_id": "another", "node_id": node_id})
    with pytest.raises(StoreError) as raised:
        await decommissions.settle([pool.pool_id], now=now(), limits=ROOMY)
    assert not isinstance(raised.value, StoreConflictError)
    assert_untouched(explorer, pool.workload_ids)


async def test_an_older_order_is_replaced_and_the_others_of_the_batch_are_not_held_up(
    explorer: Explorer, decommissions: Decommissions
) -> None:
    pools = [explorer.buy_expired(CONTAINER) for _ in range(3)]
    workload_ids = [pool.workload_ids[0] for pool in pools]
    explorer.orders.insert_one({"_id": workload_ids[1], "next_action": 3, "left": "over"})
    await decommissions.settle([pool.pool_id for pool in pools], now=now(), limits=ROOMY)
    assert_decommissioned(explorer, workload_ids)


async def test_a_workload_that_is_deployed_again_and_goes_again_at_the_same_end_leaves_a_record_each_time(
    explorer: Explorer, decommissions: Decommissions
) -> None:
    pool = explorer.buy_expired(CONTAINER)
    (workload_id,) = pool.workload_ids
    await decommissions.settle([pool.pool_id], now=now(), limits=ROOMY)
    explorer.workloads.update_one({"_id": workload_id}, {"$set": {"next_action": 3}})
    await decommissions.settle([pool.pool_id], now=now(), limits=ROOMY)
    explorer.workloads.update_one({"_id": workload_id}, {"$set": {"next_action": 3}})
    await decommissions.settle([pool.pool_id], now=now(), limits=ROOMY)
    assert explorer.next_actions([workload_id]) == [4]
    assert explorer.events.count_documents({"workload_id": workload_id}) == 3


async def test_the_portions_of_a_pool_leave_out_no_id_whatever_its_type(
    explorer: Explorer, decommissions: Decommissions
) -> None:
    pool = explorer.buy_expired(CONTAINER)
    ids: list[Any] = [1, 2, 3, "a", "b", {"of": "fields"}]
    explorer.workloads.insert_many([explorer.new_workload(pool.pool_id, CONTAINER) | {"_id": each} for each in ids])
    await settle_in_portions(decommissions, pool, Limits(workloads=2, size=BYTES))
    assert explorer.workloads.count_documents({"pool_id": pool.pool_id, "next_action": 4}) == len(ids) + 1
    assert explorer.events.count_documents({}) == len(ids) + 1


@pytest.mark.parametrize("size", [0, 10_000])
async def test_workloads_whose_pool_id_is_an_array_are_reported_and_cut_no_portion_short(
    size: int, explorer: Explorer, decommissions: Decommissions
) -> None:
    """An array matches each number in it and sorts by its least one: before and among the workloads of the pool."""
    kept = explorer.buy_expired(*[CONTAINER] * 3)
    pool = explorer.buy_expired(*[CONTAINER] * 3)
    arrays = [[pool.pool_id], [-1, pool.pool_id], [pool.pool_id] * 300, [kept.pool_id, pool.pool_id]]
    foreign = [explorer.new_workload(0, CONTAINER) | {"pool_id": array, "note": "x" * size} for array in arrays]
    last = explorer.new_workload(pool.pool_id, CONTAINER)
    explorer.workloads.insert_many([*foreign, last])
    portions = await settle_in_portions(decommissions, pool, Limits(workloads=2, size=BYTES))
    assert_decommissioned(explorer, [*pool.workload_ids, last["_id"]])
    assert_untouched(explorer, [*kept.workload_ids, *(each["_id"] for each in foreign)])
    assert any(portion.unreadable for portion in portions)
    settlement = await decommissions.settle([pool.pool_id], now=now(), limits=ROOMY)
    assert {each.document_id for each in settlement.unreadable} == {each["_id"] for each in foreign}


async def test_a_workload_whose_pool_id_is_an_array_leaves_over_no_pool_of_a_batch(
    explorer: Explorer, decommissions: Decommissions
) -> None:
    pools = [explorer.buy_expired(*[CONTAINER] * 2) for _ in range(3)]
    ids = [pool.pool_id for pool in pools]
    foreign = explorer.new_workload(0, CONTAINER) | {"pool_id": [-1, *ids]}
    explorer.workloads.insert_one(foreign)
    settlement = await decommissions.settle(ids, now=now(), limits=Limits(workloads=4, size=BYTES))
    assert settlement.left_over == ids[2:]
    assert_decommissioned(explorer, [*pools[0].workload_ids, *pools[1].workload_ids])
    assert_untouched(explorer, [foreign["_id"], *pools[2].workload_ids])
    assert [each.document_id for each in settlement.unreadable] == [foreign["_id"]]


async def test_the_pools_of_workloads_are_found_whatever_number_they_are_stored_as(
    explorer: Explorer, database: Database
) -> None:
    documents = [
        explorer.new_workload(1, CONTAINER) | {"pool_id": pool_id} for pool_id in (1, 2.0, "3", Decimal128("4"))
    ]
    explorer.workloads.insert_many(documents)
    workloads = WorkloadStore(database=database)
    assert set(await workloads.pools_of([document["_id"] for document in documents])) == {1, 2, 4}
    assert await workloads.deploying([1, 2, 3, 4]) == {1, 2, 4}


async def test_more_ids_than_one_command_could_hold_are_asked_for_in_several(database: Database) -> None:
    assert await WorkloadStore(database=database).pools_of(range(1_200_000)) == []
