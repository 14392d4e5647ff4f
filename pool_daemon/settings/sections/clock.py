"""Limits on the difference between two clocks."""

from pydantic import Field

from pool_daemon.settings.sections.section import Section


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
