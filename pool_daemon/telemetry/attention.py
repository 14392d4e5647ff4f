"""What an operator has to know first: what is due and not done, why, and for how long."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pool_daemon.telemetry.snapshot import Role, Snapshot

UNDONE_SECONDS: Final = 120.0
"""What has been due for longer than that counts as undone: retries, elections and short locks are over by then."""

SETTLED_SECONDS: Final = 600.0
"""How far back settled pools are counted against those that are undone."""

ALONE: Final = 1
"""So many undone pools say nothing about the daemon: one faulty document must not make it look broken."""


@dataclass(frozen=True, slots=True)
class Attention:
    """One thing to know first: `short` for a headline, `detail` with its reason."""

    short: str
    detail: str


def attentions(now: Snapshot) -> Iterator[Attention]:
    """Yield what keeps due pools from being settled, the most important first."""
    for hold in now.holds:
        held = "held" if hold.pools is None else f"{_pools(hold.pools)} held"
        yield Attention(f"{held} by the {hold.reason}", hold.detail)
    if now.failures and now.last_pass is not None:
        yield Attention("passes fail", now.last_pass.reason or "no reason given")
    for undone in now.undone:
        if undone.reason not in {"brake", "quarantine"}:
            yield Attention(f"{_pools(undone.pools)} {undone.reason}", "see the log")
    if now.quarantined:
        reason = now.quarantine[0].reason if now.quarantine else "see `pool-daemon quarantine list`"
        yield Attention(f"{_pools(now.quarantined)} in quarantine", reason)


def undone_pools(now: Snapshot, tick: float) -> dict[str, int]:
    """Return how many pools are known to be due and not settled for minutes, by why."""
    return {undone.reason: undone.pools for undone in now.undone if tick - undone.since_tick > UNDONE_SECONDS}


def undone_problem(now: Snapshot, tick: float) -> str | None:
    """Return what is wrong if at least half of what a leader had to do in the last minutes is undone."""
    pools = undone_pools(now, tick)
    total = sum(pools.values())
    settled = sum(number for at_tick, number in now.settled if tick - at_tick <= SETTLED_SECONDS)
    if now.role is not Role.LEADER or total <= ALONE or total < settled:
        return None
    why = "; ".join(f"{attention.short}: {attention.detail}" for attention in attentions(now))
    return f"{_pools(total)} due and undone for minutes, {settled:,} settled: {why or 'see the log'}"


def _pools(number: int) -> str:
    return f"{number:,} pool{'s' * (number != 1)}"
