"""Reports how long the database took to answer each command."""

from typing import Protocol

from pymongo import monitoring


class Told(Protocol):
    """Receives the duration of each command, in the driver's threads: it must be quick and thread-safe."""

    def __call__(self, name: str, seconds: float, /, *, failed: bool) -> None:
        """Record one command."""


class CommandLog(monitoring.CommandListener):
    """A listener of the driver; pass it to the client as one of its `event_listeners`.

    A command that the server refused and one that it never answered both count as failed.
    """

    def __init__(self, told: Told) -> None:
        self._told = told

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        """Ignore the start: the end has the duration."""

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Report an answer."""
        self._told(event.command_name, event.duration_micros / 1e6, failed=False)

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Report an error, or a connection that broke."""
        self._told(event.command_name, event.duration_micros / 1e6, failed=True)
