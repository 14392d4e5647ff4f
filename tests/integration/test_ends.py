"""The ends of pools in an outbox that refuses them: on a real server, with the answers that it really gives."""

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from actors import ME, ROOMY
from arithmetic_model import Document, Rates
from explorer import CONTAINER, Explorer
from fail_point import fail_point
from pymongo import MongoClient
from pymongo.monitoring import CommandListener, CommandStartedEvent

from pool_daemon.errors import StoreUnavailableError
from pool_daemon.store.client import Database, connect
from pool_daemon.store.decommissions import Decommissions
from pool_daemon.store.ends import OFF_SECONDS, Ends
from pool_daemon.store.outbox import OUTBOX, Outbox
from pool_daemon.store.setup import setup

AN_HOUR = 3600


class Clock:
    """This machine's clock, a while ahead."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


class Told:
    """What is told of ends."""

    def __init__(self) -> None:
        self.untold: list[tuple[int, str]] = []
        self.times_told = 0

    def ends_untold(self, pools: int, *, reason: str) -> None:
        self.untold.append((pools, reason))

    def ends_told(self) -> None:
        self.times_told += 1


class Tries(CommandListener):
    """Counts what is tried to be written to the outbox."""

    def __init__(self) -> None:
        self.inserts = 0

    def started(self, event: CommandStartedEvent) -> None:
        self.inserts += event.command.get("insert") == OUTBOX

    def succeeded(self, event: object) -> None:
        """Go on."""

    def failed(self, event: object) -> None:
        """Go on."""


class Scene:
    """Decommissions with an outbox, on a database in which `explorer` writes."""

    def __init__(self, explorer: Explorer, uri: str) -> None:
        self.explorer = explorer
        self.clock, self.told, self.tries = Clock(), Told(), Tries()
        self.database: Database = connect(uri=uri, name=explorer.database.name, listeners=[self.tries])
        outbox = Outbox(database=self.database, receivers=[], keep_seconds=AN_HOUR)
        ends = Ends(outbox=outbox, clock=self.clock, observer=self.told)
        self.decommissions = Decommissions(database=self.database, clock=self.clock, actor=ME, ends=ends)

    async def end_one(self) -> bool:
        """Have one pool run empty and settled; return whether its workload went, with its order and its record."""
        pool = self.explorer.buy(Rates(cu=60), [CONTAINER], bought_at=int(time.time()) - AN_HOUR)
        (workload_id,) = pool.workload_ids
        await self.decommissions.settle([pool.pool_id], now=int(time.time()), limits=ROOMY)
        order = self.explorer.orders.find_one({"_id": workload_id})
        record = self.explorer.events.find_one({"workload_id": workload_id})
        return self.explorer.next_actions([workload_id]) == [4] and None not in (order, record)

    @property
    def events(self) -> list[Document]:
        return list(self.explorer.database[OUTBOX].find())


@pytest_asyncio.fixture
async def scene(mongo_uri: str, mongo: MongoClient[Document], database_name: str) -> AsyncIterator[Scene]:
    scene = Scene(Explorer(database=mongo[database_name]), mongo_uri)
    await setup(scene.database)
    mongo[database_name].create_collection(OUTBOX)
    yield scene
    scene.database.close()


def _forbid_all(scene: Scene) -> None:
    scene.explorer.database.command("collMod", OUTBOX, validator={"allowed": True})


def _permit_all(scene: Scene) -> None:
    scene.explorer.database.command("collMod", OUTBOX, validator={})


def _permit_one_event(scene: Scene) -> None:
    scene.explorer.database[OUTBOX].create_index("receiver", unique=True)
    scene.explorer.database[OUTBOX].insert_one({"receiver": None})


def _be_a_view(scene: Scene) -> None:
    scene.explorer.database[OUTBOX].drop()
    scene.explorer.database.create_collection(OUTBOX, viewOn="capacity-pools", pipeline=[])


@pytest.mark.parametrize("refuse", [_forbid_all, _permit_one_event, _be_a_view])
async def test_a_pool_ends_at_once_though_the_outbox_refuses_what_is_told_of_it(scene: Scene, refuse: Any) -> None:
    refuse(scene)
    assert await scene.end_one()
    ((pools, reason),) = scene.told.untold
    assert pools == 1
    assert reason.startswith("writing to the outbox: ")


async def test_an_outbox_that_refuses_is_left_alone_for_a_while_and_then_tried_once(scene: Scene) -> None:
    _forbid_all(scene)
    assert [await scene.end_one() for _ in range(4)] == [True] * 4
    assert (scene.tries.inserts, len(scene.told.untold)) == (1, 4)

    scene.clock.ahead += OFF_SECONDS
    assert [await scene.end_one() for _ in range(4)] == [True] * 4
    assert (scene.tries.inserts, len(scene.told.untold), scene.told.times_told) == (2, 8, 0)


async def test_an_outbox_that_takes_events_again_gets_all_that_follows(scene: Scene) -> None:
    _forbid_all(scene)
    await scene.end_one()
    _permit_all(scene)
    scene.clock.ahead += OFF_SECONDS
    for _ in range(2):
        await scene.end_one()
    assert (scene.told.times_told, len(scene.told.untold)) == (2, 1)
    assert sorted(each["event"]["type"] for each in scene.events) == [
        *["pool.exhausted"] * 2,
        *["workloads.decommissioned"] * 2,
    ]


async def test_a_connection_that_breaks_is_no_refusal_and_loses_no_event(
    scene: Scene, mongo: MongoClient[Document]
) -> None:
    outbox = f"{scene.database.name}.{OUTBOX}"
    with (
        fail_point(mongo, "insert", mode={"times": 20}, closeConnection=True, namespace=outbox),
        pytest.raises(StoreUnavailableError),
    ):
        await scene.end_one()
    assert scene.told.untold == []
    pool_ids = [pool["_id"] for pool in scene.explorer.pools.find({}, {"_id": 1})]
    await scene.decommissions.settle(pool_ids, now=int(time.time()), limits=ROOMY)
    assert len(scene.events) == 2
