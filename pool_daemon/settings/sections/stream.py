"""The change stream."""

from pydantic import Field

from pool_daemon.settings.sections.section import Section


class Stream(Section):
    """The change stream, which reports the changes of other writers."""

    stall_seconds: float = Field(
        default=30,
        ge=0.1,
        le=3600,
        description="Seconds after which a stream whose resume token stands still counts as dead and is "
        "opened again. The token moves about every ten seconds even when nothing happens.",
    )
