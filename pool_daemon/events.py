"""All events of the daemon in one table: how the log names each, how loud it is, what it means, and what to do.

A part tells its observer what happened, in one call: by a method of its own if metrics or status follow from it, else
by `tell(EVENT, …)`. Only the telemetry turns that into a log line. `python -m pool_daemon.events` writes the runbook's
table.
"""

import sys
from pathlib import Path
from typing import Final

from pool_daemon.event import RETRIED, Event, Level, Part, Teller
from pool_daemon.generated_table import write_table

__all__ = ("Event", "Level", "Teller")  # for those who tell events; the rows are public, too

_DAEMON: Final = Part("pool_daemon")
STARTED = _DAEMON.info("started", "the daemon starts, with that version and database")
DATABASE_REACHED = _DAEMON.info("database_reached", "the database answers, and all parts start")
DATABASE_UNAVAILABLE = _DAEMON.warning(
    "database_unavailable",
    "MongoDB is away at the start, or refuses to answer",
    "see to MongoDB, as the reason says; the daemon goes on by itself",
)
DATABASE_WITHOUT_POOLS = _DAEMON.warning(
    "database_without_pools",
    "the database has no collection `capacity-pools` (`run --once` ends with exit code 78)",
    "correct `database.name`, unless the grid is new",
)
ADDRESS_OPTIONS_IGNORED = _DAEMON.warning(
    "address_options_ignored",
    "the address asks for what the daemon sets itself, such as a read preference",
    "take these options out of the address",
)
LEASE_TOO_LONG_FOR_ARBITER = _DAEMON.warning(
    "lease_too_long_for_arbiter",
    "the replica set has an arbiter: one secondary away leaves no majority, which is reported only after "
    "`lease.seconds`",
    "set `lease.seconds` to 15 or less, or replace the arbiter by a member with data",
)
EMBEDDED_MONGOD = _DAEMON.warning(
    "embedded_mongod",
    "`database.uri` is not set, so the daemon works on a MongoDB of its own",
    "right for trying it out; else set the address",
)
SECRET_READABLE_BY_ALL = _DAEMON.warning(
    "secret_readable_by_all",
    "every user of the machine can read the address with its password",
    "`chmod o-r` on the file named",
)
SETTING_OVERRIDDEN = _DAEMON.info("setting_overridden", "the environment outranks this setting of the file")
SETTINGS_RELOADED = _DAEMON.info(
    "settings_reloaded", "the new settings are in force, but for those that need a restart"
)
SETTINGS_REJECTED = _DAEMON.warning(
    "settings_rejected",
    "SIGHUP met a bad file; the old settings stay",
    "correct what it names, and reload again",
)
LEFT_UNDONE = _DAEMON.error(
    "left_undone",
    "`run --once` could not settle everything (exit code 1)",
    "it says why: held, failed, quarantined, unreadable, or the gate that was closed",
)
STOPPING = _DAEMON.info("stopping", "a stop was requested; the pass in progress is finished")
STOPPED = _DAEMON.info("stopped", "the last line of a daemon that was stopped")
STOP_FORCED = _DAEMON.critical(
    "stop_forced",
    "a second signal cut the orderly stop short (exit code 130)",
    "nothing; what was not committed is due at the next start",
)
FATAL = _DAEMON.critical("fatal", "the last line before the daemon ends", "it names the remedy")
CRASHED = _DAEMON.critical(
    "crashed", "the last line before the daemon ends by an error that was not foreseen", "report the traceback: a bug"
)

_LOG: Final = Part("pool_daemon.log")
LOG_LINES_DROPPED = _LOG.warning(
    "log_lines_dropped",
    "nobody read the log for a while, or its disk was full; these lines are lost, and nothing else",
    "see to the reader or the disk",
)

_HTTP: Final = Part("pool_daemon.http")
HTTP_LISTENING = _HTTP.info("http_listening", "the HTTP endpoint answers at that address")
HTTP_UNAVAILABLE = _HTTP.error(
    "http_unavailable",
    "the endpoint's address is taken, or no file may be opened; it is tried again, and expiry goes on",
    "free the port, or set another `http.port`",
)
HTTP_ENDED = _HTTP.error(
    "http_ended", "the endpoint's thread died; another is started, and expiry goes on", "report the traceback: a bug"
)
HTTP_FAILED = _HTTP.error(
    "http_failed", "a request could not be answered (status 500); expiry goes on", "report the traceback: a bug"
)

