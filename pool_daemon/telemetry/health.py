"""Liveness, startup and readiness: three questions, each a few checks of one snapshot.

Liveness covers the event loop only: a daemon that waits for its database must not be killed for it. Readiness says
whether the daemon does its work, and a standby does its work as much as a leader.
"""

import math
from dataclasses import dataclass
from typing import Final

from pool_daemon.guards.leadership import Role
from pool_daemon.plain_text import date, escaped
from pool_daemon.telemetry.attention import attentions, destruction, undone_problem
from pool_daemon.telemetry.snapshot import Snapshot

BEAT_SECONDS: Final = 30.0
"""A loop without a beat for this long is stuck: sixty times the interval, and far longer than any batch."""

UNDONE: Final = "undone"
"""The check for due pools that are not settled; the headline explains it instead of naming it."""

INDEXES_SECONDS: Final = 60.0
"""Time for which a start waits for indexes: a build may take hours, or never succeed."""

FAILED_PASSES: Final = 3
"""More consecutive failures than an election or a dropped connection causes; with the growing waits between them they
take a second or two."""

MANY_IN_GRACE: Final = 100
"""From so many on the headline names the pools in grace: they cost their farmers something."""


@dataclass(frozen=True, slots=True)
class Check:
    """One condition: its name, and its problem or None."""

    name: str
    problem: str | None


