"""How the pools' books are held against their workloads."""

from pydantic import Field

from pool_daemon.settings.sections.section import Section


class Reconcile(Section):
    """How the pools' books are held against their workloads, in the background."""

    enabled: bool = Field(
        default=True,
        description="Whether it is done at all. It mends what other writers left wrong: deleted workloads that "
        "still count in their pool, rates that do not add up, orders to delete that vanished.",
    )
    interval_seconds: float = Field(
        default=60,
        ge=0.1,
        le=86400,
        description="Seconds to rest between two walks past all pools. What is wrong is mended by the second "
        "walk that finds it.",
    )
    pools_per_second: int = Field(
        default=2000,
        ge=0,
        le=1_000_000,
        description="Most pools looked at in a second; 0 is as fast as it goes. At the default it takes about a "
        "tenth of a core, and 8 minutes for a million pools.",
    )
    order_grace_seconds: float = Field(
        default=60,
        ge=0,
        le=86400,
        description="Seconds for which an order to delete must have been missing, at two looks, before it is put "
        "back; and a pool's books wrong, and in the same way, before they are mended. Far above what the explorer "
        "takes to finish what it has begun.",
    )
    hold_percent: float = Field(
        default=50,
        ge=0,
        le=100,
        description="If more than this share of the pools seem wrong at once, and more than 100, none is mended: "
        "workloads are then missing, as in a database restored by half, rather than deleted. 100 always mends.",
    )
