"""The whole status as JSON: what `/statusz` serves to the page, to `pool-daemon status` and to scripts."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from pool_daemon.store.density import Density
from pool_daemon.store.quarantine import Quarantined
from pool_daemon.telemetry.attention import RECENT_SECONDS, attentions, destruction
from pool_daemon.telemetry.health import Health, StalenessLimits, headline, liveness, readiness, startup
from pool_daemon.telemetry.snapshot import Clocks, OnHold, ReceiverStatus, Snapshot, Stream


def status_json(now: Snapshot, *, at: float, tick: float, staleness_limits: StalenessLimits) -> dict[str, Any]:
    """Return the status at the unix instant `at`, which is the monotonic clock's `tick`.

    Keys that end in `at` are instants in unix seconds, those that end in `seconds` durations or ages; null is unknown.
    """
    return {
        "version": now.version,
        "identity": now.identity,
        "at": at,
        "uptime_seconds": tick - now.started_monotonic,
        "headline": headline(now, tick, staleness_limits),
        "attention": _listed(attentions(now)),
        "role": now.role,
        "dry_run": now.dry_run,
        "term": now.term,
        "leader": now.leader,
        "live": _health(liveness(now, tick)),
        "started": _health(startup(now, tick)),
        "ready": _health(readiness(now, tick, staleness_limits)),
        "next": {"at": now.next_at, "pool_id": now.next_pool_id},
        "timers": dict(now.timers),
        "last_pass": now.last_pass and dataclasses.asdict(now.last_pass),
        "passes": _listed(now.passes),
        "completed_pass_age_seconds": _age(now.completed_monotonic, tick),
        "decommissioned": {"pools": now.pools_decommissioned, "workloads": now.workloads_decommissioned},
        "destruction": _destruction(now, tick),
        "backlog": now.backlog,
        "backlog_age_seconds": _age(now.backlog_monotonic, tick),
        "database": {"answer_age_seconds": _age(now.database_monotonic, tick)},
        "stream": _stream(now.stream, tick),
        "clocks": _clocks(now.clocks, tick),
        "indexes_missing": dict(now.indexes_missing or {}),
        "brake": _hold(next((hold for hold in now.holds if hold.reason == "brake"), None)),
        "holds": [_hold(hold) for hold in now.holds],
        "orders": {"waiting": now.waiting_orders, "oldest_age_seconds": _age(now.order_waits_monotonic, tick)},
        "receivers": {name: _receiver(each, tick) for name, each in now.receivers.items()},
        "grace": {"pools": now.in_grace},
        "quarantine": {"pools": now.quarantined, "first": [_quarantined(pool) for pool in now.quarantine]},
        "expiring": dict(now.expiring) or None,
        "expiring_age_seconds": _age(now.expiring_monotonic, tick),
        "density": _density(now.density),
        "upcoming": _listed(pool for pool in now.upcoming if pool.empty_at > at),
        "events": _listed(reversed(now.events)),
    }


def _listed(records: Iterable[Any]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(record) for record in records]


def _stream(stream: Stream, tick: float) -> dict[str, Any]:
    return {
        "state": stream.state,
        "token_age_seconds": _age(stream.token_monotonic, tick),
        "reopened": stream.reopened,
        "reason": stream.reason,
    }


def _clocks(clocks: Clocks | None, tick: float) -> dict[str, Any] | None:
    if clocks is None:
        return None
    return {
        "difference_seconds": clocks.difference_seconds,
        "agree": clocks.agree,
        "age_seconds": tick - clocks.compared_monotonic,
    }


def _health(health: Health) -> dict[str, Any]:
    return {"ok": health.is_good, "problems": health.problems}


def _hold(hold: OnHold | None) -> dict[str, Any] | None:
    return None if hold is None else dataclasses.asdict(hold)


def _destruction(now: Snapshot, tick: float) -> dict[str, Any]:
    """Return what was decommissioned lately; `intervals` are the last minutes: from and to how long ago, how much."""
    recent = destruction(now, tick)
    return {
        "period_seconds": RECENT_SECONDS,
        "recent": recent and dataclasses.asdict(recent),
        "intervals": [
            (tick - each.began_monotonic, tick - each.last_monotonic, each.pools, each.workloads)
            for each in now.lately_decommissioned
        ],
    }


def _density(density: Density | None) -> dict[str, Any] | None:
    """Return the intervals as triples: after, until, pools."""
    if density is None:
        return None
    intervals = [(each.after, each.until, each.pools) for each in density.intervals]
    return {"after": density.after, "until": density.until, "intervals": intervals}


def _quarantined(pool: Quarantined) -> dict[str, Any]:
    return {"pool_id": pool.pool_id, "reason": pool.reason, "tries": pool.tries, "retry_at": pool.next_try_at}


def _receiver(receiver: ReceiverStatus, tick: float) -> dict[str, Any]:
    return {
        "pending": receiver.pending,
        "oldest_age_seconds": _age(receiver.waits_monotonic, tick),
        "dead": receiver.dead,
        "off": receiver.off,
    }


def _age(since: float | None, tick: float) -> float | None:
    return None if since is None else tick - since
