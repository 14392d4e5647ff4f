"""The history of what the daemon and operators did, read in portions however long it is.

Indexes lead to the records of a pool or an owner, and to those of a workload through its pool. Other records are found
by time: the id of a record is made when it is written, and begins with that second. Changes of pools by operators are
few, and have ids of their own.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from bson import Int64, ObjectId

from pool_daemon.capacity.fields import whole_or_none
from pool_daemon.capacity.workload import WorkloadType
from pool_daemon.store.client import PAGE, Database, pages
from pool_daemon.store.error_mapping import translated
from pool_daemon.store.excerpts import number_only
from pool_daemon.store.records import EVENTS, NUMBERS, EventKind
from pool_daemon.store.workloads import NODE_ID_CHARACTERS, WORKLOADS

WINDOW: Final = 50_000
"""Records that one query looks at; the server looks at some 300,000 a second."""

SLACK_SECONDS: Final = 3600
"""By how much the second in a record's id may differ from the instant in the record: a retry, a step of the clock."""

LAST_ID_SECOND: Final = 2**32 - 1
"""An id holds its second in 32 bits."""

EDITS: Final[Mapping[str, str]] = {"$gte": "operator:", "$lt": "operator;"}
"""The condition on the id of an operator's change."""

MOST_NODES: Final = 100
"""Nodes of a change that are read."""

WHOLE: Final = ("workload_id", "pool_id", "customer_tid", "workload_type", "empty_at", "term", "pass")

SHOWN: Final[Mapping[str, Any]] = {
    "_id": 1,
    **{name: number_only(name) for name in WHOLE},
    **dict.fromkeys(("kind", "node_id", "resources", "reason", "decommissioned_at", "at", "by", "amounts"), 1),
    **dict.fromkeys(("actor", "version", "before", "after"), 1),
    "nodes": {"$cond": [{"$isArray": "$nodes"}, {"$slice": ["$nodes", MOST_NODES]}, "$$REMOVE"]},
}
"""The fields of a record that are read. A workload's id may be of any type and length; then its type is named."""


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which records are read; None sets no condition. Instants are unix seconds; `until` is excluded.

    With `of_pools_only` no record of a workload is read.
    """

    pool: int | None = None
    owner: int | None = None
    workload: int | None = None
    node: str | None = None
    workload_type: WorkloadType | None = None
    since: float | None = None
    until: float | None = None
    kind: EventKind | None = None
    of_pools_only: bool = False

    @property
    def conditions(self) -> dict[str, Any]:
        """The conditions on a record, without its instant."""
        numbers = {"pool_id": self.pool, "customer_tid": self.owner, "workload_id": self.workload}
        wanted: dict[str, Any] = {name: Int64(number) for name, number in numbers.items() if number is not None}
        if self.workload_type is not None:
            wanted["workload_type"] = int(self.workload_type)
        if self.node is not None:
            wanted["node_id"] = self.node[:NODE_ID_CHARACTERS]
        if self.kind is not None:
            wanted["kind"] = self.kind.value
        if self.of_pools_only:
            wanted["workload_id"] = None
        return wanted

    @property
    def instant(self) -> dict[str, Any]:
        """The condition on a record's instant; older records of decommissions have it under another name."""
        bounds = {"$gte": self.since, "$lt": self.until}
        at = {operator: datetime.fromtimestamp(each, UTC) for operator, each in bounds.items() if each is not None}
        return {"$or": [{"at": at}, {"decommissioned_at": at}]} if at else {}

    @property
    def ids(self) -> dict[str, ObjectId]:
        """The condition on an id made by a driver that follows from the record's instant."""
        bounds = {"$gte": _first_id(0 if self.since is None else self.since - SLACK_SECONDS)}
        if self.until is not None and self.until + SLACK_SECONDS < LAST_ID_SECOND:
            bounds["$lt"] = _first_id(self.until + SLACK_SECONDS)
        return bounds


@dataclass(frozen=True, slots=True)
class Record:
    """One record, as far as it is readable; `at` and `empty_at` in unix seconds.

    `amounts` (unit seconds) or `nodes` is what an operator added to a pool. `before` and `after` are the numbers of the
    pool; None where it was not read, or not changed.
    """

    record_id: str
    kind: str
    at: float | None
    pool_id: int | None
    customer_tid: int | None
    workload_id: Any
    workload_type: int | None
    node_id: str | None
    resources: tuple[str, ...]
    reason: str
    empty_at: int | None
    by: str
    amounts: tuple[float, ...]
    nodes: tuple[str, ...]
    actor: str
    version: str
    term: int | None
    pass_number: int | None
    before: Mapping[str, float] | None
    after: Mapping[str, float] | None


