"""How pools that run empty are dealt with."""

from pydantic import Field

from pool_daemon.settings.sections.section import Section


class Expiry(Section):
    """How pools that run empty are dealt with."""

    safety_seconds: float = Field(
        default=60,
        ge=0.1,
        le=3600,
        description="Longest sleep, in seconds, before the pools are looked at again although nothing was "
        "heard. Bounds how late the daemon can be if every other signal were lost.",
    )
    batch_workloads: int = Field(
        default=500,
        ge=1,
        le=2000,
        description="Most workloads that one transaction decommissions. Each costs three writes, and "
        "MongoDB wants transactions to stay near a thousand; more makes a conflict likelier, fewer costs "
        "round trips.",
    )
    concurrency: int = Field(
        default=2,
        ge=1,
        le=32,
        description="Transactions at work at once. Two keep the server busy while the daemon computes; "
        "more mostly wait for the same disk.",
    )
    drain_seconds: float = Field(
        default=20,
        ge=0,
        le=600,
        description="Seconds that a pass under way may take to finish once the daemon is told to stop. "
        "Keep it below the patience of whoever stops it, by default 90 seconds in systemd, 30 in Kubernetes.",
    )