_INDEX_SETUP: Final = Part("pool_daemon.index_setup")
SETUP_FAILED = _INDEX_SETUP.warning("setup_failed", "the database went away while indexes were looked for", RETRIED)
INDEX_MISSING = _INDEX_SETUP.warning(
    "index_missing",
    "an index is missing and cannot be built; without it passes are slow",
    "as an administrator run `create-user.js`, which makes the indexes; that of the age with `KEEP_DAYS=` the days",
)

_JOURNAL: Final = Part("pool_daemon.journal")
RECORDS_NOT_WRITTEN = _JOURNAL.warning(
    "records_not_written", "records of holds, releases or take-overs could not be written yet", RETRIED
)
RECORDS_LOST = _JOURNAL.warning(
    "records_lost",
    "records of holds, releases or take-overs are missing in `pool-daemon-events`; the log has what happened",
    "see to MongoDB; what was held stays held",
)

_FORECAST: Final = Part("pool_daemon.forecast")
FORECAST_READ_FAILED = _FORECAST.debug("forecast_read_failed", "upcoming pools could not be read; they are read again")

_ORDER_WATCH: Final = Part("pool_daemon.order_watch")
ORDERS_READ_FAILED = _ORDER_WATCH.debug("orders_read_failed", "waiting orders could not be read; they are read again")

_WATCHER: Final = Part("pool_daemon.watcher")
STREAM_OPENED = _WATCHER.info("stream_opened", "the change stream is open, resumed where it ended or begun anew")
STREAM_LOST = _WATCHER.warning(
    "stream_lost",
    "the change stream ended; it is opened again where it ended",
    "nothing, unless it goes on; where the cause is `refused`, run `deploy/mongodb/create-user.js`",
)
RESUME_TOKEN_DISCARDED = _WATCHER.warning(
    "resume_token_discarded",
    "the change stream cannot go on where it ended; another is opened, and a full scan follows",
    "nothing, unless it goes on",
)
CHANGE_NOT_UNDERSTOOD = _WATCHER.warning(
    "change_not_understood",
    "a change could not be read, as of a workload whose id is a document; a full scan follows",
    "nothing, unless it goes on: then find out who writes such documents",
)
PRIMARY_CHANGED = _WATCHER.info("primary_changed", "the database has another primary; a full scan follows")

_LOOP: Final = Part("pool_daemon.loop")
EXPIRY_ACTIVE = _LOOP.info("expiry_active", "this daemon acts from now on")
EXPIRY_PAUSED = _LOOP.info("expiry_paused", "a gate has closed: this daemon settles nothing until it opens")
PASS_BEGAN = _LOOP.debug("pass_began", "a pass begins")
PASS_COMPLETED = _LOOP.info("pass_completed", "a pass has settled pools, or some have failed")
PASS_FAILED = _LOOP.error(
    "pass_failed",
    "MongoDB is away, or refuses everything alike; nothing is lost, no pool is blamed",
    "see to MongoDB, as the reason says; the daemon goes on by itself. A traceback is a bug",
)
ARMED = _LOOP.debug("armed", "the timer is set to the next deadline")
TIMER_LATE = _LOOP.warning("timer_late", "the scheduler did not ring in time, and was replaced", "nothing")

_EXPIRER: Final = Part("pool_daemon.expirer")
WORKLOAD_DECOMMISSIONED = _EXPIRER.info("workload_decommissioned", "a workload has got its delete order")
POOL_DECOMMISSIONED = _EXPIRER.info("pool_decommissioned", "workloads of a pool have got their delete orders")
WORKLOAD_WOULD_BE_DECOMMISSIONED = _EXPIRER.info(
    "workload_would_be_decommissioned", "a workload would get its delete order, were this no dry run"
)
POOL_WOULD_BE_DECOMMISSIONED = _EXPIRER.info(
    "pool_would_be_decommissioned", "workloads of a pool would get their delete orders, were this no dry run"
)
POOL_LOCKED = _EXPIRER.info("pool_locked", "another writer has a transaction open on a pool, which is tried again")
POOL_FAILED = _EXPIRER.warning(
    "pool_failed",
    "one pool fails by itself, and delays no other; it is tried again",
    "correct what the reason names",
)
POOL_UNREADABLE = _EXPIRER.warning(
    "pool_unreadable", "a pool's document breaks the data contract; it is left alone", "correct the document named"
)
WORKLOAD_UNREADABLE = _EXPIRER.warning(
    "workload_unreadable",
    "a workload's document breaks the data contract; it is left alone",
    "correct the document named",
)
UNREADABLE_DEADLINES_READ_FAILED = _EXPIRER.debug(
    "unreadable_deadlines_read_failed", "pools without a readable end could not be searched for; the pass goes on"
)

