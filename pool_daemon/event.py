"""A kind of event: its name in the log, how loud it is, what it means, and what to do. `events` has all of them."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Protocol


class Level(StrEnum):
    """The severity of an event: an error needs an operator now, a warning soon."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class Event:
    """One row. `logger` is the part that tells it, `remedy` what an operator does; None if that is nothing."""

    logger: str
    name: str
    level: Level
    meaning: str
    remedy: str | None = None


class Teller(Protocol):
    """The receiver of events."""

    def tell(self, event: Event, **fields: Any) -> None:
        """Log an event with some fields."""


@dataclass(frozen=True, slots=True)
class Part:
    """Makes the rows of one part of the daemon; what is a warning or worse has to name the remedy."""

    logger: str

    def debug(self, name: str, meaning: str) -> Event:
        """Make a row that only a developer reads."""
        return Event(self.logger, name, Level.DEBUG, meaning)

    def info(self, name: str, meaning: str, remedy: str | None = None) -> Event:
        """Make a row on the usual course of things."""
        return Event(self.logger, name, Level.INFO, meaning, remedy)

    def warning(self, name: str, meaning: str, remedy: str) -> Event:
        """Make a row that needs an operator soon."""
        return Event(self.logger, name, Level.WARNING, meaning, remedy)

    def error(self, name: str, meaning: str, remedy: str) -> Event:
        """Make a row that needs an operator now."""
        return Event(self.logger, name, Level.ERROR, meaning, remedy)

    def critical(self, name: str, meaning: str, remedy: str) -> Event:
        """Make a row on a state that must never occur."""
        return Event(self.logger, name, Level.CRITICAL, meaning, remedy)


RETRIED: Final = "nothing, unless it goes on: it is tried again"
