"""The journal: records that are written beside what they tell of, so that no pass and no lease waits for one.

Thousands of pools may be held within a second, and a take-over is worth its record, but neither may be delayed or fail
for it. What belongs to a transaction is not written here, but in it; see `events`.
"""

import asyncio
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from itertools import islice
from typing import Any, Final

from pool_daemon.backoff import Backoff
from pool_daemon.clock import Clock
from pool_daemon.errors import StoreError
from pool_daemon.events import RECORDS_LOST, RECORDS_NOT_WRITTEN, Teller
from pool_daemon.store.events import EventStore
from pool_daemon.store.records import EventKind, Subject, Why, envelope

MOST_WAITING: Final = 20_000
"""Records that wait at most, some 20 MB of them; they wait as long as the database is away."""

PORTION: Final = 1000
"""Records a write: some 30 ms of the server's."""

LONGEST_SECONDS: Final = 60.0
"""The longest wait before a failed write is repeated."""

CLOSE_SECONDS: Final = 2.0
"""How long a stop waits for the last records."""


class Journal:
    """Keeps records until they are written; `add` never waits and never fails.

    A record is inserted once, however often its write is repeated. Those that wait when the daemon is killed are lost,
    as are those beyond `MOST_WAITING`. In a `dry_run` nothing is recorded.
    """

    def __init__(self, *, events: EventStore, clock: Clock, observer: Teller, dry_run: bool = False) -> None:
        self._events = events
        self._clock = clock
        self._tell = observer.tell
        self._dry_run = dry_run
        self._waiting: deque[Mapping[str, Any]] = deque()
        self._lost = 0
        self._added = asyncio.Event()
        self._writing = asyncio.Lock()

    def add(self, kind: EventKind, subject: Subject, why: Why) -> None:
        """Record that this was done just now."""
        if self._dry_run:
            return
        if len(self._waiting) >= MOST_WAITING:
            self._lost += 1
            return
        self._waiting.append(envelope(kind, at=self._clock.now(), actor=self._events.actor, subject=subject, why=why))
        self._added.set()

    async def run(self) -> None:
        """Write records as they come, for ever; after an error those that wait are tried again."""
        backoff = Backoff(longest_seconds=LONGEST_SECONDS)
        while True:
            await self._added.wait()
            self._added.clear()
            try:
                await self.write()
            except StoreError as error:
                self._tell(RECORDS_NOT_WRITTEN, records=len(self._waiting), reason=str(error))
                self._added.set()
                await asyncio.sleep(backoff.next_seconds())
            else:
                backoff.reset()

    async def write(self) -> None:
        """Write all that waits.

        Raises StoreUnavailableError or StoreRefusedError; what is not written waits on.
        """
        async with self._writing:
            while portion := list(islice(self._waiting, PORTION)):
                await self._events.add(portion)
                for _ in portion:  # what was added meanwhile stands behind them
                    self._waiting.popleft()
        lost, self._lost = self._lost, 0
        if lost:
            self._tell(RECORDS_LOST, records=lost, reason=f"more than {MOST_WAITING:,} waited")

    async def close(self) -> None:
        """Write what still waits, for a moment; never raises."""
        with suppress(TimeoutError, StoreError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.write()
        if self._waiting:
            self._tell(RECORDS_LOST, records=len(self._waiting), reason="the daemon stops, and MongoDB is away")
