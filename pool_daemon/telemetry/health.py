"""Alive, started, ready: three questions, each a few checks of one snapshot.

Liveness asks for the loop alone: a daemon that waits for its database must not be killed for it. Readiness is what
makes the daemon useful, and a standby is as useful as a leader.
"""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from pool_daemon.plain_text import escaped
from pool_daemon.telemetry.attention import attentions, undone_problem
from pool_daemon.telemetry.snapshot import Role, Snapshot

BEAT_SECONDS: Final = 30.0
"""A loop that has not come round for so long is stuck: sixty times what it should take, and far above any batch."""

UNDONE: Final = "undone"
"""The check that says what is due and not done; the headline tells more of it than its name."""

INDEXES_SECONDS: Final = 60.0
"""How long a start waits for indexes: a build may take hours, or never succeed."""

FAILED_PASSES: Final = 3
"""So many failures in a row are more than an election or a dropped connection; with the growing waits between them
they take a second or two."""


@dataclass(frozen=True, slots=True)
class Check:
    """One condition, by name, and what is wrong with it; None if nothing is."""

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
        """What is wrong, a few words each."""
        return [check.problem for check in self.checks if check.problem is not None]

    def as_text(self) -> str:
        """Return one line a check, what is wrong marked with a minus; a problem's own line breaks show as text."""
        return "".join(
            f"{'+' if c.problem is None else '-'} {c.name}: {escaped(c.problem or 'ok')}\n" for c in self.checks
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long each thing may be silent, in seconds, before the daemon counts as not ready."""

    database_seconds: float
    stream_seconds: float
    passes_seconds: float
    lease_seconds: float

    @classmethod
    def of(cls, *, silence_seconds: float, safety_seconds: float, lease_seconds: float | None) -> "Patience":
        """Derive it from the settings, so that nothing which works as configured ever looks silent.

        An open stream asks the database every second, and an election takes up to twelve; a closed stream is given as
        long as the database. The watcher itself reopens a stream whose token stands still for `silence_seconds`; only
        if it does not either is something wrong. Passes come at least every `safety_seconds`. A lease whose holder
        dies is taken within its length, and no majority of the members renews it; where there is none (`lease_seconds`
        is None), nobody has to hold it.
        """
        return cls(
            database_seconds=15,
            stream_seconds=silence_seconds + 10,
            passes_seconds=2 * safety_seconds + 30,
            lease_seconds=math.inf if lease_seconds is None else max(15, lease_seconds),
        )


def liveness(now: Snapshot, tick: float) -> Health:
    """Tell at a tick of the monotonic clock whether the event loop still comes round."""
    silent = tick - now.beat_tick
    return Health(
        (Check("loop", f"the event loop stands still for {silent:.0f} s" if silent > BEAT_SECONDS else None),)
    )


def startup(now: Snapshot, tick: float) -> Health:
    """Tell whether the daemon has found what it needs in order to work; indexes it can work without."""
    building = not now.indexes_made and tick - now.started_tick <= INDEXES_SECONDS
    return Health(
        (
            Check("database", "waits for MongoDB" if now.database_tick is None else None),
            Check("indexes", "waits for indexes" if building else None),
        )
    )


def readiness(now: Snapshot, tick: float, patience: Patience) -> Health:
    """Tell whether the daemon would act in time, or take over in time, if something fell due at this tick."""
    return Health(
        (
            Check("running", "is stopping" if now.stopping else None),
            Check("database", _silence("MongoDB", now.database_tick, tick, patience.database_seconds)),
            Check("catch-up", "waits for the first pass" if now.completed_tick is None else None),
            Check("passes", _passes(now, tick, patience)),
            Check(UNDONE, undone_problem(now, tick)),
            Check("stream", _stream(now, tick, patience)),
            Check("clocks", _clocks(now)),
            Check("lease", _lease(now, tick, patience)),
        )
    )


def headline(now: Snapshot, tick: float, patience: Patience) -> str:
    """Say in one line what the daemon waits for or is about to do; what it says changes only when that does."""
    if now.stopping:
        return "stopping"
    waits_for = [
        check.name
        for health in (startup(now, tick), readiness(now, tick, patience))
        for check in health.checks
        if check.problem is not None and check.name != UNDONE
    ]
    first = [f"{attention.short}: {attention.detail}" for attention in attentions(now)]
    if now.http_problem is not None:
        first.append(f"no HTTP: {now.http_problem}")
    if now.settings_problem is not None:
        first.append(f"settings refused, the old ones stay in force: {now.settings_problem}")
    last = f"waits for: {', '.join(dict.fromkeys(waits_for))}" if waits_for else _intention(now)
    return "; ".join([*first, last])


def _intention(now: Snapshot) -> str:
    if now.next_at is None:
        ahead = "nothing else is known to fall due" if any(attentions(now)) else "nothing is known to fall due"
    else:
        ahead = f"armed for {_date(now.next_at)}"
        if now.next_pool_id is not None:
            ahead += f", when pool {now.next_pool_id} runs empty"
    standby = f"stands by for {now.leader}; " if now.leader else "stands by; "
    prefix = {Role.STANDBY: standby, Role.DRY_RUN: "only looks on; "}
    return prefix.get(now.role, "") + ahead


def _date(at: float) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{at:.0f}"


def _silence(who: str, since: float | None, tick: float, limit_seconds: float) -> str | None:
    if since is None:
        return f"waits for {who}"
    silent = tick - since
    return f"{who} last answered {silent:.0f} s ago" if silent > limit_seconds else None


def _passes(now: Snapshot, tick: float, patience: Patience) -> str | None:
    if now.failures >= FAILED_PASSES:
        return f"{now.failures} passes failed in a row: {now.last_pass.reason if now.last_pass else None}"
    silent = tick - (now.started_tick if now.progress_tick is None else now.progress_tick)
    return f"no pass has come on for {silent:.0f} s" if silent > patience.passes_seconds else None


def _stream(now: Snapshot, tick: float, patience: Patience) -> str | None:
    if now.stream.token_tick is None:
        return "waits for the change stream"
    if now.stream.closed_tick is not None and tick - now.stream.closed_tick > patience.database_seconds:
        return f"the change stream has been closed for {tick - now.stream.closed_tick:.0f} s: {now.stream.reason}"
    silent = tick - now.stream.token_tick
    return f"the change stream is silent for {silent:.0f} s" if silent > patience.stream_seconds else None


def _clocks(now: Snapshot) -> str | None:
    if now.clocks is None:
        return "waits for a look at the database's clock"
    if now.clocks.agree:
        return None
    return f"this machine's clock and the database's are {abs(now.clocks.difference_seconds):.3f} s apart"


def _lease(now: Snapshot, tick: float, patience: Patience) -> str | None:
    """Tell what is wrong if nobody acts, this daemon or another: its passes then complete and settle nothing."""
    if patience.lease_seconds == math.inf:
        return None
    if now.lease_tick is None:
        return "waits for somebody to hold the lease"
    unheld = tick - now.lease_tick
    return f"nobody is known to have held the lease for {unheld:.0f} s" if unheld > patience.lease_seconds else None
