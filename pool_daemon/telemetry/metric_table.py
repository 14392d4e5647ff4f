"""All metrics of the daemon in one table, from which registry, observer and documentation are built.

Counters and histograms are moved by events. A gauge is read from the snapshot at the moment of a scrape, so that an age
grows even while the loop is stuck. A gauge without a value has no sample at all.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, get_args

from pool_daemon import events
from pool_daemon.capacity.exhaustion import RESOURCES
from pool_daemon.capacity.grace import GraceEnd
from pool_daemon.capacity.workload import WorkloadType
from pool_daemon.expiry.pass_report import PassOutcome
from pool_daemon.expiry.watcher import StreamEnd
from pool_daemon.generated_table import write_table
from pool_daemon.guards.leadership import Role
from pool_daemon.telemetry.attention import undone_pools
from pool_daemon.telemetry.metric import OTHER, Counter, Gauge, Histogram, Metric
from pool_daemon.telemetry.snapshot import StreamState

__all__ = ("OTHER", "Counter", "Gauge", "Histogram", "Metric")  # for those who read the rows, which are public, too

WORKLOAD_TYPES: Final = tuple(kind.name.lower() for kind in WorkloadType)
COMMANDS: Final = (
    "abortTransaction",
    "aggregate",
    "commitTransaction",
    "count",
    "createIndexes",
    "delete",
    "distinct",
    "find",
    "findAndModify",
    "getMore",
    "hello",
    "insert",
    "ping",
    "update",
)
HORIZONS: Final[Mapping[str, int]] = {"1h": 3600, "1d": 86_400, "7d": 604_800}
"""The horizons, in seconds, within which expiring pools are counted."""

FAST: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
SLOW: Final = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900)
LATE: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
SIZES: Final = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2000)


BUILD = Gauge(
    name="build_info",
    about="Always 1; its label is the running version.",
    labels={"version": ()},
    read=lambda now, _: {now.version: 1},
)
LEADER = Gauge(
    name="leader",
    about="1 if this daemon is the leader, 0 if it is not.",
    read=lambda now, _: float(now.role is Role.LEADER),
)
TERM = Gauge(
    name="leader_term",
    about="Number of the term in which this daemon leads; grows with every take-over. No sample on a standby.",
    read=lambda now, _: now.term,
)
ARMED = Gauge(
    name="next_deadline_timestamp_seconds",
    about="Unix time of the deadline that the timer is armed for; no sample while no deadline is known.",
    read=lambda now, _: now.next_at,
)
PASS_AGE = Gauge(
    name="last_completed_pass_age_seconds",
    about="Seconds since a pass last completed or was held by a closed gate, or since the start if none has; on a "
    "clock that never steps.",
    read=lambda now, tick: (
        tick - (now.started_monotonic if now.completed_monotonic is None else now.completed_monotonic)
    ),
)
TOKEN_AGE = Gauge(
    name="stream_token_age_seconds",
    about="Seconds since the change stream's resume token moved; it moves about every ten seconds even when nothing "
    "happens.",
    read=lambda now, tick: _age(now.stream.token_monotonic, tick),
)
STREAM_OPEN = Gauge(
    name="stream_open",
    about="1 while the change stream is open, 0 while it is not.",
    read=lambda now, _: float(now.stream.state is StreamState.OPEN),
)
INDEXES_MISSING = Gauge(
    name="indexes_missing",
    about="Required indexes that are missing or being built; without them reads are slow.",
    read=lambda now, _: None if now.indexes_missing is None else float(len(now.indexes_missing)),
)
DATABASE_AGE = Gauge(
    name="database_answer_age_seconds",
    about="Seconds since the database last answered a command without an error.",
    read=lambda now, tick: _age(now.database_monotonic, tick),
)
CLOCK_DIFFERENCE = Gauge(
    name="clock_difference_seconds",
    about="Seconds that this machine's clock is ahead of the database's; negative if it is behind.",
    read=lambda now, _: now.clocks.difference_seconds if now.clocks else None,
)
EXPIRING = Gauge(
    name="pools_expiring",
    about="Pools that run empty within the time in the label; counted once a minute, up to 1,000,000.",
    labels={"within": tuple(HORIZONS)},
    read=lambda now, _: now.expiring or None,
)
BACKLOG = Gauge(
    name="backlog_pools",
    about="Pools that have fallen due since the last completed pass, counted every ten seconds; no sample on a "
    "standby. Those that are held, fail or are in quarantine are undone_pools.",
    read=lambda now, _: now.backlog,
)
QUARANTINED = Gauge(
    name="quarantined_pools",
    about="Pools in quarantine: they fail by themselves and wait for their next retry.",
    read=lambda now, _: now.quarantined,
)
UNDONE = Gauge(
    name="undone_pools",
    about="Pools that have been due and unsettled for more than two minutes, by reason.",
    labels={"reason": ("brake", "failing", "quarantine")},
    read=undone_pools,
)
MISSING_WORKLOADS = Gauge(
    name="pools_missing_workloads",
    about="Pools that list workloads without a document, and are not reconciled until those are back; no sample on a "
    "standby.",
    read=lambda now, _: now.pools_missing_workloads,
)
ORDERS_WAITING = Gauge(
    name="delete_orders_waiting",
    about="Delete orders that no node has carried out; counted once a minute, up to 20,000. No sample on a standby.",
    read=lambda now, _: now.waiting_orders,
)
OLDEST_ORDER = Gauge(
    name="oldest_delete_order_age_seconds",
    about="Seconds for which the oldest of them has waited: since the daemon gave it, or of one that the explorer gave "
    "since the leader saw it first. 0 if none waits; no sample on a standby.",
    read=lambda now, tick: (
        None if now.waiting_orders is None else max(0.0, _age(now.order_waits_monotonic, tick) or 0.0)
    ),
)
RECEIVERS: Final = {"receiver": ("webhook", "alertmanager")}
OLDEST_NOTICE = Gauge(
    name="oldest_pending_notice_age_seconds",
    about="Age of the oldest event that is due and not delivered, by receiver; 0 if none is. No sample on a standby.",
    labels=RECEIVERS,
    read=lambda now, tick: (
        {name: _age(each.waits_monotonic, tick) or 0 for name, each in now.receivers.items()} or None
    ),
)
DEAD_NOTICES = Gauge(
    name="notices_dead",
    about="Events in the outbox that were not delivered in time, by receiver. No sample on a standby.",
    labels=RECEIVERS,
    read=lambda now, _: {name: each.dead for name, each in now.receivers.items()} or None,
)
RECEIVER_OFF = Gauge(
    name="receiver_off",
    about="1 while a receiver is off, for it has answered 410. No sample on a standby.",
    labels=RECEIVERS,
    read=lambda now, _: {name: float(each.off is not None) for name, each in now.receivers.items()} or None,
)
IN_GRACE = Gauge(
    name="pools_in_grace",
    about="Pools in which workloads stay for a time though what they use has run out; counted every ten seconds. No "
    "sample on a standby, and without settings in `[grace]`.",
    read=lambda now, _: now.in_grace,
)
HOLDING = Gauge(
    name="on_hold",
    about="1 while due pools are on hold for the reason in the label, else 0.",
    labels={"reason": ("clock", "brake")},
    read=lambda now, _: dict.fromkeys((hold.reason for hold in now.holds), 1),
)

PASSES = Counter(
    name="passes_total",
    about="Passes, by how they ended. A held one was cut short by a closed gate, as each of a standby is; a stopped "
    "one left the rest to the next start.",
    labels={"outcome": tuple(PassOutcome)},
)
PASS_DURATION = Histogram(name="pass_duration_seconds", about="How long passes took.", buckets=SLOW)
BATCH_DURATION = Histogram(
    name="batch_duration_seconds", about="How long the transaction of a batch took, retries included.", buckets=FAST
)
BATCH_POOLS = Histogram(name="batch_pools", about="Pools that one batch settled.", buckets=SIZES)
BATCH_WORKLOADS = Histogram(name="batch_workloads", about="Workloads that one batch decommissioned.", buckets=SIZES)
POOLS_DECOMMISSIONED = Counter(
    name="pools_decommissioned_total",
    about="Pools that lost workloads, by the first resource that had run out.",
    labels={"resource": RESOURCES},
)
WORKLOADS_DECOMMISSIONED = Counter(
    name="workloads_decommissioned_total",
    about="Workloads decommissioned, by the first exhausted resource that each uses, and by type.",
    labels={"resource": RESOURCES, "workload_type": (*WORKLOAD_TYPES, "unknown")},
)
LATENESS = Histogram(
    name="lateness_seconds",
    about="Delay between the moment a workload was due (normally its pool's empty_at) and the commit that "
    "decommissioned it.",
    buckets=LATE,
)
GRACE_SECONDS = Counter(
    name="grace_seconds_total",
    about="Seconds for which workloads have stayed after what they use had run out, by type, counted when they go.",
    labels={"workload_type": WORKLOAD_TYPES},
)
GRACES_ENDED = Counter(
    name="graces_ended_total",
    about="Times of grace that have ended, each of a pool and a resource, by what ended them: their time was over, the "
    "budget of the pool was used up, a top-up, or an operator.",
    labels={"reason": tuple(reason.replace(" ", "_") for reason in GraceEnd)},
)
RETRIES = Counter(
    name="retries_total",
    about="Retries, by what is retried: a whole pass, a batch in pieces, or a single pool.",
    labels={"step": ("pass", "batch", "pool")},
)
HOLDS = Counter(
    name="holds_total",
    about="Times that pools began to be on hold, by reason.",
    labels=HOLDING.labels,
)
UNREADABLE = Counter(
    name="unreadable_documents_total",
    about="Documents that break the data contract, each counted when first met; they are left as they are. A change of "
    "the stream that is not understood is followed by a full scan.",
    labels={"kind": ("pool", "workload", "change")},
)
DRIFT_REPAIRED = Counter(
    name="drift_repaired_total",
    about="Pools whose record of what is in use differed from their workloads and was repaired, by what differed.",
    labels={"kind": ("rates", "workload_ids")},
)
ORDERS_RESTORED = Counter(
    name="delete_orders_restored_total",
    about="Delete orders that were missing before they were done, and were restored.",
)
STREAM_REOPENINGS = Counter(
    name="stream_reconnects_total",
    about="Times the change stream ended and had to be opened again, by what ended it.",
    labels={"cause": get_args(StreamEnd)},
)
SETTINGS_RELOADS = Counter(
    name="settings_reloads_total",
    about="Reloads of the settings by SIGHUP; a refused reload left the old settings in force.",
    labels={"outcome": ("applied", "refused")},
)
NOTICES_SENT = Counter(
    name="notices_sent_total",
    about="Attempts to send an event, and events that are not sent again: dead, or superseded as no longer true.",
    labels={**RECEIVERS, "outcome": ("delivered", "failed", "gone", "dead", "superseded")},
)
NOTICE_DELAY = Histogram(
    name="notice_delay_seconds",
    about="Delay between the moment an event became true, as a crossing of a lead was found, and its delivery.",
    buckets=LATE,
)
ENDS_UNTOLD = Counter(
    name="ends_untold_total",
    about="Pools whose end was not written to the outbox, because MongoDB refused that; they ended in time.",
)
COMMAND_DURATION = Histogram(
    name="database_command_duration_seconds",
    about="How long the database took to answer, by command. The change stream's getMore waits up to a second for "
    "news: that is no delay.",
    labels={"command": COMMANDS},
    buckets=FAST,
)
COMMAND_ERRORS = Counter(
    name="database_command_errors_total",
    about="Commands that the database answered with an error or not at all, by command.",
    labels={"command": COMMANDS},
)
BACKGROUND_FAILURES = Counter(
    name="background_failures_total",
    about="Failures of work beside the passes, by their event in the log; it is repeated, and pools end meanwhile.",
    labels={"event": tuple(event.name for event in events.BACKGROUND_FAILURES)},
)
LOG_LINES_DROPPED = Counter(
    name="log_lines_dropped_total",
    about="Log lines dropped because their reader was stuck or gone, or their disk was full.",
)
LOOP_LAG = Histogram(
    name="event_loop_lag_seconds",
    about="Delay of the event loop's heartbeat behind its schedule; measured twice a second.",
    buckets=FAST,
)

TABLE: Final = tuple(row for row in tuple(globals().values()) if isinstance(row, Metric))
"""All rows above, in their order."""


def as_markdown() -> str:
    """Return the table as deploy/prometheus/README.md shows it."""
    lines = ["| Metric | Kind | Labels | What it tells |", "|---|---|---|---|"]
    lines += [f"| `{row.full_name}` | {row.kind} | {_labels(row)} | {row.about} |" for row in TABLE]
    return "\n".join(lines) + "\n"


def _labels(row: Metric) -> str:
    return "<br>".join(
        f"`{name}`: {', '.join(values)}" if values else f"`{name}`" for name, values in row.labels.items()
    )


def _age(since: float | None, tick: float) -> float | None:
    return None if since is None else tick - since


if __name__ == "__main__":
    write_table(Path(sys.argv[1]), as_markdown())
