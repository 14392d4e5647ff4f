"""The first lines for an operator: due pools that are not settled, the reason, and for how long."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pool_daemon.guards.leadership import Role
from pool_daemon.telemetry.snapshot import Decommissions, Snapshot

UNDONE_SECONDS: Final = 120.0
"""Pools that have been due for longer count as undone: retries, elections and short locks are over by then."""

LATELY_SECONDS: Final = 600.0
"""The period over which pools that lost workloads are compared with undone ones."""

RECENT_SECONDS: Final = 300.0
"""The period over which decommissions are told first: an operator who opens the page because of them sees them."""

UNDER_WAY_SECONDS: Final = 10.0
"""Decommissioning goes on until nothing has been decommissioned for so long."""

ALONE: Final = 1
"""Up to this many undone pools do not count: one faulty document must not make the whole daemon look broken."""


@dataclass(frozen=True, slots=True)
class Attention:
    """One thing to know first: `short` for the headline, `detail` with its reason."""

    short: str
    detail: str


def attentions(now: Snapshot) -> Iterator[Attention]:
    """Yield what keeps due pools from being settled, most important first."""
    for hold in now.holds:
        held = "held" if hold.pools is None else f"{_pools(hold.pools)} held"
        yield Attention(f"{held} by the {hold.reason}", hold.detail)
    if now.failures:
        yield Attention("passes fail", now.failure_reason or "no reason given")
    for undone in now.undone:
        if undone.reason not in {"brake", "quarantine"}:
            yield Attention(f"{_pools(undone.pools)} {undone.reason}", "see the log")
    if now.quarantined:
        reason = now.quarantine[0].reason if now.quarantine else "see `pool-daemon quarantine list`"
        yield Attention(f"{_pools(now.quarantined)} in quarantine", reason)


def undone_pools(now: Snapshot, tick: float) -> dict[str, int]:
    """Return, by reason, how many pools have been due and unsettled for longer than UNDONE_SECONDS."""
    return {undone.reason: undone.pools for undone in now.undone if tick - undone.since_monotonic > UNDONE_SECONDS}


def undone_problem(now: Snapshot, tick: float) -> str | None:
    """Return the problem if at least half of a leader's due pools of the last minutes are undone, else None."""
    pools = undone_pools(now, tick)
    total = sum(pools.values())
    settled = _decommissioned_since(now, tick - LATELY_SECONDS).pools
    if now.role is not Role.LEADER or total <= ALONE or total < settled:
        return None
    why = "; ".join(f"{attention.short}: {attention.detail}" for attention in attentions(now))
    return f"{_pools(total)} due and undone for minutes, {settled:,} settled: {why or 'see the log'}"


@dataclass(frozen=True, slots=True)
class Destruction:
    """What this daemon has decommissioned within the last RECENT_SECONDS, the last of it so long ago.

    `per_second` is how many workloads a second; None if the last was more than UNDER_WAY_SECONDS ago.
    """

    pools: int
    workloads: int
    last_age_seconds: float
    per_second: float | None

    def __str__(self) -> str:
        """Return one line for an operator."""
        workloads = f"{self.workloads:,} workload{'s' * (self.workloads != 1)}"
        return f"{workloads} of {_pools(self.pools)} decommissioned in the last {RECENT_SECONDS / 60:.0f} minutes"


def destruction(now: Snapshot, tick: float) -> Destruction | None:
    """Return what was decommissioned lately, None if nothing was."""
    recent = _decommissioned_since(now, tick - RECENT_SECONDS)
    if not recent.pools:
        return None
    last = now.lately_decommissioned[-1]
    age = tick - last.last_monotonic
    lasted = max(1.0, last.last_monotonic - last.began_monotonic)
    per_second = last.workloads / lasted if age <= UNDER_WAY_SECONDS else None
    return Destruction(recent.pools, recent.workloads, age, per_second)


def _decommissioned_since(now: Snapshot, tick: float) -> Decommissions:
    """Return the decommissions since a tick, added up."""
    those = [each for each in now.lately_decommissioned if each.began_monotonic >= tick]
    return Decommissions(tick, tick, sum(each.pools for each in those), sum(each.workloads for each in those))


def _pools(number: int) -> str:
    return f"{number:,} pool{'s' * (number != 1)}"
