"""The waits between retries: each longer than the last, random so that two daemons differ, and bounded."""

import random
from typing import Final

FIRST_SECONDS: Final = 0.2
"""The longest first wait: shorter than an election, longer than it takes to restore a dropped connection."""

LONGEST_SECONDS: Final = 10.0
"""The longest wait: the daemon may resume this much later than the database."""


class Backoff:
    """Waits that double, each drawn at random from the upper half of its range."""

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
        """Start again with the shortest wait, after a success."""
        self._tries = 0
