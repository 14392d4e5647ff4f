"""Dry-run evaluation: which due pools would lose workloads if they were settled now."""

import sys
from collections import Counter
from collections.abc import Sequence
from typing import Final

from pool_daemon.store.case_reader import CaseReader
from pool_daemon.store.cases import Limits
from pool_daemon.store.client import Database
from pool_daemon.store.grace_decisions import GraceReader

PORTION: Final = Limits(workloads=500, size=sys.maxsize)
"""Pools, and workloads, that are evaluated at once. Nothing is copied; the documents read along are at most four
megabytes."""


class ImpactReader:
    """Evaluates due pools as a settlement does, without writing to them.

    A pool whose workloads are decommissioned already, are free, or use only resources that still last, loses nothing:
    it may stay due for years. Every method raises StoreUnavailableError when MongoDB is away, and StoreRefusedError
    when it refuses.
    """

    def __init__(self, *, database: Database, grace: GraceReader | None = None) -> None:
        self._cases = CaseReader(database=database, grace=grace)

    async def of(self, pool_ids: Sequence[int], *, now: int) -> Counter[int]:
        """Return, by id, how many workloads some pools would lose if they were settled at the unix second `now`."""
        affected: Counter[int] = Counter()
        most = PORTION.workloads
        portions = [(pool_ids[start : start + most], None) for start in range(0, len(pool_ids), most)]
        while portions:
            ids, after = portions.pop()
            found = await self._cases.read(ids, now=now, limits=PORTION, after=after, session=None)
            for case in found.cases:
                if case.gone:
                    affected[case.as_read.pool_id] += len(case.gone)
            if found.left_over:
                portions.append((found.left_over, None))
            if found.rest is not None:
                portions.append(([found.rest.pool_id], found.rest.after))
        return affected
