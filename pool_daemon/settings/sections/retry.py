"""The retries of a pool that fails."""

from pydantic import Field

from pool_daemon.settings.sections.section import Section


class Retry(Section):
    """The retries of a pool that fails by itself. An outage of the database does not count as a failure."""

    attempts: int = Field(
        default=5,
        ge=1,
        le=100,
        description="Failures in a row after which a pool goes into quarantine.",
    )
    initial_backoff_seconds: float = Field(
        default=1,
        ge=0.1,
        le=3600,
        description="Longest wait, in seconds, before the second try. It doubles each time.",
    )
    max_backoff_seconds: float = Field(
        default=300,
        ge=0.1,
        le=86400,
        description="Longest wait between two tries, in seconds, before the quarantine.",
    )
    quarantine_seconds: float = Field(
        default=3600,
        ge=1,
        le=604800,
        description="Seconds between two tries of a pool in quarantine, plus or minus a tenth.",
    )
