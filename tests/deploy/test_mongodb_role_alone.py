"""The role on a server that stands alone: an order that was put back too late must be taken off again."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from arithmetic_model import Document
from deadline import wait_until
from deploy.guarded_mongod import NAME, administered, daemons_uri, loner
from explorer import CONTAINER, Explorer
from fail_point import fail_point, times_entered
from ledger import DELETE
from pymongo import MongoClient

from pool_daemon.embedded import EmbeddedMongod
from pool_daemon.store.client import connect
from pool_daemon.store.vanished_orders import VanishedOrders

DELETED = 6


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedMongod]:
    async with loner(tmp_path_factory.mktemp("guarded")) as server:
        yield server


@pytest.fixture(scope="module")
def admin(guarded: EmbeddedMongod) -> Iterator[MongoClient[Document]]:
    with administered(guarded) as admin:
        yield admin


@pytest.fixture
def explorer(admin: MongoClient[Document]) -> Iterator[Explorer]:
    """Write to the only database that the role opens; nothing is in there before."""
    yield Explorer(database=admin[NAME])
    admin.drop_database(NAME)


@pytest_asyncio.fixture
async def orders(guarded: EmbeddedMongod) -> AsyncIterator[VanishedOrders]:
    """Be the daemon's user."""
    database = connect(uri=daemons_uri(guarded), name=NAME)
    yield VanishedOrders(database=database)
    database.close()


async def test_the_role_lets_an_order_be_taken_off_whose_workload_was_done_meanwhile(
    admin: MongoClient[Document], explorer: Explorer, orders: VanishedOrders
) -> None:
    (workload_id,) = explorer.buy_expired(CONTAINER, next_action=DELETE).workload_ids
    before = times_entered(admin)
    with fail_point(admin, "aggregate", blockConnection=True, blockTimeMS=300):  # the look behind the order
        putting_back = asyncio.create_task(orders.put_back(workload_id))
        await asyncio.to_thread(wait_until, lambda: times_entered(admin) > before, within_seconds=5, what="the look")
        assert explorer.orders.count_documents({"_id": workload_id}) == 1
        explorer.workloads.update_one({"_id": workload_id}, {"$set": {"next_action": DELETED}})
        assert await putting_back is None

    assert explorer.orders.count_documents({}) == 0
