"""How far two clocks may be apart."""

from pydantic import Field

from pool_daemon.settings.sections.section import Section


class Clock(Section):
    """How far this machine's clock and the database's may be apart before nothing is done any more."""

    max_difference_seconds: float = Field(
        default=5,
        ge=0.1,
        le=3600,
        description="Seconds that the two clocks may be apart. Far above what NTP leaves, far below what would "
        "credit or rob a customer noticeably.",
    )
    check_seconds: float = Field(
        default=30,
        ge=0.1,
        le=3600,
        description="Seconds between two comparisons. A step of this machine's clock is noticed at once "
        "regardless, by one that never steps; one of the database's within that time.",
    )
