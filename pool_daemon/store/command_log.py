"""How long the database took to answer each command, told upwards as it comes."""

from typing import Protocol

from pymongo import monitoring


class Told(Protocol):
    """Whoever is told of every command: from the driver's threads, so it must be quick and safe for that."""

    def __call__(self, name: str, seconds: float, /, *, failed: bool) -> None:
        """Hear of one command."""


class CommandLog(monitoring.CommandListener):
    """Listens to the driver; one is given to the client when it is made, as one of its `event_listeners`.

    A command that the server refused and one that it never answered both count as failed.
    """

    def __init__(self, told: Told) -> None:
        self._told = told

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        """Pass over a beginning: the end knows the duration."""

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Tell of an answer."""
        self._told(event.command_name, event.duration_micros / 1e6, failed=False)

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Tell of an error, or of a connection that broke."""
        self._told(event.command_name, event.duration_micros / 1e6, failed=True)
