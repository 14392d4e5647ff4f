"""A brake that holds nothing, for tests of what it is not part of."""

from collections.abc import Collection, Sequence

from pool_daemon.store.pools import DuePool


class NoBrake:
    """Allows everything."""

    async def inspect(self, after: int | None, now: int) -> None:
        """Decide nothing."""

    async def filter_allowed(self, pools: Sequence[DuePool], *, now: int, full_scan: bool) -> list[DuePool]:
        del now, full_scan
        return list(pools)

    def settled(self, pool_ids: Collection[int], *, lost: Collection[int]) -> None:
        """Forget it."""

    def passed(self, *, complete: bool) -> None:
        """Forget it."""
