"""Pools in grace as the daemon records them, for tests of what people see and do."""

import time
from typing import Any

from bson import Int64
from explorer import Explorer, Purchase

HOUR, DAY = 3600, 86_400


def in_grace(explorer: Explorer, pool: Purchase, *, for_seconds: int, owner: int = 7, **fields: Any) -> int:
    """Record that a pool has been in grace for its storage for so long; return since when."""
    began = int(time.time()) - for_seconds
    document = {
        "_id": Int64(pool.pool_id),
        "customer_tid": Int64(owner),
        "since": {"su": Int64(began)},
        "newest": {"su": Int64(max(pool.workload_ids))},
        "over": {},
        "spent": [],
        "running": True,
    }
    explorer.database["pool-daemon-grace"].insert_one(document | fields)
    return began


def operator_document(*, until: int, at: int) -> dict[str, Any]:
    """Return an operator's word on the end of a grace."""
    return {"until": Int64(until), "by": "ann@desk", "reason": "a ticket", "at": Int64(at)}