@dataclass(frozen=True, slots=True)
class Health:
    """The answer to one question: good if every check is."""

    checks: tuple[Check, ...]

    @property
    def is_good(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    @property
    def problems(self) -> list[str]:
        """The problems, a few words each."""
        return [check.problem for check in self.checks if check.problem is not None]

    def as_text(self) -> str:
        """Return one line a check, failed ones marked with a minus; line breaks in a problem are escaped."""
        return "".join(
            f"{'+' if c.problem is None else '-'} {c.name}: {escaped(c.problem or 'ok')}\n" for c in self.checks
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StalenessLimits:
    """The age in seconds of each sign of life beyond which the daemon counts as not ready."""

    database_seconds: float
    stream_seconds: float
    passes_seconds: float
    lease_seconds: float

    @classmethod
    def of(cls, *, stall_seconds: float, max_sleep_seconds: float, lease_seconds: float | None) -> "StalenessLimits":
        """Derive the limits from the settings, so that nothing that works as configured ever exceeds them.

        An open stream asks the database every second, and an election takes up to twelve seconds; a closed stream is
        given as long as the database. The watcher reopens a stream whose token stands still for `stall_seconds`; only
        a watcher that fails to is a problem. Passes come at least every `max_sleep_seconds`. A lease whose holder
        dies is taken over within its length, and renewed only by a majority of the members. Without leases
        (`lease_seconds` is None) there is no limit.
        """
        return cls(
            database_seconds=15,
            stream_seconds=stall_seconds + 10,
            passes_seconds=2 * max_sleep_seconds + 30,
            lease_seconds=math.inf if lease_seconds is None else max(15, lease_seconds),
        )


def liveness(now: Snapshot, tick: float) -> Health:
    """Check, at a tick of the monotonic clock, that the event loop is not stuck."""
    silent = tick - now.beat_monotonic
    return Health(
        (Check("loop", f"the event loop stands still for {silent:.0f} s" if silent > BEAT_SECONDS else None),)
    )


def startup(now: Snapshot, tick: float) -> Health:
    """Check that the daemon has found what it needs in order to work; it can work without indexes."""
    building = not now.indexes_made and tick - now.started_monotonic <= INDEXES_SECONDS
    return Health(
        (
            Check("database", "waits for MongoDB" if now.database_monotonic is None else None),
            Check("indexes", "waits for indexes" if building else None),
        )
    )


def readiness(now: Snapshot, tick: float, staleness_limits: StalenessLimits) -> Health:
    """Check that the daemon would act in time, or take over in time, if a pool fell due at this tick."""
    return Health(
        (
            Check("running", "is stopping" if now.stopping else None),
            Check("database", _silence("MongoDB", now.database_monotonic, tick, staleness_limits.database_seconds)),
            Check("catch-up", "waits for the first pass" if now.completed_monotonic is None else None),
            Check("passes", _passes(now, tick, staleness_limits)),
            Check(UNDONE, undone_problem(now, tick)),
            Check("stream", _stream(now, tick, staleness_limits)),
            Check("clocks", _clocks(now)),
            Check("lease", _lease(now, tick, staleness_limits)),
        )
    )


def headline(now: Snapshot, tick: float, staleness_limits: StalenessLimits) -> str:
    """Return one line on what the daemon waits for or is about to do; it changes only when that does."""
    if now.stopping:
        return "stopping"
    waits_for = [
        check.name
        for health in (startup(now, tick), readiness(now, tick, staleness_limits))
        for check in health.checks
        if check.problem is not None and check.name != UNDONE
    ]
    first = [f"{attention.short}: {attention.detail}" for attention in attentions(now)]
    if now.http_problem is not None:
        first.append(f"no HTTP: {now.http_problem}")
    if now.settings_problem is not None:
        first.append(f"settings refused, the old ones stay in force: {now.settings_problem}")
    if (gone := destruction(now, tick)) is not None:
        first.append(str(gone))
    last = f"waits for: {', '.join(dict.fromkeys(waits_for))}" if waits_for else _intention(now)
    return "; ".join([*first, *_grace(now), last])


def _grace(now: Snapshot) -> list[str]:
    return [f"at least {MANY_IN_GRACE} pools are in grace"] if (now.in_grace or 0) >= MANY_IN_GRACE else []


def _intention(now: Snapshot) -> str:
    if now.next_at is None:
        ahead = "nothing else is known to fall due" if any(attentions(now)) else "nothing is known to fall due"
    else:
        ahead = f"armed for {date(now.next_at)}"
        if now.next_pool_id is not None:
            ahead += f", when pool {now.next_pool_id} runs empty"
    standby = f"stands by for {now.leader}; " if now.leader else "stands by; "
    prefix = {Role.STANDBY: standby, Role.DRY_RUN: "only looks on; "}
    return prefix.get(now.role, "") + ahead


def _silence(who: str, since: float | None, tick: float, limit_seconds: float) -> str | None:
    if since is None:
        return f"waits for {who}"
    silent = tick - since
    return f"{who} last answered {silent:.0f} s ago" if silent > limit_seconds else None


def _passes(now: Snapshot, tick: float, staleness_limits: StalenessLimits) -> str | None:
    if now.failures >= FAILED_PASSES:
        return f"{now.failures} passes failed in a row: {now.failure_reason}"
    silent = tick - (now.started_monotonic if now.progress_monotonic is None else now.progress_monotonic)
    return f"no pass has come on for {silent:.0f} s" if silent > staleness_limits.passes_seconds else None


def _stream(now: Snapshot, tick: float, staleness_limits: StalenessLimits) -> str | None:
    if now.stream.token_monotonic is None:
        return "waits for the change stream"
    if (
        now.stream.closed_monotonic is not None
        and tick - now.stream.closed_monotonic > staleness_limits.database_seconds
    ):
        return f"the change stream has been closed for {tick - now.stream.closed_monotonic:.0f} s: {now.stream.reason}"
    silent = tick - now.stream.token_monotonic
    return f"the change stream is silent for {silent:.0f} s" if silent > staleness_limits.stream_seconds else None


def _clocks(now: Snapshot) -> str | None:
    if now.clocks is None:
        return "waits for a look at the database's clock"
    if now.clocks.agree:
        return None
    return f"this machine's clock and the database's are {abs(now.clocks.difference_seconds):.3f} s apart"


def _lease(now: Snapshot, tick: float, staleness_limits: StalenessLimits) -> str | None:
    """Return the problem if no daemon is known to hold the lease: passes would complete and settle nothing."""
    if staleness_limits.lease_seconds == math.inf:
        return None
    if now.lease_monotonic is None:
        return "waits for somebody to hold the lease"
    unheld = tick - now.lease_monotonic
    return (
        f"nobody is known to have held the lease for {unheld:.0f} s"
        if unheld > staleness_limits.lease_seconds
        else None
    )