_QUARANTINE: Final = Part("pool_daemon.quarantine")
POOL_QUARANTINED = _QUARANTINE.warning(
    "pool_quarantined",
    "one pool fails again and again; it is tried once in `retry.quarantine_seconds` from now on",
    "`pool-daemon quarantine list` says why; `pool-daemon quarantine release ID` tries it again now",
)
POOL_RELEASED = _QUARANTINE.info("pool_released", "a pool has left the quarantine")
QUARANTINE_WRITE_FAILED = _QUARANTINE.warning(
    "quarantine_write_failed", "what is known of a failing pool could not be written", RETRIED
)
QUARANTINE_READ_FAILED = _QUARANTINE.debug(
    "quarantine_read_failed", "the quarantine could not be read; it is read again"
)

_BRAKE: Final = Part("pool_daemon.brake")
_TOO_MANY: Final = (
    "more pools ended unexpectedly than an ordinary day brings, as after a restored backup",
    "`pool-daemon brake status`; if it is right, `pool-daemon brake release --all`",
)
BRAKE_HELD = _BRAKE.error("brake_held", *_TOO_MANY)
BRAKE_WOULD_HOLD = _BRAKE.error(
    "brake_would_hold", f"in a dry run: {_TOO_MANY[0]}", "find out why before the daemon runs"
)
BRAKE_RELEASED = _BRAKE.info("brake_released", "pools that an operator released are settled now")
HOLDS_READ_FAILED = _BRAKE.debug("holds_read_failed", "what is held could not be read; it is read again")

_CLOCK_GUARD: Final = Part("pool_daemon.clock_guard")
CLOCK_SKEW_DETECTED = _CLOCK_GUARD.error(
    "clock_skew_detected",
    "this clock and the database's are apart, so nothing is done",
    "`pool-daemon clock`, then repair NTP; the daemon goes on by itself",
)
CLOCK_SKEW_RESOLVED = _CLOCK_GUARD.info("clock_skew_resolved", "this machine's clock and the database's agree")
CLOCK_NOT_COMPARED = _CLOCK_GUARD.warning(
    "clock_not_compared", "the database's clock could not be read, or not in time to prove anything", RETRIED
)

_LEADERSHIP: Final = Part("pool_daemon.leadership")
LEASE_ACQUIRED = _LEADERSHIP.info("lease_acquired", "this daemon leads from now on")
STANDBY = _LEADERSHIP.info("standby", "another daemon acts", "nothing, unless there should be only one")
LEASE_RELEASED = _LEADERSHIP.info("lease_released", "this daemon stops and has handed the lease over")
LEASE_NOT_RELEASED = _LEADERSHIP.warning(
    "lease_not_released", "the lease could not be handed over at the stop", "nothing: it expires after `lease.seconds`"
)
LEASE_UNAVAILABLE = _LEADERSHIP.warning("lease_unavailable", "the lease can be neither read nor renewed", RETRIED)
LEASE_LOST = _LEADERSHIP.warning(
    "lease_lost",
    "as its reason says: MongoDB is away or slow, or another daemon acts",
    "see to MongoDB; the lease comes back by itself",
)
LEASE_UNREADABLE = _LEADERSHIP.warning(
    "lease_unreadable",
    "another program wrote or removed the lease's document; it is taken over after `lease.seconds`",
    "find out which",
)
LEASE_IDENTITY_CONFLICT = _LEADERSHIP.warning(
    "lease_identity_conflict",
    "two daemons have one name, and take the lease from each other",
    "give each its own `lease.identity`",
)
LEASE_SESSIONS_NOT_ENDED = _LEADERSHIP.warning(
    "lease_sessions_not_ended",
    "transactions that the former leader may have left open could not be ended",
    "nothing: the server ends them within a minute",
)

