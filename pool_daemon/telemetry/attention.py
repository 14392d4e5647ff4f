"""The first lines for an operator: due pools that are not settled, the reason, and for how long."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pool_daemon.guards.leadership import Role
from pool_daemon.telemetry.snapshot import Snapshot

UNDONE_SECONDS: Final = 120.0
"""Pools that have been due for longer count as undone: retries, elections and short locks are over by then."""

LATELY_SECONDS: Final = 600.0
"""The period over which pools that lost workloads are compared with undone ones."""

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
    settled = sum(number for at, number in now.lately_decommissioned if tick - at <= LATELY_SECONDS)
    if now.role is not Role.LEADER or total <= ALONE or total < settled:
        return None
    why = "; ".join(f"{attention.short}: {attention.detail}" for attention in attentions(now))
    return f"{_pools(total)} due and undone for minutes, {settled:,} settled: {why or 'see the log'}"


def _pools(number: int) -> str:
    return f"{number:,} pool{'s' * (number != 1)}"
