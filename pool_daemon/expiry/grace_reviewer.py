"""Watches the pools in grace: one that was topped up leaves it at once, and an operator's end is noticed."""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

from pool_daemon.capacity.grace import Ended, GraceEnd
from pool_daemon.clock import Clock
from pool_daemon.errors import StoreConflictError, StoreError
from pool_daemon.events import GRACE_REVIEW_FAILED, Teller
from pool_daemon.guards.gate import Gate
from pool_daemon.store.grace import GraceRecord

REVIEW_SECONDS: Final = 2.0
"""How soon a top-up or an operator's end is noticed. A round costs two queries for each thousand pools in grace."""

PURGE_SECONDS: Final = 3600.0
"""How often old records are removed."""


class GraceRecords(Protocol):
    """The records of grace; see GraceStore."""

    def list(self) -> AsyncGenerator[list[GraceRecord], None]:
        """Stream the records of pools in grace by id, in pages."""

    async def purge(self, *, now: int) -> int:
        """Remove records that say nothing any more at the unix second `now`; return how many."""


class ReviewedPools(Protocol):
    """Reads the pools in grace, and ends the grace of those that are not due any more; see GraceEnder."""

    @property
    def records(self) -> GraceRecords:
        """The records of their grace."""

    async def due_among(self, pool_ids: Sequence[int], *, now: int) -> set[int]:
        """Return those of some pools that are due at the unix second `now`."""

    async def end(self, pool_ids: Sequence[int], *, now: int) -> list[Ended]:
        """End the grace of those pools that are not due at the unix second `now`."""


class GraceObserver(Teller, Protocol):
    """The receiver of what becomes of graces."""

    def grace_ended(self, reason: GraceEnd) -> None:
        """Record that the grace of a resource of a pool has ended."""


class GraceReviewer:
    """Reviews the pools in grace for ever, while the gate is open.

    A settlement decides by the records and policies alone; this only has it look sooner. `look_again` is called with
    pools whose end an operator or a policy has changed, and with that second.
    """

    def __init__(
        self,
        *,
        pools: ReviewedPools,
        gate: Gate,
        clock: Clock,
        look_again: Callable[[Mapping[int, int]], None],
        observer: GraceObserver,
        sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep,
    ) -> None:
        self._pools = pools
        self._gate = gate
        self._clock = clock
        self._look_again = look_again
        self._observer = observer
        self._sleep = sleep
        self._looks_at_all = False
        self._purged_monotonic = -math.inf

    def look_at_all(self) -> None:
        """Have all pools in grace checked with the next round: a policy has changed, and with it their ends."""
        self._looks_at_all = True

    async def run(self) -> None:
        """Review them for ever; what fails is tried again with the next round."""
        while True:
            await self._sleep(REVIEW_SECONDS)
            try:
                await self.review()
            except StoreError as error:
                self._observer.tell(GRACE_REVIEW_FAILED, reason=str(error))

    async def review(self) -> None:
        """Review all pools in grace once.

        Raises StoreUnavailableError or StoreRefusedError.
        """
        if self._gate.closed_by() is not None:
            return
        looks_at_all, self._looks_at_all = self._looks_at_all, False
        try:
            await self._review(looks_at_all=looks_at_all)
        except StoreError:
            self._looks_at_all = self._looks_at_all or looks_at_all
            raise

    async def _review(self, *, looks_at_all: bool) -> None:
        await self._purge()
        async for page in self._pools.records.list():
            now = math.floor(self._clock.now())
            # The gate speaks of this very reading: by a wrong one no pool would be due.
            if self._gate.closed_by() is not None:
                return
            await self._review_page(page, now, looks_at_all=looks_at_all)

    async def _purge(self) -> None:
        """Remove old records now and then, by a clock that the gate vouches for."""
        if self._clock.monotonic() - self._purged_monotonic >= PURGE_SECONDS:
            now = math.floor(self._clock.now())
            if self._gate.closed_by() is None:
                await self._pools.records.purge(now=now)
                self._purged_monotonic = self._clock.monotonic()

    async def _review_page(self, page: Sequence[GraceRecord], now: int, *, looks_at_all: bool) -> None:
        pool_ids = [record.pool_id for record in page]
        due = await self._pools.due_among(pool_ids, now=now)
        if lasting := [pool_id for pool_id in pool_ids if pool_id not in due]:
            with suppress(StoreConflictError):  # a settlement was faster; the next round finds what is left
                for each in await self._pools.end(lasting, now=now):
                    self._observer.grace_ended(each.reason)
        if changed := [each.pool_id for each in page if each.pool_id in due and (looks_at_all or _is_ended(each, now))]:
            self._look_again(dict.fromkeys(changed, now))


def _is_ended(record: GraceRecord, now: int) -> bool:
    until = record.grace.operator_until
    return until is not None and until <= now