_RECONCILER: Final = Part("pool_daemon.reconciler")
DRIFT_REPAIRED = _RECONCILER.info("drift_repaired", "what a pool has in use was corrected by its workloads")
DELETE_ORDER_RESTORED = _RECONCILER.info("delete_order_restored", "a delete order had vanished, and was written again")
REPAIR_FAILED = _RECONCILER.warning("repair_failed", "one pool or order could not be repaired", RETRIED)
RECONCILIATION_COMPLETED = _RECONCILER.info("reconciliation_completed", "all pools were compared, something repaired")
NOTHING_TO_REPAIR = _RECONCILER.debug("reconciliation_completed", "all pools were compared; nothing was to be repaired")
RECONCILIATION_FAILED = _RECONCILER.warning(
    "reconciliation_failed", "the database could not be read; the comparison goes on where it was", RETRIED
)
RECONCILIATION_PAUSED = _RECONCILER.debug("reconciliation_paused", "the comparison waits for a gate to open")
WORKLOAD_DOCUMENTS_MISSING = _RECONCILER.warning(
    "workload_documents_missing",
    "pools list workloads that have no document, as during a restore; these are not reconciled",
    "restore the collection `workload`",
)
WORKLOAD_DOCUMENTS_COMPLETE = _RECONCILER.info(
    "workload_documents_complete", "no pool lists a workload without a document any more"
)

_NOTICES: Final = Part("pool_daemon.notices")
NOTICES_WRITTEN = _NOTICES.info("notices_written", "events for owners of pools were written to the outbox")
NOTICES_FAILED = _NOTICES.warning("notices_failed", "notices could not be read or written; none is lost", RETRIED)
DELIVERY_FAILED = _NOTICES.warning(
    "delivery_failed", "a receiver of notices takes none; they wait, and pools end as ever", "see to the receiver"
)
DELIVERY_RESTORED = _NOTICES.info("delivery_restored", "a receiver of notices takes them again")
RECEIVER_GONE = _NOTICES.error(
    "receiver_gone", "a receiver has answered 410, and gets no more notices", "correct it, then `notices test RECEIVER`"
)
RECEIVER_BACK = _NOTICES.info("receiver_back", "a receiver that was off gets notices again")
ENDS_UNTOLD = _NOTICES.warning(
    "ends_untold", "MongoDB keeps the end of pools out of the outbox: they end, untold", "repair what `reason` names"
)
ENDS_TOLD = _NOTICES.info("ends_told", "the ends of pools are written to the outbox again")
EVENT_DEAD = _NOTICES.warning(
    "event_dead",
    "a notice was not delivered in time",
    "see to its receiver; `pool-daemon notices replay ID` sends the news of an end all the same",
)

_GRACE: Final = Part("pool_daemon.grace")
GRACE_REVIEW_FAILED = _GRACE.warning(
    "grace_review_failed", "the pools in grace could not be reviewed; those that are topped up leave it later", RETRIED
)
POLICIES_READ_FAILED = _GRACE.warning(
    "policies_read_failed", "the policies of owners could not be read; those that were read before hold", RETRIED
)
GRACE_READ_FAILED = _GRACE.warning("grace_read_failed", "the pools in grace could not be counted", RETRIED)
POLICY_MALFORMED = _GRACE.warning(
    "policy_malformed",
    "the policy of that owner is not of the documented form; he has the default",
    "`pool-daemon policy set` writes it anew",
)

TABLE: Final = tuple(row for row in tuple(globals().values()) if isinstance(row, Event))
"""All rows above, in their order."""

BACKGROUND_FAILURES: Final = (
    FORECAST_READ_FAILED,
    GRACE_READ_FAILED,
    GRACE_REVIEW_FAILED,
    HOLDS_READ_FAILED,
    NOTICES_FAILED,
    ORDERS_READ_FAILED,
    POLICIES_READ_FAILED,
    QUARANTINE_READ_FAILED,
    QUARANTINE_WRITE_FAILED,
    RECONCILIATION_FAILED,
    RECORDS_NOT_WRITTEN,
    REPAIR_FAILED,
    SETUP_FAILED,
    UNREADABLE_DEADLINES_READ_FAILED,
)
"""The failures of work beside the passes. It is repeated, and pools end meanwhile; so a metric counts them, or nobody
would notice that they do not end."""


def as_markdown() -> str:
    """Return the events that ask for an operator as deploy/RUNBOOK.md shows them."""
    rows = [row for row in TABLE if row.remedy is not None]
    lines = ["| event | level | what it means | what to do |", "|---|---|---|---|"]
    lines += [f"| `{row.name}` | {row.level} | {row.meaning} | {row.remedy} |" for row in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    write_table(Path(sys.argv[1]), as_markdown())
