"""The sections of the settings: one frozen model each; every field has unit, bounds, default and reason."""

from typing import Literal

from pydantic import Field

from pool_daemon.settings.fields import DatabaseName, Identity, Names, Section, Uri, UsablePath


class Database(Section):
    """The MongoDB that holds the pools."""

    uri: Uri | None = Field(
        default=None,
        examples=["mongodb://pool-daemon:password@db-1,db-2,db-3/?replicaSet=explorer"],
        description="Address of the MongoDB, with its user and password. A secret: better kept in the secrets "
        "folder, as a file named database__uri, than in this file. Without it the daemon runs a MongoDB of its own "
        "in embedded.folder.",
    )
    name: DatabaseName = Field(
        default="explorer",
        description="Name of the database. The default is the one that the explorer uses.",
    )
    timeout_seconds: float = Field(
        default=10,
        ge=0.1,
        le=300,
        description="Seconds that each operation may take, retries by the driver included. Far above what "
        "a healthy server needs, far below what would let a half-open connection pass for a slow one.",
    )
    server_selection_seconds: float = Field(
        default=5,
        ge=0.1,
        le=300,
        description="Seconds to search for a usable server before MongoDB counts as unavailable: at the start, and "
        "for the change stream. An election takes less, and the daemon retries by itself. Any other operation "
        "searches for as long as timeout_seconds allows.",
    )


class Embedded(Section):
    """A MongoDB that the daemon starts for itself, for trying it out; used when database.uri is not set."""

    folder: UsablePath | None = Field(
        default=None,
        examples=["/var/lib/pool-daemon/mongodb"],
        description="Folder that keeps its data and its password, for its owner alone. Without it, "
        "`mongod` in systemd's state folder, else ~/.local/state/pool-daemon/mongod.",
    )
    port: int = Field(
        default=0,
        ge=0,
        le=65535,
        description="TCP port on the loopback address; 0 takes any free one, so that two never collide.",
    )
    mongod: UsablePath | None = Field(
        default=None,
        examples=["/usr/bin/mongod"],
        description="The mongod to start. Without it, the one that the extra `embedded` installs, else the "
        "one on the PATH.",
    )


class Expiry(Section):
    """The settlement of pools that run empty."""

    max_sleep_seconds: float = Field(
        default=60,
        ge=0.1,
        le=3600,
        description="Longest sleep, in seconds, before a pass reads what has fallen due since the last one, even if "
        "no change was reported. Costs one query. The shipped alerts assume 60.",
    )
    full_scan_seconds: float = Field(
        default=600,
        ge=1,
        le=86_400,
        description="Seconds between two full scans, which read everything due, even what was settled before. "
        "Bounds how late the daemon can be if every other signal is lost; costs some 6 microseconds for each pool "
        "that stays due.",
    )
    batch_workloads: int = Field(
        default=500,
        ge=1,
        le=2000,
        description="Most workloads that one transaction decommissions; the first of a pass take fewer. Each costs "
        "three writes. On two cores 10,000 pools took 1.25 s with 300, 1.15 s with 500 or 1000. The larger the "
        "batch, the longer other writers of its pools wait.",
    )
    concurrency: int = Field(
        default=3,
        ge=1,
        le=32,
        description="Transactions in flight at once, so that the server is busy while the daemon computes; one more "
        "may carry what has only just fallen due. On two cores 10,000 pools took 1.30 s with two, 1.20 s with three "
        "and no less with four.",
    )
    orders_per_second: float = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="Work orders a second at most, to spare the nodes; 0 is no bound. With a bound, pools are "
        "settled longest due first, regardless of their owners, in one transaction at a time (expiry.concurrency has "
        "no effect) of a second's orders at most; those that wait are counted by the metric "
        "`pool_daemon_backlog_pools`.",
    )
    drain_seconds: float = Field(
        default=20,
        ge=0,
        le=600,
        description="Seconds that the pass in progress may take to finish once the daemon is told to stop; one that "
        "takes longer is cut off (exit code 70). Up to lease.seconds + 5 come on top before the process ends: keep the "
        "sum below the time-out of the service manager, 45 seconds in the shipped unit and deployment.",
    )


class Stream(Section):
    """The change stream, which reports the changes of other writers."""

    stall_seconds: float = Field(
        default=30,
        ge=0.1,
        le=3600,
        description="Seconds after which a stream whose resume token stands still counts as dead and is "
        "opened again. The token moves about every ten seconds even when nothing happens. The shipped alerts "
        "assume at most 60.",
    )


class Lease(Section):
    """The lease: of several daemons on one database only the holder acts."""

    seconds: float = Field(
        default=15,
        ge=1,
        le=300,
        description="Seconds after which a standby takes over from a daemon that died; a daemon that is stopped in "
        "order hands over at once. Renewed every third of that, and trusted for four fifths. With less, a database "
        "that answers slowly costs the lease; with more, pools stay overdue for longer. The same for all daemons of "
        "a database.",
    )
    identity: Identity | None = Field(
        default=None,
        examples=["pool-daemon@host-1"],
        description="Name under which this daemon holds the lease. A daemon that starts takes over at once from a "
        "holder of its own name: it takes that for itself before a restart. So the name must survive a restart, and "
        "no two daemons that run at once may share it. Without it, each process has a name of its own: a daemon "
        "killed and restarted waits until its old lease expires.",
    )


