"""When more is due than seems right."""

from pydantic import Field

from pool_daemon.settings.sections.section import Section


class Brake(Section):
    """When more is due than seems right, as after a restored backup, it is held until an operator says otherwise."""

    enabled: bool = Field(
        default=True,
        description="Whether anything is ever held. If not, everything due is settled, whatever it is.",
    )
    share: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="Part of all pools in use that may fall due at once. If more do, and more than brake.pools, "
        "all that fell due at once are held.",
    )
    pools: int = Field(
        default=100,
        ge=0,
        le=1_000_000_000,
        description="Pools that may fall due at once, however small the whole. Only those count that would lose a "
        "workload.",
    )
    age_seconds: float = Field(
        default=86400,
        ge=1,
        le=315_360_000,
        description="Seconds that a pool may be overdue when the daemon first looks after a start. What is overdue "
        "by more is held: it ran out while nobody looked for a long time, or comes from an old backup.",
    )
