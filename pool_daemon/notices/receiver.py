"""A receiver of events, and what it makes of one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Delivered:
    """The receiver has taken the event."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The receiver did not take the event, or did not answer; it may have named how long to leave it alone."""

    reason: str
    retry_after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Gone:
    """The receiver wants no more events, ever."""

    reason: str


Outcome = Delivered | Failed | Gone


class Receiver(Protocol):
    """Takes events, one at a time."""

    name: str
    timeout_seconds: float

    async def send(self, event: Mapping[str, Any]) -> Outcome:
        """Send an event; return within `timeout_seconds`, whatever the receiver does, and raise nothing."""

    async def close(self) -> None:
        """Close connections."""
