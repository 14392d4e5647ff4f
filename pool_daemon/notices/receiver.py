"""A receiver of events, and what it makes of one."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from pool_daemon.errors import PoolDaemonError
from pool_daemon.plain_text import escaped

REASON_CHARACTERS: Final = 150


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


def digest_of(*settings: str) -> str:
    """Return what tells settings from others, and does not betray them."""
    return hashlib.sha256("\0".join(settings).encode()).hexdigest()[:16]


def reason_of(error: Exception) -> str:
    """Return an error as one short line; one that was not raised on purpose with its type."""
    text = str(error) if isinstance(error, PoolDaemonError) else f"{type(error).__name__}: {error}"
    return escaped(text)[:REASON_CHARACTERS]


class Receiver(Protocol):
    """Takes events, one at a time; `digest` stands for its settings."""

    name: str
    digest: str
    timeout_seconds: float

    async def send(self, event: Mapping[str, Any]) -> Outcome:
        """Send an event; return within `timeout_seconds`, whatever the receiver does, and raise nothing."""

    async def close(self) -> None:
        """Close connections."""
