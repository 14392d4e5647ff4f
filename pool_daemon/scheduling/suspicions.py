"""What was found amiss once: most of it is only in the middle of being done, and right at the second look."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from pool_daemon.clock import Clock
from pool_daemon.settings.sections import Reconcile

REMEMBERED: Final = 20_000
"""Suspicions kept in mind, a few megabytes. What exceeds that waits until others have been confirmed or forgotten;
were old ones dropped for new ones instead, none would ever see its second look."""

K = TypeVar("K", bound=Hashable)


@dataclass(slots=True)
class _Suspicion:
    fingerprint: int
    since: float
    walk: int


class Suspicions(Generic[K]):
    """Remembers by a key what was found and when, until the same is found again `order_grace_seconds` later."""

    def __init__(self, *, clock: Clock, settings: Reconcile) -> None:
        self._clock = clock
        self._settings = settings
        self._known: dict[K, _Suspicion] = {}
        self._walk = 0

    def confirmed(self, key: K, finding: Hashable = None) -> bool:
        """Note a finding; True, once, if it is the same as long enough ago.

        What has changed in between counts as found for the first time.
        """
        now = self._clock.monotonic()
        known = self._known.get(key)
        if known is None or known.fingerprint != hash(finding):
            if known is not None or len(self._known) < REMEMBERED:
                self._known[key] = _Suspicion(hash(finding), now, self._walk)
            return False
        known.walk = self._walk
        if now - known.since < self._settings.order_grace_seconds:
            return False
        del self._known[key]
        return True

    def end_walk(self) -> None:
        """Forget what this walk has not found again."""
        self._known = {key: known for key, known in self._known.items() if known.walk == self._walk}
        self._walk += 1

    def clear(self) -> None:
        """Forget everything."""
        self._known.clear()
