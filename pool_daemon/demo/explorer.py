"""The explorer service as far as it meets the daemon: the customers' only access to the pools.

It reads a pool, changes it in memory and writes all of it back, with no version and no transaction. It is another
program than the daemon and so has a client of its own.
"""

from collections.abc import Mapping
from typing import Any, Final

from bson import Int64
from pymongo import AsyncMongoClient

from pool_daemon.capacity.cloud_units import cloud_units
from pool_daemon.capacity.pool import Pool
from pool_daemon.capacity.workload import NextAction
from pool_daemon.demo.scenario import Workload
from pool_daemon.demo.snapshot import Record, Snapshot
from pool_daemon.store.codec import pool_from_document, pool_to_document

NODE: Final = "a node"
TIMEOUT_MILLISECONDS: Final = 10_000


class Explorer:
    """The reads and writes of other programs; `written` holds each pool as it was last written."""

    def __init__(self, *, uri: str, database: str) -> None:
        self._client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
            uri, tz_aware=True, timeoutMS=TIMEOUT_MILLISECONDS
        )
        self._database = self._client[database]
        self.written: dict[int, dict[str, Any]] = {}

    async def read_pool(self, pool_id: int) -> Pool:
        """Read one pool."""
        document = await self._database["capacity-pools"].find_one({"_id": pool_id})
        return pool_from_document(document or {})

    async def write_pool(self, pool: Pool, **damage: Any) -> None:
        """Overwrite the whole pool, with the fields in `damage` instead of its own."""
        document = pool_to_document(pool) | damage
        fields = {name: value for name, value in document.items() if name != "_id"}
        await self._database["capacity-pools"].update_one({"_id": document["_id"]}, {"$set": fields}, upsert=True)
        self.written[pool.pool_id] = document

    async def deploy(self, workload: Workload, *, workload_id: int, pool: Pool, now: int) -> None:
        """Write a deployed workload's document and add it to the pool in memory."""
        document = {
            "_id": Int64(workload_id),
            "workload_id": Int64(workload_id),
            "node_id": NODE,
            "pool_id": Int64(pool.pool_id),
            "customer_tid": Int64(pool.customer_tid),
            "next_action": int(NextAction.DEPLOY),
            "workload_type": int(workload.type),
            **workload.fields,
        }
        await self._database["workload"].insert_one(document)
        pool.add_workload(workload_id, *cloud_units(document), now=now)

    async def snapshot(self) -> Snapshot:
        """Read everything that the daemon works on and writes."""
        events = self._database["pool-daemon-events"].find({"kind": "decommissioned"})
        records = await events.sort("decommissioned_at").to_list()
        return Snapshot(
            pools=await self._all("capacity-pools"),
            workloads=await self._all("workload"),
            orders=await self._all("workqueue"),
            records=tuple(_record(document) for document in records),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _all(self, collection: str) -> Mapping[int, Mapping[str, Any]]:
        return {document["_id"]: document async for document in self._database[collection].find()}


def _record(document: Mapping[str, Any]) -> Record:
    return Record(
        workload_id=document["workload_id"],
        resources=tuple(document["resources"]),
        empty_at=document["empty_at"],
        decommissioned_at=document["decommissioned_at"],
    )
