"""Delivers the events of the outbox to one receiver, one at a time."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from pool_daemon.backoff import Backoff
from pool_daemon.clock import Clock
from pool_daemon.events import (
    DELIVERY_FAILED,
    DELIVERY_RESTORED,
    EVENT_DEAD,
    NOTICES_FAILED,
    RECEIVER_BACK,
    RECEIVER_GONE,
    Teller,
)
from pool_daemon.guards.gate import Gate
from pool_daemon.notices.episodes import Verdict, at_sending
from pool_daemon.notices.receiver import Delivered, Failed, Gone, Outcome, Receiver, reason_of
from pool_daemon.store.notices import NoticeStore
from pool_daemon.store.outbox import DeliveryState, Entry, MessageKind
from pool_daemon.store.pool_counts import Upcoming

POLL_SECONDS: Final = 2.0
"""The longest time for which a new event waits, at the price of one indexed read."""

OFF_POLL_SECONDS: Final = 10.0
"""How often a receiver that is off is looked at, in case it was turned on."""

TOO_LATE: Final = "it could not be delivered while it was useful"

CLAIM_SECONDS: Final = 10.0
"""How much longer a claim lasts than the receiver may take: for what the database may take around it."""

AGE_SHARE: Final = 20
"""A failed event is tried again after a twentieth of its age: a receiver that was away for ten minutes has everything
half a minute after its return, and one that is away for a day is asked once in an hour."""

SHORTEST_SECONDS, LONGEST_SECONDS = 2.0, 3600.0

REST: Final = {"first_seconds": 1.0, "longest_seconds": 20.0}
"""How long a receiver that fails is left alone between two attempts of any events."""

NOTICES: Final = frozenset({MessageKind.EXPIRING, MessageKind.MANY_EXPIRING})
REPLENISHMENTS: Final = frozenset({MessageKind.REPLENISHED, MessageKind.MANY_REPLENISHED})

Sleep = Callable[[float], Coroutine[Any, Any, None]]


class DeliveryObserver(Teller, Protocol):
    """The receiver of what becomes of events."""

    def event_sent(self, receiver: str, outcome: str, *, delay_seconds: float | None = None) -> None:
        """Record an attempt, or the end of all attempts."""


@dataclass(frozen=True, slots=True)
class Now:
    """What is left to say of an event at the moment of sending it: the pools, as they are now.

    `waiting` holds the pools that may have to be told later, and the seconds until then. `has_ended` says that some
    pool has run empty before it was told to.
    """

    pools: Sequence[Mapping[str, Any]]
    waiting: Mapping[int, int]
    has_ended: bool = False

    def useful_until(self, entry: Entry) -> float:
        """Return until when the event is worth sending: a notice until its last pool ends, wherever that is now."""
        if entry.kind not in NOTICES:
            return entry.useful_until
        return float(max((pool["empty_at"] for pool in self.pools), default=entry.useful_until))


class Delivery:
    """Claims what is due for a receiver, reads its pools again, sends it, and records what became of it.

    An event whose sender dies in between is claimed again and sent with the same id. Nothing is sent while the gate is
    closed. A receiver that is gone is off, for other daemons and after a restart, too, until it is turned on or has
    other settings.
    """

    def __init__(
        self,
        *,
        receiver: Receiver,
        store: NoticeStore,
        gate: Gate,
        clock: Clock,
        observer: DeliveryObserver,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._receiver = receiver
        self._store = store
        self._outbox = store.outbox
        self._receivers = store.receivers
        self._gate = gate
        self._clock = clock
        self._observer = observer
        self._sleep = sleep
        self._backoff = Backoff(**REST)
        self._failing = False
        self._is_on: bool | None = None
        self._has_told_off = False

    async def run(self) -> None:
        """Deliver for ever."""
        try:
            while True:
                try:
                    seconds = await self.deliver_next()
                except Exception as error:  # noqa: BLE001 - a task that dies ends the daemon, and with it all expiry
                    self._observer.tell(NOTICES_FAILED, reason=reason_of(error))
                    seconds = self._backoff.next_seconds()
                await self._sleep(seconds)
        finally:
            await self._receiver.close()

    async def deliver_next(self) -> float:
        """Deliver the event that is due next; return the seconds to wait before the one after it.

        Raises StoreError.
        """
        if self._gate.closed_by() is not None:
            self._is_on = None  # the daemon that leads meanwhile may turn it off
            return POLL_SECONDS
        if not (self._is_on or await self._look_whether_on()):
            return OFF_POLL_SECONDS
        entry = await self._outbox.claim(self._receiver.name, seconds=self._receiver.timeout_seconds + CLAIM_SECONDS)
        return POLL_SECONDS if entry is None else await self._deliver(entry)

    async def _deliver(self, entry: Entry) -> float:
        now = await self._now(entry)
        if now.pools and self._clock.now() < now.useful_until(entry):
            event = {**entry.event, "data": {"customer_tid": entry.owner, "pools": now.pools}}
            return await self._record(entry, now, await self._receiver.send(event))
        if now.waiting and not now.pools:
            await self._outbox.postpone(entry, seconds=min(now.waiting.values()), error=None)
        elif now.pools or now.has_ended:
            await self._give_up(entry, entry.last_error or TOO_LATE)
        elif await self._outbox.finish(entry, DeliveryState.SUPERSEDED):
            self._observer.event_sent(self._receiver.name, DeliveryState.SUPERSEDED)
        return 0

    async def _look_whether_on(self) -> bool:
        name = self._receiver.name
        reason = await self._receivers.off(name, digest=self._receiver.digest)
        if self._has_told_off != (reason is not None):
            self._has_told_off = reason is not None
            if reason is None:
                self._observer.tell(RECEIVER_BACK, receiver=name)
            else:
                self._observer.tell(RECEIVER_GONE, receiver=name, reason=reason)
        self._is_on = reason is None
        return self._is_on

    async def _record(self, entry: Entry, now: Now, outcome: Outcome) -> float:
        match outcome:
            case Delivered():
                await self._store.forget(now.waiting, event_id=entry.event_id)
                if await self._outbox.finish(entry, DeliveryState.DELIVERED):
                    delay_seconds = max(0.0, self._clock.now() - entry.created_at)
                    self._observer.event_sent(self._receiver.name, DeliveryState.DELIVERED, delay_seconds=delay_seconds)
                self._backoff.reset()
                self._tell_whether(failing=False)
                return 0
            case Gone(reason):
                self._observer.event_sent(self._receiver.name, "gone")
                name, digest = self._receiver.name, self._receiver.digest
                await self._receivers.turn_off(name, digest=digest, reason=reason, now=self._clock.now())
                await self._outbox.postpone(entry, seconds=SHORTEST_SECONDS, error=reason)
                await self._look_whether_on()
                return OFF_POLL_SECONDS
            case Failed(reason, retry_after_seconds):
                self._observer.event_sent(self._receiver.name, "failed")
                rest_seconds = max(self._backoff.next_seconds(), retry_after_seconds or 0.0)
                await self._fail(entry, now, outcome)
                self._tell_whether(failing=True, reason=reason)
                return rest_seconds

    async def _fail(self, entry: Entry, now: Now, failed: Failed) -> None:
        """Have an event tried again, unless it will be worth nothing by then."""
        at = self._clock.now()
        seconds = min(max((at - entry.created_at) / AGE_SHARE, SHORTEST_SECONDS), LONGEST_SECONDS)
        seconds = max(seconds * random.uniform(0.8, 1.2), failed.retry_after_seconds or 0.0)  # noqa: S311 - jitter
        if at + seconds < now.useful_until(entry):
            await self._outbox.postpone(entry, seconds=seconds, error=failed.reason)
        else:
            await self._give_up(entry, failed.reason)

    async def _give_up(self, entry: Entry, reason: str) -> None:
        if await self._outbox.finish(entry, DeliveryState.DEAD, error=reason):
            self._observer.event_sent(self._receiver.name, DeliveryState.DEAD)
            self._observer.tell(EVENT_DEAD, receiver=self._receiver.name, event_id=entry.event_id, reason=reason)

    async def _now(self, entry: Entry) -> Now:
        """Read the pools of an event again: those that last longer are no longer told, nor one that is told anew."""
        if entry.kind not in NOTICES | REPLENISHMENTS:
            return Now(entry.pools, {})
        ids = [pool["pool_id"] for pool in entry.pools]
        told = {pool_id: each.event_id for pool_id, each in (await self._store.told(ids)).items()}
        pools = await self._store.pools(ids)
        now = int(self._clock.now())
        kept, waiting = [], {}
        has_ended = entry.kind in NOTICES and any(pool.empty_at <= now for pool in pools.values())
        for each in entry.pools:
            pool, lead = pools.get(each["pool_id"]), each["lead_seconds"]
            match _verdict(entry, pool, lead, told_by=told.get(each["pool_id"]), now=now), pool:
                case Verdict.SEND, Upcoming(empty_at=empty_at):
                    kept.append({**each, "empty_at": empty_at})
                case Verdict.WAIT, Upcoming(pool_id, _, empty_at):
                    waiting[pool_id] = empty_at - now - lead
        return Now(kept, waiting, has_ended)

    def _tell_whether(self, *, failing: bool, reason: str = "") -> None:
        """Log the first failure in a row, and the success that ends it."""
        if failing != self._failing:
            self._failing = failing
            if failing:
                self._observer.tell(DELIVERY_FAILED, receiver=self._receiver.name, reason=reason)
            else:
                self._observer.tell(DELIVERY_RESTORED, receiver=self._receiver.name)


def _verdict(entry: Entry, pool: Upcoming | None, lead: int, *, told_by: str | None, now: int) -> Verdict:
    """Return what to do with a pool of an event, which another event may have told meanwhile."""
    if pool is None or (entry.kind in NOTICES and told_by != entry.event_id):
        return Verdict.DROP
    remaining = pool.empty_at - now
    if entry.kind in NOTICES:
        return at_sending(remaining, lead)
    return Verdict.SEND if remaining > lead else Verdict.DROP
