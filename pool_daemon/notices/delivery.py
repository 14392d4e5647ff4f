"""Delivers the events of the outbox to one receiver, one at a time."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pool_daemon.backoff import Backoff
from pool_daemon.clock import Clock
from pool_daemon.errors import StoreError
from pool_daemon.events import DELIVERY_FAILED, DELIVERY_RESTORED, EVENT_DEAD, NOTICES_FAILED, RECEIVER_GONE, Teller
from pool_daemon.guards.gate import Gate
from pool_daemon.notices.episodes import Verdict, at_sending
from pool_daemon.notices.receiver import Delivered, Failed, Gone, Outcome, Receiver
from pool_daemon.store.notices import NoticeStore
from pool_daemon.store.outbox import Entry, Kind, State

POLL_SECONDS: Final = 2.0
"""The longest time for which a new event waits, at the price of one indexed read."""

CLAIM_SECONDS: Final = 10.0
"""How much longer a claim lasts than the receiver may take: for what the database may take around it."""

AGE_SHARE: Final = 20
"""A failed event is tried again after a twentieth of its age: a receiver that was away for ten minutes has everything
half a minute after its return, and one that is away for a day is asked once in an hour."""

SHORTEST_SECONDS, LONGEST_SECONDS = 2.0, 3600.0

REST: Final = {"first_seconds": 1.0, "longest_seconds": 20.0}
"""How long a receiver that fails is left alone between two attempts of any events."""

NOTICES: Final = frozenset({Kind.EXPIRING, Kind.MANY_EXPIRING})
REPLENISHMENTS: Final = frozenset({Kind.REPLENISHED, Kind.MANY_REPLENISHED})

Sleep = Callable[[float], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Now:
    """What is left to say of an event at the moment of sending it: the pools, as they are now.

    `waiting` holds the pools that may have to be told later, and the seconds until then.
    """

    pools: Sequence[Mapping[str, Any]]
    waiting: Mapping[int, int]


class Delivery:
    """Claims what is due for a receiver, reads its pools again, sends it, and records what became of it.

    An event whose sender dies in between is claimed again and sent with the same id. Nothing is sent while the gate is
    closed. A receiver that is gone is left alone until the daemon starts again.
    """

    def __init__(
        self,
        *,
        receiver: Receiver,
        store: NoticeStore,
        gate: Gate,
        clock: Clock,
        observer: Teller,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._receiver = receiver
        self._store = store
        self._outbox = store.outbox
        self._gate = gate
        self._clock = clock
        self._observer = observer
        self._sleep = sleep
        self._backoff = Backoff(**REST)
        self._failing = False
        self._gone = False

    async def run(self) -> None:
        """Deliver for ever."""
        try:
            while True:
                try:
                    seconds = await self.deliver_next()
                except StoreError as error:
                    self._observer.tell(NOTICES_FAILED, reason=str(error))
                    seconds = self._backoff.next_seconds()
                await self._sleep(seconds)
        finally:
            await self._receiver.close()

    async def deliver_next(self) -> float:
        """Deliver the event that is due next; return the seconds to wait before the one after it.

        Raises StoreError.
        """
        if self._gone or self._gate.closed_by() is not None:
            return POLL_SECONDS
        entry = await self._outbox.claim(self._receiver.name, seconds=self._receiver.timeout_seconds + CLAIM_SECONDS)
        if entry is None:
            return POLL_SECONDS
        now = await self._now(entry)
        if not now.pools:
            if now.waiting:
                await self._outbox.postpone(entry, seconds=min(now.waiting.values()), error=None)
            else:
                await self._outbox.finish(entry, State.SUPERSEDED)
            return 0
        event = {**entry.event, "data": {"customer_tid": entry.owner, "pools": now.pools}}
        return await self._record(entry, now, await self._receiver.send(event))

    async def _record(self, entry: Entry, now: Now, outcome: Outcome) -> float:
        match outcome:
            case Delivered():
                await self._store.forget(now.waiting, event_id=entry.event_id)
                await self._outbox.finish(entry, State.DELIVERED)
                self._backoff.reset()
                self._tell_whether(failing=False)
                return 0
            case Gone(reason):
                self._gone = True
                await self._outbox.postpone(entry, seconds=SHORTEST_SECONDS, error=reason)
                self._observer.tell(RECEIVER_GONE, receiver=self._receiver.name, reason=reason)
                return POLL_SECONDS
            case Failed(reason, retry_after_seconds):
                rest_seconds = max(self._backoff.next_seconds(), retry_after_seconds or 0.0)
                await self._fail(entry, reason, retry_after_seconds)
                self._tell_whether(failing=True, reason=reason)
                return rest_seconds

    async def _fail(self, entry: Entry, reason: str, retry_after_seconds: float | None) -> None:
        """Have an event tried again, unless it will be worth nothing by then."""
        now = self._clock.now()
        seconds = min(max((now - entry.created_at) / AGE_SHARE, SHORTEST_SECONDS), LONGEST_SECONDS)
        seconds = max(seconds * random.uniform(0.8, 1.2), retry_after_seconds or 0.0)  # noqa: S311 - jitter
        if now + seconds < entry.useful_until:
            await self._outbox.postpone(entry, seconds=seconds, error=reason)
        elif await self._outbox.finish(entry, State.DEAD, error=reason):
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
        for each in entry.pools:
            pool = pools.get(each["pool_id"])
            if pool is None or (entry.kind in NOTICES and told.get(pool.pool_id) != entry.event_id):
                continue
            remaining, lead = pool.empty_at - now, each["lead_seconds"]
            match _verdict(entry.kind, remaining, lead):
                case Verdict.SEND:
                    kept.append({**each, "empty_at": pool.empty_at})
                case Verdict.WAIT:
                    waiting[pool.pool_id] = remaining - lead
        return Now(kept, waiting)

    def _tell_whether(self, *, failing: bool, reason: str = "") -> None:
        """Log the first failure in a row, and the success that ends it."""
        if failing != self._failing:
            self._failing = failing
            if failing:
                self._observer.tell(DELIVERY_FAILED, receiver=self._receiver.name, reason=reason)
            else:
                self._observer.tell(DELIVERY_RESTORED, receiver=self._receiver.name)


def _verdict(kind: str, remaining: int, lead: int) -> Verdict:
    if kind in NOTICES:
        return at_sending(remaining, lead)
    return Verdict.SEND if remaining > lead else Verdict.DROP
