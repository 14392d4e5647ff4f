"""A brake that holds nothing, for tests of what it is not part of."""

from collections.abc import Collection, Sequence

from pool_daemon.store.cases import Settlement
from pool_daemon.store.pools import DuePool


class NoBrake:
    """Allows everything."""

    async def inspect(self, after: int | None, now: int) -> None:
        """Decide nothing."""

    async def filter_allowed(self, pools: Sequence[DuePool], *, now: int, full_scan: bool) -> list[DuePool]:
        del now, full_scan
        return list(pools)

    async def judge(self, pool_ids: Collection[int], settlement: Settlement, *, now: int, full_scan: bool) -> set[int]:
        del pool_ids, settlement, now, full_scan
        return set()

    def passed(self, *, complete: bool) -> None:
        del complete
