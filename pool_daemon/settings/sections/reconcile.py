"""How pools are compared with their workloads."""

from pydantic import Field

from pool_daemon.settings.sections.section import Section


class Reconcile(Section):
    """How pools are compared with their workloads, in the background."""

    enabled: bool = Field(
        default=True,
        description="Whether it is done at all. It mends what other writers left wrong: deleted workloads that "
        "still count in their pool, rates that do not add up, orders to delete that vanished.",
    )
    interval_seconds: float = Field(
        default=60,
        ge=0.1,
        le=86400,
        description="Seconds to rest between two scans of all pools. What is wrong is repaired by the second "
        "scan that finds it.",
    )
    pools_per_second: int = Field(
        default=2000,
        ge=0,
        le=1_000_000,
        description="Most pools compared in a second; 0 is as fast as it goes. At the default it takes about a "
        "tenth of a core, and 8 minutes for a million pools.",
    )
    confirm_seconds: float = Field(
        default=60,
        ge=0,
        le=86400,
        description="Seconds for which a delete order must have been missing, at two looks, before it is restored; "
        "and for which a pool must have drifted, in the same way, before it is repaired. Far above what the explorer "
        "takes to finish what it has begun.",
    )
