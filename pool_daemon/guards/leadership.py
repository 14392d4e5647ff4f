"""Two daemons at once, one acts: the one that holds the lease, for as long as it can be sure of holding it.

The invariant: **at no instant is the gate of two processes open**. It holds because

- the lease lasts `seconds` by the database's clock, from an instant after the renewal was sent; its holder trusts it
  for `TRUSTED_FRACTION` of that, by its own clock, from the instant *before* the renewal was sent. So its trust ends
  before the lease does, even if this process stood still in between, as long as the database's clock runs at most 25 %
  faster than the holder's;
- another takes the lease only if it has expired, was released after the gate was shut for good, or has not changed for
  a whole lease by the other's own clock, of which the same 25 % is true;
- each of these is one atomic operation: taking is refused if anything has happened to the lease since it was looked at,
  renewing and releasing if another has taken it.

Nothing is asked of the wall clocks of the daemons. What can break it: a database whose clock is set forward by more
than the margin, a guest whose machine is paused without being told, a hand that deletes or rewrites the lease as
another starts, and two processes of one `lease.identity`, of which the newer is taken for the older one restarted.
Then two act at once until the next renewal of one is refused, and what they do stays right: every effect is conditional
on what the database holds at that moment.
"""

import asyncio
import math
import random
from collections.abc import Callable
from enum import StrEnum
from typing import Final

from pool_daemon import events
from pool_daemon.backoff import Backoff
from pool_daemon.clock import Clock
from pool_daemon.errors import PoolDaemonError
from pool_daemon.guards.gate import Closed
from pool_daemon.store.lease import TERMS, LeaseRecord
from pool_daemon.store.records import NO_SUBJECT, EventKind, Recording, Why, no_recording
from pool_daemon.store.store import Leases

TRUSTED_FRACTION: Final = 0.8
"""The part of the lease that its holder trusts; the rest, 3 s of 15, is the margin. The clocks need less: chrony slews
at most 8.3 % unless told otherwise, so one clock that hurries and one that lags differ by 18 %, and 25 % fit. The
margin is that wide because a batch begun while the gate was open may still be committing, and because after an election
it is another member's clock that counts."""

RENEWALS_PER_LEASE: Final = 3
"""A renewal that fails, even by its whole time-out, leaves time for another before trust ends."""

POLL_SECONDS: Final = 0.5
"""Interval at which a standby reads the lease, so that a released one is taken within a second."""

SHORTEST_WAIT_SECONDS: Final = 0.005
"""A standby waits for the very instant of expiry, but the database's dates end at the millisecond."""


class Role(StrEnum):
    """The role of this daemon among the daemons of its database."""

    STARTING = "starting"
    LEADER = "leader"
    STANDBY = "standby"
    DRY_RUN = "dry run"


