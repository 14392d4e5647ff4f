"""The settlement of pools that run empty."""

from pydantic import Field

from pool_daemon.settings.sections.section import Section


class Expiry(Section):
    """The settlement of pools that run empty."""

    max_sleep_seconds: float = Field(
        default=60,
        ge=0.1,
        le=3600,
        description="Longest sleep, in seconds, before a pass reads what has fallen due since the last one, even if "
        "no change was reported. Costs one query.",
    )
    full_scan_seconds: float = Field(
        default=600,
        ge=1,
        le=86_400,
        description="Seconds between two full scans, which read everything overdue, even what was settled before. "
        "Bounds how late the daemon can be if every other signal is lost; costs some 6 microseconds for each pool "
        "that stays overdue.",
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
        description="Transactions in flight at once, so that the server is busy while the daemon computes. On two "
        "cores 10,000 pools took 1.30 s with two, 1.20 s with three and no less with four.",
    )
    orders_per_second: float = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="Work orders a second at most, to spare the nodes; 0 is no bound. With a bound, pools are "
        "settled longest due first, regardless of their owners, and those that wait are counted by the metric "
        "`pool_daemon_backlog_pools`.",
    )
    drain_seconds: float = Field(
        default=20,
        ge=0,
        le=600,
        description="Seconds that the pass in progress may take to finish once the daemon is told to stop. Keep it "
        "below the time-out of the service manager, by default 90 seconds in systemd, 30 in Kubernetes.",
    )
