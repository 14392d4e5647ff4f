"""The envelope of a record in `pool-daemon-events`: who did what to which pool or workload, when and why.

Each change that the daemon or an operator makes leaves one record, built by `envelope` and inserted by the code that
makes the change, in its transaction where there is one. A record is inserted once and never updated.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from bson import Int64, ObjectId

from pool_daemon import __version__
from pool_daemon.capacity.pool import Pool
from pool_daemon.store.codec import exact_fields

EVENTS: Final = "pool-daemon-events"

SCHEMA: Final = 1
"""The version of the envelope; a record without one is older than the envelope."""

NUMBERS: Final = ("cus", "sus", "ipv4us", "active_cu", "active_su", "active_ipv4", "last_updated", "empty_at")
"""The fields of a pool that a record keeps."""


class EventKind(StrEnum):
    """What was done."""

    DECOMMISSIONED = "decommissioned"
    DRIFT_REPAIRED = "drift_repaired"
    DELETE_ORDER_RESTORED = "delete_order_restored"
    HELD = "held"
    RELEASED = "released"
    QUARANTINED = "quarantined"
    TOOK_OVER = "took_over"
    CREATED = "created"
    TOPPED_UP = "topped_up"
    NODES_ADDED = "nodes_added"
    APPLIED = "applied"
    ENDED = "ended"
    WORKLOAD_ADDED = "workload_added"
    GRACE_BEGAN = "grace_began"
    GRACE_CHANGED = "grace_changed"
    GRACE_ENDED = "grace_ended"
    POLICY_SET = "policy_set"
    POLICY_UNSET = "policy_unset"


class ActorKind(StrEnum):
    """Who may act."""

    DAEMON = "daemon"
    OPERATOR = "operator"


def _none() -> int | None:
    return None


@dataclass(frozen=True, slots=True)
class Actor:
    """A daemon, or an operator, of that name and version.

    `term` and `pass_number` return the daemon's leadership and pass at the moment of a record; None where there is
    none.
    """

    kind: ActorKind
    identity: str
    version: str = __version__
    term: Callable[[], int | None] = _none
    pass_number: Callable[[], int | None] = _none


@dataclass(frozen=True, slots=True)
class Subject:
    """The pool and its owner, and the workload, that a record is about; None where it is about none.

    A workload's id may be of any type.
    """

    pool_id: int | None = None
    customer_tid: int | None = None
    workload_id: Any = None
    workload_type: int | None = None
    node_id: str | None = None


@dataclass(frozen=True, slots=True)
class Why:
    """The reason in words, the exhausted resources, and the pool as it was read: its end, and its `numbers`."""

    reason: str = ""
    resources: Sequence[str] | None = None
    empty_at: int | None = None
    before: Mapping[str, Any] | None = None


NO_SUBJECT: Final = Subject()
NO_REASON: Final = Why()


Recording = Callable[[EventKind, Subject, Why], None]
"""Records what was done just now; never waits."""


def no_recording(_kind: EventKind, _subject: Subject, _why: Why) -> None:
    """Record nothing."""


def envelope(
    kind: EventKind, *, at: float, actor: Actor, subject: Subject = NO_SUBJECT, why: Why = NO_REASON
) -> dict[str, Any]:
    """Return a record of what `actor` did at the unix instant `at`; a field that does not apply is missing.

    Its id is made here. So a record whose insertion is repeated, because its outcome was unknown, is inserted once.
    """
    record = {
        "_id": ObjectId(),
        "schema": SCHEMA,
        "kind": kind.value,
        "at": datetime.fromtimestamp(at, UTC),
        "actor": actor.kind.value,
        "by": actor.identity,
        "version": actor.version,
        "term": _int64(actor.term()),
        "pass": actor.pass_number(),
        "pool_id": _int64(subject.pool_id),
        "customer_tid": _int64(subject.customer_tid),
        "workload_id": subject.workload_id,
        "workload_type": subject.workload_type,
        "node_id": subject.node_id,
        "reason": why.reason,
        "resources": None if why.resources is None else list(why.resources),
        "empty_at": _int64(why.empty_at),
        "before": why.before,
    }
    return {name: value for name, value in record.items() if value is not None}


def numbers(pool: Pool) -> dict[str, Any]:
    """Return what a record keeps of a pool: what is left, what is active, since when, and its end."""
    return exact_fields(pool, NUMBERS)


def _int64(number: int | None) -> Int64 | None:
    return None if number is None else Int64(number)
