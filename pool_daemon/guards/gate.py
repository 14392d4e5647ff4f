"""The gates: conditions that must hold for the daemon to act at all."""

import asyncio
from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol


class Closed(StrEnum):
    """The reason for which a gate is closed."""

    STOPPING = "stopping"
    STANDBY = "standby"
    CLOCK_UNKNOWN = "clock unknown"
    CLOCKS_APART = "clocks apart"


class Gate(Protocol):
    """A condition that must hold for any decommissioning."""

    def closed_by(self) -> Closed | None:
        """Return the reason for which the daemon may not act now; None if this gate is open."""


class Gates:
    """Several gates in a row: all of them must be open."""

    def __init__(self, gates: Sequence[Gate] = ()) -> None:
        self._gates = gates

    def closed_by(self) -> Closed | None:
        """Return the reason of the first closed gate; None if all are open."""
        return next((reason for gate in self._gates if (reason := gate.closed_by()) is not None), None)


class StopGate:
    """The gate that closes for good when a stop is requested."""

    def __init__(self) -> None:
        self.stopped = asyncio.Event()

    def close(self) -> None:
        """Close the gate for good."""
        self.stopped.set()

    def closed_by(self) -> Closed | None:
        """Return STOPPING once a stop is requested."""
        return Closed.STOPPING if self.stopped.is_set() else None
