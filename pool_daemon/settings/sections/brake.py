"""The brake on unexpected expirations."""

from pydantic import Field

from pool_daemon.settings.sections.section import Section


class Brake(Section):
    """When more pools than usual end unexpectedly, as after a restored backup, they wait for an operator."""

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
        description="Seconds for which a pool's end must have been in the database to be expected.",
    )
    per_owner: int = Field(
        default=5,
        ge=1,
        le=1_000_000,
        description="Unexpected pools that one owner counts for at most, so that no customer can cause "
        "another customer's pool to be held. Of pools found overdue it is a quarter of brake.min_pools, if that is "
        "more.",
    )
