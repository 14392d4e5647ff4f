"""The state of the daemon at one moment: immutable plain values.

A field that ends in `_at` is a wall-clock instant in unix seconds. One that ends in `_monotonic` is a reading of the
monotonic clock. Ages are computed from the latter, so that no step of the wall clock changes them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from pool_daemon.expiry.pass_report import PassOutcome
from pool_daemon.guards.leadership import Role
from pool_daemon.store.density import Density
from pool_daemon.store.pool_counts import Upcoming
from pool_daemon.store.quarantine import Quarantined


class StreamState(StrEnum):
    """The state of the change stream."""

    CLOSED = "closed"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Stream:
    """The change stream.

    `token_monotonic` is when its token last moved, None before the first opening; `closed_monotonic` since when it
    has been closed, None while it is open.
    """

    state: StreamState = StreamState.CLOSED
    token_monotonic: float | None = None
    closed_monotonic: float | None = None
    reopened: int = 0
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Clocks:
    """This machine's clock compared with the database's; positive if this machine is ahead."""

    difference_seconds: float
    agree: bool
    compared_monotonic: float


@dataclass(frozen=True, slots=True)
class FinishedPass:
    """One finished pass; `reason` is why it failed, or which closed gate held it."""

    ended_at: float
    seconds: float
    outcome: PassOutcome
    settled: int = 0
    decommissioned: int = 0
    failed_pools: int = 0
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class OnHold:
    """A reason of the clock guard or the brake for which due pools are on hold, since when, and what ends it.

    `pools` is how many pools it concerns; None if that is not counted.
    """

    reason: str
    detail: str
    since_at: float
    pools: int | None = None


@dataclass(frozen=True, slots=True)
class ReceiverStatus:
    """A receiver of notices: events that wait for it, the oldest since a tick, dead ones, and why it is off."""

    pending: int
    waits_monotonic: float | None
    dead: int
    off: str | None


@dataclass(frozen=True, slots=True)
class Undone:
    """Pools that are due and not settled for one reason, and the tick since which there have been any."""

    reason: str
    pools: int
    since_monotonic: float


@dataclass(frozen=True, slots=True)
class Decommissions:
    """How many workloads of how many pools were decommissioned between two ticks, half a minute apart at most."""

    began_monotonic: float
    last_monotonic: float
    pools: int
    workloads: int


@dataclass(frozen=True, slots=True)
class StatusEvent:
    """An event worth showing to a person; `kind` is one word, `text` a few.

    A repeated event, as in an outage, is kept once, with the instant of its last occurrence and their number.
    """

    at: float
    kind: str
    text: str
    pool_id: int | None = None
    lateness_seconds: float | None = None
    times: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The whole state at one moment.

    `indexes_made` is set once the daemon has tried to build all indexes; `indexes_missing` has the reason for each one
    that is missing. `completed_monotonic` is when a pass last reached its end, held by a gate or not;
    `progress_monotonic` when one did or committed a batch. `failures` is how many passes have failed since one was
    completed, or since another daemon acts. `lease_monotonic` is when the lease was last known to be held, by this
    daemon or another. `next_at` and `next_pool_id` are what the timer is armed for, `timers` when each of its jobs
    rings next. `order_waits_monotonic` is since when the oldest of the `waiting_orders` has waited. `in_grace` is how
    many pools are in grace; None also where there is none, and on a standby.
    `lately_decommissioned` holds the numbers of pools that lost workloads in the last minutes, each with its tick.
    `passes` holds, oldest first, the last passes that did anything or failed. None means not known yet.
    """

    identity: str
    version: str
    started_at: float
    started_monotonic: float
    beat_monotonic: float
    dry_run: bool = False
    database_monotonic: float | None = None
    indexes_made: bool = False
    indexes_missing: Mapping[str, str] | None = None
    stopping: bool = False
    http_problem: str | None = None

    role: Role = Role.STARTING
    term: int | None = None
    leader: str | None = None
    lease_monotonic: float | None = None

    next_at: float | None = None
    next_pool_id: int | None = None
    timers: Mapping[str, float] = field(default_factory=dict)
    completed_monotonic: float | None = None
    progress_monotonic: float | None = None
    failures: int = 0
    last_pass: FinishedPass | None = None
    passes: tuple[FinishedPass, ...] = ()
    pools_decommissioned: int = 0
    workloads_decommissioned: int = 0
    backlog: int | None = None
    backlog_monotonic: float | None = None
    lately_decommissioned: tuple[Decommissions, ...] = ()

    stream: Stream = Stream()
    clocks: Clocks | None = None
    holds: tuple[OnHold, ...] = ()
    unreadable: int = 0
    quarantined: int = 0
    quarantine: tuple[Quarantined, ...] = ()
    undone: tuple[Undone, ...] = ()
    settings_problem: str | None = None
    pools_missing_workloads: int | None = None
    waiting_orders: int | None = None
    order_waits_monotonic: float | None = None
    receivers: Mapping[str, ReceiverStatus] = field(default_factory=dict)
    in_grace: int | None = None

    expiring: Mapping[str, int] = field(default_factory=dict)
    expiring_monotonic: float | None = None
    density: Density | None = None
    upcoming: tuple[Upcoming, ...] = ()
    events: tuple[StatusEvent, ...] = ()

    @property
    def failure_reason(self) -> str | None:
        """The reason of the last failed pass, even if others followed; None if none is kept."""
        return next((each.reason for each in reversed(self.passes) if each.outcome is PassOutcome.FAILED), None)
