"""The comparison of pools with their workloads."""

from pydantic import Field

from pool_daemon.settings.sections.section import Section


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