class EventHistory:
    """Reads `pool-daemon-events`.

    Every method raises StoreUnavailableError when MongoDB is away, and StoreRefusedError when it refuses.
    """

    def __init__(self, *, database: Database) -> None:
        self._events = database.collection(EVENTS)
        self._workloads = database.collection(WORKLOADS)

    async def last(self, wanted: EventFilter, *, limit: int) -> list[Record]:
        """Return the last records, `limit` at most, oldest first."""
        found: list[Record] = []
        async with aclosing(self._merged(wanted, direction=-1, limit=limit)) as events:
            async for event in events:
                found.append(event)
                if len(found) == limit:
                    break
        return found[::-1]

    async def all(self, wanted: EventFilter) -> AsyncGenerator[Record, None]:
        """Stream records, oldest first; those of one second by their ids. Close the iterator when leaving it early."""
        async with aclosing(self._merged(wanted, direction=1, limit=0)) as events:
            async for event in events:
                yield event

    async def among(self, wanted: EventFilter, ids: Sequence[Any]) -> list[Record]:
        """Return those of the records with these ids that are wanted, oldest first."""
        query = await self._conditions(wanted) | wanted.instant | {"_id": {"$in": list(ids)}}
        async with aclosing(self._read(query, order=("_id", 1), limit=0)) as events:
            return [event async for event in events]

    async def _merged(self, wanted: EventFilter, *, direction: int, limit: int) -> AsyncGenerator[Record, None]:
        """Stream records with ids made by a driver and changes by operators, merged by their instants."""
        async with (
            aclosing(self._dated(wanted, direction=direction, limit=limit)) as one,
            aclosing(self._edits(wanted, direction=direction, limit=limit)) as other,
        ):
            dated, edit = await anext(one, None), await anext(other, None)
            while dated is not None or edit is not None:
                if edit is None or (dated is not None and direction * ((dated.at or 0) - (edit.at or 0)) <= 0):
                    yield dated or edit  # type: ignore[misc]  # one of them is there
                    dated = await anext(one, None)
                else:
                    yield edit
                    edit = await anext(other, None)

    async def _dated(self, wanted: EventFilter, *, direction: int, limit: int) -> AsyncGenerator[Record, None]:
        conditions = await self._conditions(wanted)
        found_by_index = conditions.keys() & {"pool_id", "customer_tid"}
        windows = _only(wanted.ids) if found_by_index else self._windows(wanted.ids, direction=direction)
        async with aclosing(windows):
            async for ids in windows:
                query = conditions | wanted.instant | {"_id": ids}
                async with aclosing(self._read(query, order=("_id", direction), limit=limit)) as events:
                    async for event in events:
                        yield event

    async def _edits(self, wanted: EventFilter, *, direction: int, limit: int) -> AsyncGenerator[Record, None]:
        query = wanted.conditions | wanted.instant | {"_id": EDITS}
        async with aclosing(self._read(query, order=("at", direction), limit=limit)) as events:
            async for event in events:
                yield event

    async def _read(
        self, query: Mapping[str, Any], *, order: tuple[str, int], limit: int
    ) -> AsyncGenerator[Record, None]:
        size = min(limit, PAGE) if limit else PAGE
        cursor = self._events.find(query, SHOWN, sort=[order], allow_disk_use=True, limit=limit, batch_size=size)
        async with aclosing(pages(cursor, doing="reading events")) as found:
            async for documents in found:
                for document in documents:
                    yield record_of(document)

    async def _conditions(self, wanted: EventFilter) -> dict[str, Any]:
        """Return the conditions on a record; of a workload that has a document, with its pool, for the index."""
        conditions = wanted.conditions
        if wanted.workload is not None and wanted.pool is None:
            with translated(f"reading workload {wanted.workload}"):
                found = await self._workloads.find_one(
                    {"_id": Int64(wanted.workload)}, {"_id": 0, "pool_id": number_only("pool_id")}
                )
            if found is not None and (pool_id := whole_or_none(found, "pool_id")) is not None:
                conditions["pool_id"] = Int64(pool_id)
        return conditions

    async def _windows(
        self, bounds: Mapping[str, ObjectId], *, direction: int
    ) -> AsyncGenerator[dict[str, ObjectId], None]:
        """Yield ranges of ids that hold `WINDOW` records each, so that no query runs for long."""
        here = dict(bounds)
        begin, end = ("$gte", "$lt") if direction > 0 else ("$lt", "$gte")
        while True:
            with translated("reading events"):
                cursor = self._events.find({"_id": here}, {"_id": 1}, sort=[("_id", direction)], skip=WINDOW, limit=1)
                found = await cursor.to_list(1)
            if not found:
                yield here
                return
            # Upwards the record found begins the next range; downwards it ends it, and the one above begins this one.
            border = found[0]["_id"]
            yield here | {end: border}
            here[begin] = border


async def _only(ids: dict[str, ObjectId]) -> AsyncGenerator[dict[str, ObjectId], None]:
    yield ids


def _first_id(second: float) -> ObjectId:
    """Return the least id that was made in a second."""
    return ObjectId(int(max(0, min(second, LAST_ID_SECOND))).to_bytes(4, "big") + bytes(8))


def record_of(document: Mapping[str, Any]) -> Record:
    """Return a document's record, as far as it is readable."""
    at = document.get("at", document.get("decommissioned_at"))
    node_id = document.get("node_id")
    return Record(
        record_id=str(document.get("_id", "")),
        kind=str(document.get("kind", "")),
        at=at.timestamp() if isinstance(at, datetime) else None,
        pool_id=whole_or_none(document, "pool_id"),
        customer_tid=whole_or_none(document, "customer_tid"),
        workload_id=document.get("workload_id"),
        workload_type=whole_or_none(document, "workload_type"),
        node_id=None if node_id is None else str(node_id),
        resources=tuple(map(str, _items(document, "resources"))),
        reason=str(document.get("reason", "")),
        empty_at=whole_or_none(document, "empty_at"),
        by=str(document.get("by", "")),
        amounts=tuple(float(each) for each in _items(document, "amounts") if isinstance(each, int | float)),
        nodes=tuple(map(str, _items(document, "nodes"))),
        actor=str(document.get("actor", "")),
        version=str(document.get("version", "")),
        term=whole_or_none(document, "term"),
        pass_number=whole_or_none(document, "pass"),
        before=_numbers(document, "before"),
        after=_numbers(document, "after"),
    )


def _numbers(document: Mapping[str, Any], name: str) -> Mapping[str, float] | None:
    found = document.get(name)
    if not isinstance(found, Mapping):
        return None
    return {each: found[each] for each in NUMBERS if isinstance(found.get(each), int | float)}


def _items(document: Mapping[str, Any], name: str) -> list[Any]:
    items = document.get(name)
    return items if isinstance(items, list) else []
