"""The last decommissions, by this daemon or those before it: for the status page after a restart."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pool_daemon.store.client import Database
from pool_daemon.store.error_mapping import translated
from pool_daemon.store.events import EVENTS

SHOWN: Final = {"_id": 0, "pool_id": 1, "resources": 1, "decommissioned_at": 1}


@dataclass(frozen=True, slots=True)
class RecordedPool:
    """A pool that lost workloads at one instant (unix seconds), according to the last records."""

    pool_id: int
    decommissioned_at: float
    resources: tuple[str, ...]
    workloads: int


class RecentEvents:
    """Reads the end of `pool-daemon-events`, at a bounded cost however long that collection is."""

    def __init__(self, *, database: Database) -> None:
        self._events = database.collection(EVENTS)

    async def last(self, *, records: int) -> list[RecordedPool]:
        """Return the pools of the last records, oldest first; an unreadable record is left out.

        Raises StoreUnavailableError or StoreRefusedError.
        """
        cursor = self._events.find({}, SHOWN, sort=[("$natural", -1)], limit=records)
        with translated("reading the last events"):
            documents = await cursor.to_list(records)
        pools: dict[tuple[int, float], RecordedPool] = {}
        for pool in reversed([each for document in documents if (each := _recorded(document)) is not None]):
            key = (pool.pool_id, pool.decommissioned_at)
            known = pools.get(key)
            pools[key] = pool if known is None else _together(known, pool)
        return list(pools.values())


def _recorded(document: Mapping[str, Any]) -> RecordedPool | None:
    pool_id, at, resources = (document.get(name) for name in ("pool_id", "decommissioned_at", "resources"))
    if not isinstance(pool_id, int) or not isinstance(at, datetime) or not isinstance(resources, list):
        return None
    return RecordedPool(pool_id, at.timestamp(), tuple(map(str, resources)), 1)


def _together(one: RecordedPool, other: RecordedPool) -> RecordedPool:
    resources = (*one.resources, *(each for each in other.resources if each not in one.resources))
    return RecordedPool(one.pool_id, one.decommissioned_at, resources, one.workloads + other.workloads)
