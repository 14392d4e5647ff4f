"""What may forbid the daemon to act, for as long as it does."""

import asyncio
from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol


class Closed(StrEnum):
    """Why a gate is closed."""

    STOPPING = "stopping"
    STANDBY = "standby"
    CLOCK_UNKNOWN = "clock unknown"
    CLOCKS_APART = "clocks apart"


class Gate(Protocol):
    """Something that must hold for anything to be decommissioned."""

    def closed_by(self) -> Closed | None:
        """Return why nothing may be done now; None if this gate is open."""


class Gates:
    """Several gates in a row: all of them must be open."""

    def __init__(self, gates: Sequence[Gate] = ()) -> None:
        self._gates = gates

    def closed_by(self) -> Closed | None:
        """Return why the first closed gate is closed; None if all are open."""
        return next((reason for gate in self._gates if (reason := gate.closed_by()) is not None), None)


class StopGate:
    """Closes for good when the daemon is told to stop."""

    def __init__(self) -> None:
        self.stopped = asyncio.Event()

    def close(self) -> None:
        """Let nothing new begin."""
        self.stopped.set()

    def closed_by(self) -> Closed | None:
        """Return that the daemon is stopping, once it is."""
        return Closed.STOPPING if self.stopped.is_set() else None
