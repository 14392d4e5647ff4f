"""How the receivers of notices stand: which one wants no more, and what waits for each."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from pool_daemon.plain_text import cut
from pool_daemon.store.client import Database
from pool_daemon.store.error_mapping import REASON_CHARACTERS, translated
from pool_daemon.store.outbox import OUTBOX, DeliveryState

RECEIVERS: Final = "pool-daemon-receivers"

MOST_COUNTED: Final = 20_000
"""Events that are counted at most, a tenth of a second of the server's."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a receiver stands.

    `pending` events are due, or have failed, the oldest written at the unix instant `oldest_at`; `dead` ones were not
    delivered in time. `off` is why it gets no more; None if it does.
    """

    pending: int = 0
    oldest_at: float | None = None
    dead: int = 0
    off: str | None = None


class ReceiverStore:
    """The collection `pool-daemon-receivers`: a document for each receiver that is off.

    A receiver is off as long as its settings are those with which it answered; `digest` stands for them. Every method
    raises StoreUnavailableError when MongoDB is away, and StoreRefusedError when it refuses.
    """

    def __init__(self, *, database: Database) -> None:
        self._documents = database.collection(RECEIVERS)
        self._outbox = database.collection(OUTBOX)

    async def off(self, name: str, *, digest: str) -> str | None:
        """Return why a receiver with these settings is off; None if it is not."""
        with translated("reading which receivers are off"):
            document = await self._documents.find_one({"_id": name, "digest": digest})
        return None if document is None else cut(str(document.get("reason")), REASON_CHARACTERS)

    async def turn_off(self, name: str, *, digest: str, reason: str, now: float) -> None:
        """Leave a receiver alone from the unix instant `now` on, until it is turned on, or has other settings."""
        document = {"_id": name, "digest": digest, "reason": reason, "off_at": datetime.fromtimestamp(now, UTC)}
        with translated("turning a receiver off"):
            await self._documents.replace_one({"_id": name}, document, upsert=True)

    async def turn_on(self, name: str) -> bool:
        """Have a receiver served again; return whether it was off."""
        with translated("turning a receiver on"):
            result = await self._documents.delete_one({"_id": name})
        return result.deleted_count == 1

    async def standings(self, digests: dict[str, str], *, now: float) -> dict[str, Standing]:
        """Return how receivers stand at the unix instant `now`; `digests` has the settings of each."""
        return {name: await self._standing(name, digest, now=now) for name, digest in digests.items()}

    async def _standing(self, name: str, digest: str, *, now: float) -> Standing:
        due = {"next_at": {"$lte": datetime.fromtimestamp(now, UTC)}}
        waiting = {"receiver": name, "state": DeliveryState.PENDING, "$or": [due, {"last_error": {"$ne": None}}]}
        count: Sequence[dict[str, object]] = [
            {"$match": waiting},
            {"$limit": MOST_COUNTED},
            {"$group": {"_id": None, "pending": {"$sum": 1}, "oldest_at": {"$min": "$created_at"}}},
        ]
        dead = {"receiver": name, "state": DeliveryState.DEAD}
        with translated("counting what waits for a receiver"):
            found = await self._outbox.aggregate(count).to_list(1)
            dead_events = await self._outbox.count_documents(dead, limit=MOST_COUNTED)
        pending, oldest_at = (found[0]["pending"], found[0]["oldest_at"].timestamp()) if found else (0, None)
        return Standing(pending, oldest_at, dead_events, await self.off(name, digest=digest))