class Leadership:
    """A gate that is open in one process at a time: the one that holds the lease.

    `on_acquired` is called each time the gate opens: what fell due while it was shut is to be looked at. `record` is
    called with each take-over. `clock` must go on counting while the machine sleeps.
    """

    def __init__(
        self,
        *,
        store: Leases,
        clock: Clock,
        on_acquired: Callable[[], None],
        observer: events.Teller,
        record: Recording = no_recording,
    ) -> None:
        self._store = store
        self._clock = clock
        self._tell = observer.tell
        self._on_acquired = on_acquired
        self._record = record
        self._backoff = Backoff(longest_seconds=store.seconds / RENEWALS_PER_LEASE)
        self._stepping = asyncio.Lock()
        self._resigned = False
        self._term: int | None = None
        self._trusted_until_monotonic = -math.inf
        self._leading = False
        self._deposed = False
        self._told_holder: str | None = None
        self._seen: LeaseRecord | None = LeaseRecord()
        self._unchanged_since_monotonic = -math.inf  # as far as is known there never was a lease
        self._latest_term = 0
        self._held_monotonic: float | None = None

    @property
    def term(self) -> int | None:
        """The term in which this process holds the lease, as far as it knows; None if it does not."""
        return self._term

    @property
    def holder(self) -> str | None:
        """The identity of the lease's holder, as far as this process knows."""
        if self.closed_by() is None:
            return self._store.identity
        return None if self._seen is None else self._seen.holder

    @property
    def held_monotonic(self) -> float | None:
        """Monotonic time at which this process last held the lease or saw another renew it; None if never."""
        return self._held_monotonic

    @property
    def role(self) -> Role:
        """The current role of this daemon."""
        return Role.LEADER if self.closed_by() is None else Role.STANDBY

    def closed_by(self) -> Closed | None:
        """Return that it stands by, unless this process holds the lease and may still trust that.

        Compares with the clock each time, so a process that stood still finds its trust gone as soon as it goes on.
        """
        trusted = not self._resigned and self._clock.monotonic() < self._trusted_until_monotonic
        return None if trusted else Closed.STANDBY

    async def run(self) -> None:
        """Hold the lease, or stand by for it, until `release`; an outage of the database does not end it.

        Keep it running until the pass in progress has finished, which needs the lease, too.
        """
        while not self._resigned:
            async with self._stepping:
                wait_seconds = await self._step()
            await asyncio.sleep(wait_seconds)

    async def release(self) -> None:
        """Shut the gate for good and let the lease go, so that a standby need not wait for it to expire.

        To be called when nothing is under way any more, and before `run` is cancelled: a step of it that has begun is
        finished first, so that no lease is taken that is never released. Takes `lease.seconds` at the worst, when the
        database is away. Never raises: what is not released expires.
        """
        self._resigned = True
        async with self._stepping:
            term, self._term = self._term, None
            if term is None:
                return
            try:
                if await self._store.release(term=term):
                    self._tell(events.LEASE_RELEASED, term=term)
            except PoolDaemonError as error:
                self._tell(events.LEASE_NOT_RELEASED, term=term, reason=str(error))

    async def _step(self) -> float:
        """Do what is to be done now; return how long nothing is to be done after it, in seconds."""
        self._notice_end_of_trust()
        try:
            wait_seconds = await (self._stand_by() if self._term is None else self._renew(self._term))
        except PoolDaemonError as error:
            wait_seconds = self._backoff.next_seconds()
            self._tell(events.LEASE_UNAVAILABLE, reason=str(error), retry_seconds=round(wait_seconds, 3))
        else:
            self._backoff.reset()
        return wait_seconds

    async def _renew(self, term: int) -> float:
        sent_monotonic = self._clock.monotonic()
        if await self._store.renew(term=term):
            return self._hold(
                term, sent_monotonic=sent_monotonic, reason="renewed", previous_holder=self._store.identity
            )
        self._lose("another daemon has taken it, or it was edited by hand")
        self._term = None
        self._deposed = True
        return 0.0

    async def _stand_by(self) -> float:
        seen = await self._store.look()
        self._note(seen)
        reason = self._why_free(seen)
        if reason is None:
            if seen.holder is not None:  # what cannot be read is waited for, but is not held
                self._held_monotonic = self._unchanged_since_monotonic
            self._tell_standby(seen)
            return min(POLL_SECONDS, max(SHORTEST_WAIT_SECONDS, seen.remaining_seconds))
        term = (self._latest_term + 1) % TERMS or 1
        sent_monotonic = self._clock.monotonic()
        if await self._store.take(seen, term=term):
            if reason != "released":
                await self._end_sessions(seen)
            wait_seconds = self._hold(term, sent_monotonic=sent_monotonic, reason=reason, previous_holder=seen.holder)
            from_whom = f", held by {seen.holder} before" if seen.holder else ""
            self._record(EventKind.TOOK_OVER, NO_SUBJECT, Why(f"the lease was {reason}{from_whom}"))
            return wait_seconds
        return POLL_SECONDS

    async def _end_sessions(self, seen: LeaseRecord) -> None:
        """Have what the former holder may have left open locked no longer; it takes over without that, too."""
        try:
            await self._store.end_sessions(seen)
        except PoolDaemonError as error:
            self._tell(events.LEASE_SESSIONS_NOT_ENDED, reason=str(error))

    def _hold(self, term: int, *, sent_monotonic: float, reason: str, previous_holder: str | None) -> float:
        """Trust the lease from when it was asked for; return the seconds until it is to be renewed."""
        self._notice_end_of_trust()
        self._term = self._latest_term = term
        self._seen = None  # a holder does not look; what it saw before is history once it looks again
        self._trusted_until_monotonic = sent_monotonic + TRUSTED_FRACTION * self._store.seconds
        self._held_monotonic = sent_monotonic
        if not self._leading and self.closed_by() is None:
            self._leading = True
            self._told_holder = None
            self._tell(events.LEASE_ACQUIRED, term=term, previous_holder=previous_holder, reason=reason)
            self._on_acquired()
        interval_seconds = self._store.seconds / RENEWALS_PER_LEASE * random.uniform(0.8, 1)  # noqa: S311 - jitter
        return max(0.0, sent_monotonic + interval_seconds - self._clock.monotonic())

    def _notice_end_of_trust(self) -> None:
        if self._clock.monotonic() >= self._trusted_until_monotonic:
            self._lose("MongoDB did not renew it in time")

    def _lose(self, reason: str) -> None:
        self._trusted_until_monotonic = -math.inf
        if self._leading:
            self._leading = False
            self._tell(events.LEASE_LOST, term=self._term, reason=reason)

    def _note(self, seen: LeaseRecord) -> None:
        """Remember what was seen, and since when it has been like that.

        That is now and not when the look was sent, for it may have become so in between.
        """
        if self._seen is None or seen.document != self._seen.document:
            self._unchanged_since_monotonic = self._clock.monotonic()
            problem = "it has vanished" if seen.document is None else seen.problem
            if problem is not None:
                self._tell(events.LEASE_UNREADABLE, reason=problem, taken_in_seconds=self._store.seconds)
        self._seen = seen
        self._latest_term = max(self._latest_term, seen.term)

    def _why_free(self, seen: LeaseRecord) -> str | None:
        """Return the reason for which the lease may be taken; None if it may not.

        A lease that cannot be read, has vanished, or whose end moved out of reach because the database's clock was set
        back, is free once it has gone unrenewed for its whole length: no holder trusts it any more.
        """
        if seen.document is not None and seen.problem is None:
            if seen.holder is None:
                return "released"
            if seen.remaining_seconds <= 0:
                return "expired"
            if seen.holder == self._store.identity and not self._deposed:
                return "restarted"
        length_seconds = max(self._store.seconds, seen.seconds)
        unclaimed = self._clock.monotonic() - self._unchanged_since_monotonic >= length_seconds
        return "unclaimed" if unclaimed else None

    def _tell_standby(self, seen: LeaseRecord) -> None:
        """Log the holder of the lease once, and a conflict if that is another daemon of the same identity."""
        if seen.holder is None or seen.holder == self._told_holder:
            return
        self._told_holder = seen.holder
        self._tell(events.STANDBY, holder=seen.holder, term=seen.term)
        if seen.holder == self._store.identity:
            self._tell(events.LEASE_IDENTITY_CONFLICT, reason="another daemon has the same lease.identity")


class DryRun:
    """The leadership of a dry run: it never leads, and follows no lease."""

    role: Role = Role.DRY_RUN
    term: int | None = None
    holder: str | None = None
    held_monotonic: float | None = None
