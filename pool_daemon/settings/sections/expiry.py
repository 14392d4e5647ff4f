"""How pools that run empty are dealt with."""

from pydantic import Field

from pool_daemon.settings.sections.section import Section


class Expiry(Section):
    """How pools that run empty are dealt with."""

    safety_seconds: float = Field(
        default=60,
        ge=0.1,
        le=3600,
        description="Longest sleep, in seconds, before the daemon looks again for what has fallen due since its "
        "last look, although nothing was heard. Costs one query.",
    )
    rescan_seconds: float = Field(
        default=600,
        ge=1,
        le=86_400,
        description="Seconds between two looks at everything overdue, even at what was looked at before. Bounds how "
        "late the daemon can be if every other signal were lost; costs some 6 microseconds for each pool that is "
        "overdue and stays so.",
    )
    batch_workloads: int = Field(
        default=500,
        ge=1,
        le=2000,
        description="Most workloads that one transaction decommissions; the first of a pass take fewer. Each costs "
        "three writes. 10,000 pools took 1.25 s with 300 on two cores, 1.15 s with 500 or 1000, and the more there "
        "are, the longer others wait for these pools.",
    )
    concurrency: int = Field(
        default=3,
        ge=1,
        le=32,
        description="Transactions at work at once, so that the server is busy while the daemon computes. 10,000 "
        "pools took 1.30 s with two on two cores, 1.20 s with three and no less with four.",
    )
    orders_per_second: float = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="Work orders a second at most, to spare the nodes; 0 is no bound. What is due longest goes first "
        "then, whosever it is, and what waits is the metric `pool_daemon_backlog_pools`.",
    )
    drain_seconds: float = Field(
        default=20,
        ge=0,
        le=600,
        description="Seconds that a pass under way may take to finish once the daemon is told to stop. "
        "Keep it below the patience of whoever stops it, by default 90 seconds in systemd, 30 in Kubernetes.",
    )