class Clock(Section):
    """Limits on the difference between this machine's clock and the database's; beyond them nothing is settled."""

    max_difference_seconds: float = Field(
        default=5,
        ge=0.1,
        le=3600,
        description="Seconds that the two clocks may be apart. Far above what NTP leaves, far below what would "
        "noticeably credit or cost a customer.",
    )
    check_seconds: float = Field(
        default=30,
        ge=0.1,
        le=3600,
        description="Seconds between two comparisons. A step of the database's clock is noticed within that time; "
        "one of this machine's at once, by comparison with the monotonic clock.",
    )


class Brake(Section):
    """The brake: if more pools than usual end unexpectedly, as after a restored backup, they wait for an operator."""

    enabled: bool = Field(
        default=True,
        description="Whether pools are ever held. If not, everything due is settled.",
    )
    max_share: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="Share of the pools in use that may end unexpectedly. If more do, and more than "
        "brake.min_pools, those that have not been settled yet are held.",
    )
    min_pools: int = Field(
        default=100,
        ge=0,
        le=1_000_000_000,
        description="Unexpected pools that are settled in any case, however few are in use. Only those count that "
        "lose a workload.",
    )
    notice_seconds: float = Field(
        default=600,
        ge=0,
        le=86400,
        description="Seconds for which a pool's end must have been in the database to be expected. An end that came "
        "while no daemon acted is unexpected, too.",
    )
    per_owner: int = Field(
        default=5,
        ge=1,
        le=1_000_000,
        description="Unexpected pools that one owner counts for at most, so that one customer cannot cause "
        "another customer's pool to be held. Of pools found due though no change told of it, as after a time in which "
        "no daemon acted, it is a quarter of brake.min_pools, if that is more. Pools written more than a minute past "
        "their end all count, for no customer can arrange that.",
    )


class Retry(Section):
    """The retries of a pool that fails by itself. An outage of the database does not count as a failure."""

    attempts: int = Field(
        default=5,
        ge=1,
        le=100,
        description="Failures in a row after which a pool goes into quarantine.",
    )
    initial_backoff_seconds: float = Field(
        default=1,
        ge=0.1,
        le=3600,
        description="Longest wait, in seconds, before the second try. It doubles each time.",
    )
    max_backoff_seconds: float = Field(
        default=300,
        ge=0.1,
        le=86400,
        description="Longest wait between two tries, in seconds, before the quarantine.",
    )
    quarantine_seconds: float = Field(
        default=3600,
        ge=1,
        le=604800,
        description="Seconds between two tries of a pool in quarantine, plus or minus a tenth.",
    )


class Reconcile(Section):
    """The comparison of all pools with their workloads, in the background."""

    enabled: bool = Field(
        default=True,
        description="Whether to reconcile at all. It repairs damage by other writers: deleted workloads that still "
        "count in their pool, rates that do not add up, delete orders that vanished.",
    )
    interval_seconds: float = Field(
        default=60,
        ge=0.1,
        le=86400,
        description="Seconds between two scans of all pools. Damage is repaired by the second scan that finds it.",
    )
    pools_per_second: int = Field(
        default=2000,
        ge=0,
        le=1_000_000,
        description="Most pools compared in a second; 0 is no bound. The default takes about a tenth of a core, and "
        "8 minutes for a million pools.",
    )
    confirm_seconds: float = Field(
        default=60,
        ge=0,
        le=86400,
        description="Seconds for which a delete order must have been missing, in two scans, before it is restored, "
        "and for which a pool must have drifted, likewise, before it is repaired. Far above what the explorer takes "
        "to finish a change.",
    )


class Events(Section):
    """The records of what the daemon and operators did, in `pool-daemon-events`."""

    keep_days: int = Field(
        default=0,
        ge=0,
        le=20_000,
        description="Days for which records are kept; 0 keeps them for ever. The server removes older ones by an index "
        "that expires; where the daemon may build no index, `create-user.js` makes it. The key of an operator's change "
        "is remembered no longer than its record.",
    )


class Log(Section):
    """The daemon's log."""

    format: Literal["auto", "json", "console"] = Field(
        default="auto",
        description="json writes one object a line, for machines; console is for people; auto chooses console on a "
        "terminal and json elsewhere.",
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info",
        description="Lowest level that is logged. info logs every pool that expires and every change of state; debug "
        "logs every pass.",
    )
    detail: Literal["workload", "pool"] = Field(
        default="workload",
        description="Whether each decommissioned workload gets a line of its own, or each pool one for all its "
        "workloads.",
    )


class Http(Section):
    """Metrics, health and a status page for every client that reaches the address; read only."""

    enabled: bool = Field(
        default=True,
        description="Whether to listen at all. Without it neither metrics nor probes are available.",
    )
    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description='Address to listen on. The default is for this machine alone; in a container it is "0.0.0.0", or '
        '"::" for IPv6. Every client that reaches it sees the ids of pools and customers.',
    )
    port: int = Field(
        default=9464,
        ge=0,
        le=65535,
        description="TCP port to listen on; 0 takes any free one and logs which.",
    )
    pool_views: bool = Field(
        default=True,
        description="Whether every client that reaches the address may look up any pool and owner: amounts, nodes, "
        "workloads, and what was done by whom and why. Each look-up asks the database, one at a time. "
        'By default only this machine reaches the address; where others do, "false" keeps that from them.',
    )
    allowed_hosts: Names = Field(
        default=[],
        description="Host names accepted in requests, beside localhost and every IP address: those of a Service or a "
        'proxy in front of the daemon. A list, or text with commas, such as "grid.example, pool-daemon". Requests '
        "for other names are refused: a web site could point its name here and have a browser read the status.",
    )
