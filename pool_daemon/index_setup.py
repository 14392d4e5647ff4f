"""The indexes: built in the background where they are missing, and missed aloud where they cannot be built."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol

import structlog

from pool_daemon.backoff import Backoff
from pool_daemon.errors import StoreError, StoreRefusedError, StoreUnavailableError
from pool_daemon.store.setup import Index

RECHECK_SECONDS: Final = 300.0
"""How often the indexes are looked for again: one may have been dropped, or what kept it from being built is gone."""

REMEDY: Final = "have an administrator run deploy/mongodb/create-user.js, which makes the indexes, or make it by hand"

USELESS: Final = "there is one of these fields already, but it is hidden, partial, sparse, expiring or has a collation"
"""Of an index that the server did not build although it reported none to be in the way."""

log = structlog.get_logger("pool_daemon.index_setup")


class IndexObserver(Protocol):
    """Who is told of the indexes."""

    def indexes_made(self) -> None:
        """Hear that all was tried that can be done about the indexes."""

    def indexes_missing(self, missing: Mapping[str, str]) -> None:
        """Hear which indexes are missing, and why."""


class IndexSetup:
    """Looks for the indexes that the daemon needs and builds those that are missing, one after the other.

    The daemon works without them, only slower, so nothing waits for a build. One that cannot be built, be it for want
    of the right or for what the documents hold, is told once and tried again later. `built` is called when one was
    built.
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
        """Look and build for ever, at intervals; an outage is waited out."""
        backoff = Backoff()
        while True:
            try:
                await self._attempt()
            except StoreError as error:
                log.warning("setup_failed", reason=str(error))
                await asyncio.sleep(backoff.next_seconds())
            else:
                backoff.reset()
                await asyncio.sleep(RECHECK_SECONDS)

    async def _attempt(self) -> None:
        """Build what is missing.

        Raises StoreUnavailableError if the database goes away, and any StoreError if it cannot say what is there.
        """
        try:
            missing = await self._missing()
        except StoreRefusedError as error:  # it may read without knowing what is there
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
                log.warning("index_missing", index=label, reason=reason, remedy=REMEDY)
        self._problems = problems
        self._observer.indexes_missing(problems)
        self._observer.indexes_made()
