"""The section of the settings for grace: how much longer a workload of each type may stay."""

from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field

from pool_daemon.durations import seconds_of
from pool_daemon.settings.fields import Section

LONGEST_SECONDS: Final = 366 * 86_400
"""The longest grace, and the largest budget."""


def duration_seconds(duration: str) -> int:
    """Return the length of a duration, such as 0, 30min or 7d. Raises ValueError if it is none, or over 366 days."""
    seconds = 0 if duration == "0" else seconds_of(duration)
    if seconds is None or seconds > LONGEST_SECONDS:
        raise ValueError('must be "0" or a duration up to 366d, such as "30min", "12h" or "7d"')
    return seconds


def _usable_duration(duration: str) -> str:
    duration_seconds(duration)
    return duration


def _text_of_none(value: Any) -> Any:
    """Take the number 0 for its text."""
    return "0" if type(value) is int and value == 0 else value


Duration = Annotated[str, BeforeValidator(_text_of_none), AfterValidator(_usable_duration)]

TIME: Final = 'A duration such as "30min", "12h" or "7d"; "0" is none.'


class Grace(Section):
    """Grace: for how long workloads stay although their pool has run empty, at the farmer's cost; off by default."""

    zdb: Duration = Field(
        default="0",
        description=f"For how long a 0-DB stays after the storage of its pool has run out. {TIME} Suggested: 7d.",
    )
    container: Duration = Field(
        default="0",
        description=f"For how long a container stays after what it uses has run out. {TIME} Suggested: none.",
    )
    volume: Duration = Field(
        default="0",
        description=f"For how long a volume stays; what is on it cannot be brought back. {TIME} Suggested: 7d.",
    )
    kubernetes: Duration = Field(
        default="0", description=f"For how long a node of Kubernetes stays. {TIME} Suggested: 1d."
    )
    public_ip: Duration = Field(
        default="0", description=f"For how long a public IP address stays. {TIME} Suggested: 1d."
    )
    virtual_machine: Duration = Field(
        default="0", description=f"For how long a virtual machine stays. {TIME} Suggested: 1d."
    )
    budget: Duration = Field(
        default="7d",
        description="For how long a pool may be in grace at most, all times within 30 days together: topping up by a "
        "second each day buys nothing.",
    )
    until_told: bool = Field(
        default=False,
        description="Whether what has grace waits, once that is over, until the notice of the end of its pool was "
        "delivered. Needs notices.before, and webhook.url or alertmanager.url.",
    )
    until_told_seconds: int = Field(
        default=86_400,
        ge=1,
        le=2_592_000,
        description="Seconds for which grace.until_told waits at most.",
    )

    @property
    def seconds(self) -> dict[str, int]:
        """The seconds by the name of the type, without those that have none."""
        times = {name: duration_seconds(getattr(self, name)) for name in TYPES}
        return {name: seconds for name, seconds in times.items() if seconds}


TYPES: Final = ("zdb", "container", "volume", "kubernetes", "public_ip", "virtual_machine")
"""The types of workloads that drain a pool; the others never go."""
