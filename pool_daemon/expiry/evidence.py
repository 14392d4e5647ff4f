"""Where the cause of failures lies: in single pools, or in what all of them share.

A server reports the failure on one document with the same words as a failure on all. So where the kind of an error does
not decide, a pool is blamed only if others could be settled; if everything that was tried failed alike, no pool is.
"""

import random
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from pool_daemon.errors import PoolDaemonError, Scope, StoreError
from pool_daemon.expiry.batches import Batch
from pool_daemon.store.error_mapping import kind_of
from pool_daemon.store.pools import DuePool

REMEMBERED: Final = 10_000
"""Pools remembered as having failed while nothing succeeded; beyond that the oldest is forgotten."""

SAMPLE: Final = 8
"""Pools that are tried one by one before all count as failing alike. They are drawn at random, so a customer that wants
to fake a common cause has to own nearly all that is due."""


class Evidence:
    """Collects the successes and failures of a pass; `is_blamed` returns whether a pool has been blamed before.

    Only a pool that lost a workload counts as a success: one that was merely synced proves nothing about the rest. A
    success after the pass in which a pool failed counts against that pool, too.
    """

    def __init__(self, *, is_blamed: Callable[[int], bool]) -> None:
        self._is_blamed = is_blamed
        self._successes = 0
        self._successes_before = 0
        self._failures: dict[int, Exception] = {}
        self._owners: dict[int, int | None] = {}
        self._suspects: dict[int, int] = {}

    def begin_pass(self) -> None:
        """Begin a pass: discard the failures of the pass before."""
        self._failures, self._owners = {}, {}
        self._successes_before = self._successes

    def succeeded(self, pool_ids: Collection[int]) -> None:
        """Record that some pools lost their workloads."""
        self._successes += len(pool_ids)
        for pool_id in self._suspects.keys() & set(pool_ids):
            del self._suspects[pool_id]

    def failed(self, pool: DuePool, error: Exception) -> None:
        """Record that a pool failed when it was tried alone."""
        self._failures[pool.pool_id] = error
        self._owners[pool.pool_id] = pool.owner

    @property
    def has_success(self) -> bool:
        """Whether anything succeeded in this pass."""
        return self._successes > self._successes_before

    @property
    def failures(self) -> Mapping[int, Exception]:
        """The pools that failed in this pass, each with its error."""
        return self._failures

    @property
    def owners(self) -> Mapping[int, int | None]:
        """The owners of the pools that failed in this pass, None where unreadable."""
        return self._owners

    def common_cause(self) -> Exception | None:
        """Return the error that all unblamed failed pools have in common; None if there is none.

        The pools that failed with it are remembered: if others succeed later, they are blamed the next time.
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
        """Return whether a single pool met an error that is not the database's: an unforeseen value."""
        return len(pool_ids) == 1 and not isinstance(self._failures[pool_ids[0]], StoreError)

    def _is_innocent(self, pool_id: int, error: Exception) -> bool:
        if isinstance(error, PoolDaemonError) and error.scope is Scope.POOL:
            return False
        others_succeeded = self._successes > self._suspects.get(pool_id, self._successes)
        return not others_succeeded and not self._is_blamed(pool_id)


class Isolation:
    """Finds the pools behind failed batches, once no other batch waits.

    As long as nothing has succeeded, single pools are drawn from all failed batches. If those fail alike, the rest is
    left alone, because it would fail, too. As soon as one succeeds, the failed batches are split until the failing
    pools are found.
    """

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._failed: list[Batch] = []

    def add(self, batch: Batch) -> None:
        """Add a batch of several pools that has failed."""
        self._failed.append(batch)

    def next_batches(self) -> list[Batch]:
        """Remove and return what to try next; nothing if no batch has failed, or if the rest is left alone."""
        if not self._failed:
            return []
        if self._evidence.has_success:
            batch = self._failed.pop()
            return batch.split() if len(batch.pools) > 1 else [batch]
        if len(self._evidence.failures) >= SAMPLE and self._evidence.common_cause() is not None:
            self._failed.clear()
            return []
        return [self._drawn()]

    def _drawn(self) -> Batch:
        """Remove one random pool from the failed batches, to be tried alone."""
        number = random.randrange(len(self._failed))  # noqa: S311 - a sample, not a secret
        batch = self._failed.pop(number)
        pool = random.choice(batch.pools)  # noqa: S311 - as above
        others = [each for each in batch.pools if each is not pool]
        if others:
            self._failed.append(replace(batch, pools=others))
        return replace(batch, pools=[pool])
