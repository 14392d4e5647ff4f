"""Whose fault it is that pools could not be settled: their own, or that of what all of them share.

A server that refuses one document refuses it with the same words as one that refuses all. So where the kind of an error
does not tell, a pool is blamed only if others could be settled; where all that was tried failed alike, nobody is.
"""

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import Final

from pool_daemon.errors import PoolDaemonError, Scope, StoreError
from pool_daemon.store.failures import kind_of

REMEMBERED: Final = 10_000
"""Pools remembered as having failed while nothing succeeded; beyond that the oldest is forgotten."""

SAMPLE: Final = 8
"""So many pools are tried one by one before all are said to fail alike. They are drawn at random, so whoever wants to
look like a common cause has to own nearly all that is due."""


class Evidence:
    """Collects what succeeded and what failed in a pass; `is_blamed` tells of a pool whether it has been blamed before.

    Only a pool that lost a workload counts as a success: one that was merely synced proves nothing about the rest. A
    success after the pass in which a pool failed counts against that pool as well.
    """

    def __init__(self, *, is_blamed: Callable[[int], bool]) -> None:
        self._is_blamed = is_blamed
        self._successes = 0
        self._successes_before = 0
        self._failures: dict[int, Exception] = {}
        self._suspects: dict[int, int] = {}

    def begin_pass(self) -> None:
        """Forget what failed in the pass before."""
        self._failures = {}
        self._successes_before = self._successes

    def succeeded(self, pool_ids: Collection[int]) -> None:
        """Record that some pools lost their workloads."""
        self._successes += len(pool_ids)
        for pool_id in self._suspects.keys() & set(pool_ids):
            del self._suspects[pool_id]

    def failed(self, pool_id: int, error: Exception) -> None:
        """Record that a pool failed when it was tried alone."""
        self._failures[pool_id] = error

    @property
    def has_success(self) -> bool:
        """Whether anything succeeded in this pass."""
        return self._successes > self._successes_before

    @property
    def failures(self) -> Mapping[int, Exception]:
        """The pools that failed in this pass, each with its error."""
        return self._failures

    def common_cause(self) -> Exception | None:
        """Return the error that all have in common which failed and are above suspicion; None if there is no such.

        The pools that failed with it are remembered: should others succeed later on, they are blamed the next time.
        """
        innocent = [pool_id for pool_id, error in self._failures.items() if self._is_innocent(pool_id, error)]
        kinds: set[Hashable] = {kind_of(self._failures[pool_id]) for pool_id in innocent}
        if self.has_success or len(kinds) != 1 or self._is_a_mishap(innocent):
            return None
        for pool_id in innocent:
            self._suspects.setdefault(pool_id, self._successes)
            if len(self._suspects) > REMEMBERED:
                del self._suspects[next(iter(self._suspects))]
        return self._failures[innocent[0]]

    def _is_a_mishap(self, pool_ids: Sequence[int]) -> bool:
        """Return whether a single pool met an error that is not the database's: a value that nobody thought of."""
        return len(pool_ids) == 1 and not isinstance(self._failures[pool_ids[0]], StoreError)

    def _is_innocent(self, pool_id: int, error: Exception) -> bool:
        if isinstance(error, PoolDaemonError) and error.scope is Scope.POOL:
            return False
        others_succeeded = self._successes > self._suspects.get(pool_id, self._successes)
        return not others_succeeded and not self._is_blamed(pool_id)
