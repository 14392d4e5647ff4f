"""How long to wait before trying again: longer each time, never the same for two daemons, never too long."""

import random
from typing import Final

FIRST_SECONDS: Final = 0.2
"""The longest first wait: an election takes longer than that, a dropped connection does not."""

LONGEST_SECONDS: Final = 10.0
"""The longest wait at all: this much later than the database the daemon may come back."""


class Backoff:
    """Waits that double, each drawn at random from its upper half."""

    def __init__(self, *, first_seconds: float = FIRST_SECONDS, longest_seconds: float = LONGEST_SECONDS) -> None:
        self._first = first_seconds
        self._longest = longest_seconds
        self._tries = 0

    def next_seconds(self) -> float:
        """Return the next wait, in seconds."""
        ceiling = min(self._longest, self._first * 2 ** min(self._tries, 32))
        self._tries += 1
        return random.uniform(ceiling / 2, ceiling)  # noqa: S311 - jitter, not a secret

    def reset(self) -> None:
        """Begin anew, after a success."""
        self._tries = 0
