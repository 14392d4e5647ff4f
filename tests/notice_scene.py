"""Notices without a daemon: an announcer and a delivery on a real database, and a receiver that a test looks into."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from arithmetic_model import Document, Rates
from bson import Int64
from explorer import CONTAINER, Explorer, Purchase
from pymongo import MongoClient
from pymongo.monitoring import CommandListener
from telemetry_scene import new_observer

from pool_daemon.guards.gate import Closed
from pool_daemon.notices.announcer import Announcer
from pool_daemon.notices.delivery import Delivery, Sleep
from pool_daemon.notices.receiver import Delivered, Outcome
from pool_daemon.notices.receiver_watch import ReceiverWatch
from pool_daemon.settings.notices import Notices
from pool_daemon.store.client import Database, connect
from pool_daemon.store.notices import NoticeStore
from pool_daemon.store.outbox import Outbox
from pool_daemon.store.setup import create_collections

MINUTE, HOUR, DAY = 60, 3600, 86_400


class Clock:
    """This machine's clock, a while ahead or behind."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> float:
        return time.time() + self.ahead

    def monotonic(self) -> float:
        return time.monotonic()


class Inbox:
    """A receiver in memory: it keeps each event that it takes, and answers what a test has it answer."""

    name = "inbox"
    digest = "as at first"
    timeout_seconds = 1.0

    def __init__(self) -> None:
        self.events: list[Mapping[str, Any]] = []
        self.answers: list[Outcome] = []

    async def send(self, event: Mapping[str, Any]) -> Outcome:
        answer = self.answers.pop(0) if self.answers else Delivered()
        self.events.append(event)
        return answer

    async def close(self) -> None:
        """Keep what was sent."""

    def by_type(self, kind: str) -> list[Mapping[str, Any]]:
        """Return the events of a type, each id once."""
        return list({event["id"]: event for event in self.events if event["type"] == kind}.values())


class Scene:
    """An announcer with a delivery to `inbox`, on a database in which `explorer` writes."""

    def __init__(self, explorer: Explorer, uri: str, inbox: Inbox | None, settings: Mapping[str, Any]) -> None:
        self.explorer = explorer
        self.uri = uri
        self.inbox = inbox or Inbox()
        self.settings = Notices(**{"before": ["7d", "1d", "1h"], **settings})
        self.clock = Clock()
        self.gate_closed_by: Closed | None = None
        self.receivers = ["inbox"] if inbox else []
        self.database = self._connect()
        self.start()

    def start(self, *listeners: CommandListener, sleep: Sleep = asyncio.sleep) -> None:
        """Make the parts anew, as a restart does; what they do on the database tells `listeners`."""
        self.database.close()
        self.database = self._connect(*listeners)
        outbox = Outbox(database=self.database, receivers=self.receivers, keep_seconds=self.settings.keep_seconds)
        self.observer = new_observer()
        self.store = NoticeStore(database=self.database, outbox=outbox)
        shared: dict[str, Any] = {"store": self.store, "gate": self, "clock": self.clock, "observer": self.observer}
        shared["sleep"] = sleep
        self.announcer = Announcer(settings=self.settings, **shared)
        self.delivery = Delivery(receiver=self.inbox, **shared)
        self.watch = ReceiverWatch(
            store=self.store.receivers,
            digests=dict.fromkeys(self.receivers, self.inbox.digest),
            gate=self,
            clock=self.clock,
            observer=self.observer,
        )

    def _connect(self, *listeners: CommandListener) -> Database:
        return connect(uri=self.uri, name=self.explorer.database.name, listeners=listeners)

    def closed_by(self) -> Closed | None:
        return self.gate_closed_by

    @property
    def notices(self) -> list[Document]:
        return list(self.explorer.database["pool-daemon-notices"].find().sort("_id", 1))

    @property
    def outbox(self) -> list[Document]:
        return list(self.explorer.database["pool-daemon-outbox"].find().sort("created_at", 1))

    def lasting(self, *seconds: int, owner: int | None = None) -> list[int]:
        """Create pools that last that long, of one owner or of one each; return their ids."""
        bought: list[Purchase] = []
        for number, each in enumerate(seconds):
            tid = Int64(owner if owner is not None else 1000 + number)
            bought.append(self.explorer.draft(Rates(cu=each), [CONTAINER], customer_tid=tid))
        if bought:
            self.explorer.create(bought)
        return [each.pool_id for each in bought]

    def end_in(self, seconds: float, *pool_ids: int) -> None:
        """Have pools end that long from now, as a top-up, or a deployment, does."""
        end = Int64(int(self.clock.now() + seconds))
        self.explorer.pools.update_many({"_id": {"$in": list(pool_ids)}}, {"$set": {"empty_at": end}})

    def make_due(self) -> None:
        """End the wait of every event, and every claim of one, as time does."""
        long_ago = datetime.fromtimestamp(0, UTC)
        self.explorer.database["pool-daemon-outbox"].update_many(
            {"state": "pending"}, {"$set": {"next_at": long_ago, "leased_until": long_ago}}
        )

    async def deliver(self) -> None:
        """Deliver until nothing is due."""
        while not await self.delivery.deliver_next():
            pass

    async def round(self) -> None:
        """Look, and deliver what follows."""
        await self.announcer.look()
        await self.deliver()

    def told(self) -> list[tuple[int, int]]:
        """Return which pools the inbox was told to expire, and with which lead, in order and each id once."""
        events = [*self.inbox.by_type("pool.expiring"), *self.inbox.by_type("pools.expiring")]
        return [(pool["pool_id"], pool["lead_seconds"]) for event in events for pool in event["data"]["pools"]]


@asynccontextmanager
async def scene_on(
    uri: str, mongo: MongoClient[Document], name: str, *, receiving: bool = True, **settings: Any
) -> AsyncIterator[Scene]:
    """Set a scene on a fresh database."""
    scene = Scene(Explorer(database=mongo[name]), uri, Inbox() if receiving else None, settings)
    await create_collections(scene.database, notices=True)
    for keys in ([("receiver", 1), ("state", 1), ("next_at", 1)], [("expires_at", 1)]):
        mongo[name]["pool-daemon-outbox"].create_index(keys)
    mongo[name]["capacity-pools"].create_index("empty_at")
    yield scene
    scene.database.close()
