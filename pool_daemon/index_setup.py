"""The indexes: missing ones are built in the background, and a warning is logged where that is impossible."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol

from pool_daemon.backoff import Backoff
from pool_daemon.errors import StoreError, StoreRefusedError, StoreUnavailableError
from pool_daemon.events import INDEX_MISSING, SETUP_FAILED, Teller
from pool_daemon.store.setup import Index

RECHECK_SECONDS: Final = 300.0
"""Interval at which missing indexes are looked for: one may have been dropped, or the obstacle to a build may be
gone."""

REMEDY: Final = (
    "have an administrator run deploy/mongodb/create-user.js, which makes the indexes, with KEEP_DAYS set to "
    "events.keep_days, 0 too; or make it by hand"
)

USELESS: Final = (
    "there is one of these fields already, but it is hidden, partial, sparse, expiring or has another collation"
)
"""The reason for an index that the server did not build although it reported no conflict."""


class IndexObserver(Teller, Protocol):
    """The receiver of the state of the indexes."""

    def indexes_made(self) -> None:
        """Record that every missing index has been tried."""

    def indexes_missing(self, missing: Mapping[str, str]) -> None:
        """Record which indexes are missing, and why."""


class IndexSetup:
    """Finds missing indexes and builds them, one after the other.

    The daemon works without them, only slower, so nothing waits for a build. An index that cannot be built, for lack of
    a privilege or because of the documents, is logged once and tried again later. `built` is called after each build.
    """

    def __init__(
        self,
        *,
        missing: Callable[[], Awaitable[Sequence[Index]]],
        build: Callable[[Index], Awaitable[None]],
        built: Callable[[], None],
        observer: IndexObserver,
    ) -> None:
        self._missing = missing
        self._build = build
        self._built = built
        self._observer = observer
        self._problems: Mapping[str, str] = {}

    async def run(self) -> None:
        """Find and build missing indexes for ever, at intervals; retry after an outage."""
        backoff = Backoff()
        while True:
            try:
                await self._attempt()
            except StoreError as error:
                self._observer.tell(SETUP_FAILED, reason=str(error))
                await asyncio.sleep(backoff.next_seconds())
            else:
                backoff.reset()
                await asyncio.sleep(RECHECK_SECONDS)

    async def _attempt(self) -> None:
        """Build the missing indexes.

        Raises StoreUnavailableError if the database goes away, and any StoreError if it cannot list its indexes.
        """
        try:
            missing = await self._missing()
        except StoreRefusedError as error:  # the daemon may have the right to read, but not to list indexes
            self._tell({"all": str(error)})
            return
        problems = dict(self._problems)
        self._observer.indexes_missing({index.label: problems.get(index.label, "is being built") for index in missing})
        problems.clear()
        for index in missing:
            try:
                await self._build(index)
            except StoreUnavailableError:
                raise
            except StoreError as error:
                problems[index.label] = str(error)
            else:
                self._built()
        for index in await self._missing() if missing else ():
            problems.setdefault(index.label, USELESS)
        self._tell(problems)

    def _tell(self, problems: Mapping[str, str]) -> None:
        for label, reason in problems.items():
            if self._problems.get(label) != reason:
                self._observer.tell(INDEX_MISSING, index=label, reason=reason, remedy=REMEDY)
        self._problems = problems
        self._observer.indexes_missing(problems)
        self._observer.indexes_made()
