"""The watcher: turns changes into entries of the work queue, and tells the brake of writes; it reads no pool."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Literal, NamedTuple, Protocol

from pool_daemon.backoff import Backoff
from pool_daemon.clock import Clock
from pool_daemon.errors import StoreError, StoreRefusedError, StoreUnavailableError, StreamTokenError
from pool_daemon.events import PRIMARY_CHANGED, Teller
from pool_daemon.expiry.work_queue import Cause, WorkQueue
from pool_daemon.guards.unexpected import UnexpectedPools
from pool_daemon.settings import sections
from pool_daemon.store.changes import Change, ChangeStream, ChangeSubject, change_of

RESUMES: Final = 3
"""Errors in a row after which a resume token is discarded, whichever the errors are."""

OpenStream = Callable[[Mapping[str, Any] | None], AbstractAsyncContextManager[ChangeStream]]

StreamEnd = Literal["invalidated", "stalled", "token_lost", "unavailable", "refused", "error"]
"""Causes that end a change stream or keep it from opening."""


class StreamStalledError(StoreError):
    """The resume token stands still, which it never does on a working stream; the daemon reopens the stream."""


class StreamObserver(Teller, Protocol):
    """The receiver of the state of the change stream."""

    def stream_opened(self, *, resumed: bool) -> None:
        """Record that the change stream is open, where the one before ended or anew."""

    def stream_token_moved(self) -> None:
        """Record that the resume token moved: the change stream is alive."""

    def stream_lost(self, cause: StreamEnd, *, reason: str, retry_seconds: float) -> None:
        """Record what ended the change stream or kept it from opening: `cause` in one word, `reason` in detail."""

    def resume_token_discarded(self, cause: StreamEnd, *, reason: str) -> None:
        """Record what ended the change stream for good: what happened since is found by a full scan."""

    def changes_unreadable(self, changes: int, *, reason: str) -> None:
        """Record changes of the stream that were not understood."""


class PoolGuards(NamedTuple):
    """What the guards have to do with writes.

    `recent_writes` receives those that may move an end, for the brake. `is_failing` returns whether a pool has failed
    by itself: as soon as it is topped up, it has not.
    """

    recent_writes: UnexpectedPools
    is_failing: Callable[[int], bool]


class Watcher:
    """Keeps a change stream open and adds to the work queue what may have become due or moved.

    `open_stream` opens the stream behind a token, or now.
    """

    def __init__(
        self,
        *,
        open_stream: OpenStream,
        queue: WorkQueue,
        clock: Clock,
        settings: sections.Stream,
        observer: StreamObserver,
        guards: PoolGuards,
    ) -> None:
        self._open_stream = open_stream
        self._queue = queue
        self._clock = clock
        self._settings = settings
        self._observer = observer
        self._recent_writes = guards.recent_writes
        self._is_failing = guards.is_failing
        self._token: Mapping[str, Any] | None = None
        self._token_moved_monotonic = clock.monotonic()
        self._failures = 0
        self.watching = asyncio.Event()

    async def run(self) -> None:
        """Watch for ever; however a stream ends, another is opened."""
        backoff = Backoff()
        while True:
            try:
                await self._watch(backoff)
            except StreamTokenError as error:
                self._drop_token("token_lost", str(error))
            except StoreUnavailableError as error:
                await self._retry("unavailable", str(error), backoff)
            except StoreRefusedError as error:
                await self._retry("refused", str(error), backoff)
            except StreamStalledError as error:
                await self._retry("stalled", str(error), backoff)
            except StoreError as error:
                await self._resume_or_give_up(str(error), backoff)
            else:
                self._drop_token("invalidated", "its database was dropped")

    def primary_changed(self) -> None:
        """Request a full scan: an election may have rolled back what was read before, and no change reports that."""
        self._observer.tell(PRIMARY_CHANGED)
        self._queue.request_full_scan()

    async def _watch(self, backoff: Backoff) -> None:
        resumed = self._token is not None
        async with self._open_stream(self._token) as stream:
            self._observer.stream_opened(resumed=resumed)
            if not resumed:
                self._recent_writes.watching_since(int(self._clock.now()))
                self._queue.request_full_scan()
            self._token_moved_monotonic = self._clock.monotonic()
            self._queue.ring()
            self.watching.set()
            async for batch in stream:
                self._handle_all(batch.events)
                if self._check_token(batch.token):
                    backoff.reset()
                    self._failures = 0

    def _handle_all(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Handle each event; request a full scan if one cannot be read, for any reason.

        Any customer can write a document that no reader expects. That may cost a full scan but must not end the stream.
        """
        problems: list[str] = []
        for event in events:
            try:
                self._handle(change_of(event))
            except Exception as error:  # noqa: BLE001 - nothing that is written may end the daemon
                problems.append(f"{type(error).__name__}: {error}"[:200])
        if problems:
            self._observer.changes_unreadable(len(problems), reason=problems[0])
            self._queue.request_full_scan()

    def _handle(self, change: Change) -> None:
        if change.subject is ChangeSubject.COLLECTION:
            self._queue.request_full_scan()
        elif change.subject is ChangeSubject.WORKLOAD:
            self._handle_workload(change)
        else:
            self._handle_pool(change)

    def _handle_workload(self, change: Change) -> None:
        """Add the pool of a workload that was deployed or moved: no write to the pool itself reports that."""
        if change.pool_id is None:
            self._queue.add_workloads([change.subject_id])
        else:
            self._recent_writes.record(change.pool_id, None, change.at)
            self._queue.add(change.pool_id, at=int(self._clock.now()), cause=Cause.CHANGED)

    def _handle_pool(self, change: Change) -> None:
        if change.subject_id is not None and change.subject_id == self._queue.armed_pool_id:
            self._queue.ring()
        if change.removed:
            return
        if change.subject_id is not None and not change.amounts_only:
            self._recent_writes.record(change.subject_id, change.empty_at, change.at, change.owner)
        if not change.amounts_only or self._queue.may_be_checked_later(change.subject_id):
            self._enter(change)

    def _enter(self, change: Change) -> None:
        """Expect the end of a pool if it is known and to come; add the pool if it may be due, or was and has failed."""
        now, pool_id = self._clock.now(), change.subject_id
        if change.empty_at is not None and change.empty_at > now:
            self._queue.expect(change.empty_at)
            if pool_id is None or not self._is_failing(pool_id):
                return
        if pool_id is not None:
            self._queue.add(pool_id, at=int(now), cause=Cause.CHANGED)

    def _check_token(self, token: Mapping[str, Any]) -> bool:
        """Record the stream's position: only a moving token is a sign of life, an answer alone is none.

        Raises StreamStalledError if it has not moved for too long.
        """
        now = self._clock.monotonic()
        if token != self._token:
            self._token = token
            self._token_moved_monotonic = now
            self._observer.stream_token_moved()
            return True
        stall_seconds = self._settings.stall_seconds
        if now - self._token_moved_monotonic > stall_seconds:
            raise StreamStalledError(f"the resume token has not moved for {stall_seconds:g} s")
        return False

    async def _resume_or_give_up(self, reason: str, backoff: Backoff) -> None:
        self._failures += 1
        if self._failures < RESUMES:
            await self._retry("error", reason, backoff)
        else:
            self._drop_token("token_lost", f"{RESUMES} errors in a row: {reason}")
            await asyncio.sleep(backoff.next_seconds())

    def _drop_token(self, cause: StreamEnd, reason: str) -> None:
        """Discard the resume token: the changes behind it are lost, so the next opening requests a full scan."""
        self._observer.resume_token_discarded(cause, reason=reason)
        self._token = None
        self._failures = 0

    async def _retry(self, cause: StreamEnd, reason: str, backoff: Backoff) -> None:
        wait_seconds = backoff.next_seconds()
        self._observer.stream_lost(cause, reason=reason, retry_seconds=wait_seconds)
        await asyncio.sleep(wait_seconds)
