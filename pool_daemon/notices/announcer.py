"""Finds the pools whose end has come near, or has moved away again, and has their owners told."""

import asyncio
import math
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from pool_daemon.clock import Clock
from pool_daemon.events import NOTICES_FAILED, NOTICES_WRITTEN, Teller
from pool_daemon.guards.gate import Gate
from pool_daemon.notices.episodes import Forget, Replenished, Tell, grouped, next_step
from pool_daemon.notices.receiver import reason_of
from pool_daemon.settings.notices import Notices, lead_seconds
from pool_daemon.store.notices import LastNotice, NoticeChanges, NoticeStore, Situation
from pool_daemon.store.outbox import DeliveryState, Entry, Message, MessageKind, new_event_id
from pool_daemon.store.pool_counts import Upcoming

MOST: Final = 20_000
"""Pools that one round tells, a few megabytes; the next round goes on with the rest."""

RETRY_SECONDS: Final = 5.0
"""The longest wait after a round that failed, or that was not the last for what there is to tell."""

Sleep = Callable[[float], Coroutine[Any, Any, None]]


@dataclass(slots=True)
class _News:
    """What is to be told of some pools, each with its lead, before it is cut into events."""

    expiring: list[tuple[Upcoming, int]] = field(default_factory=list)
    replenished: dict[frozenset[str | None], list[tuple[Upcoming, int]]] = field(default_factory=dict)
    changes: NoticeChanges = field(default_factory=NoticeChanges)


class Announcer:
    """Writes what owners are to be told into the outbox, round by round, as long as the gate is open.

    A round reads the pools within the longest lead, and those of which something is told. What it finds is read and
    decided again in the transaction that writes it. So neither a crash nor a second daemon tells anything twice, or
    not at all.
    """

    def __init__(
        self,
        *,
        store: NoticeStore,
        settings: Notices,
        gate: Gate,
        clock: Clock,
        observer: Teller,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._store = store
        self._settings = settings
        self._leads = sorted(lead_seconds(lead) for lead in settings.before)
        self._gate = gate
        self._clock = clock
        self._observer = observer
        self._sleep = sleep

    async def run(self) -> None:
        """Make rounds for ever."""
        while True:
            seconds = self._settings.interval_seconds
            try:
                if not await self.look():
                    seconds = min(seconds, RETRY_SECONDS)
            except Exception as error:  # noqa: BLE001 - a task that dies ends the daemon, and with it all expiry
                self._observer.tell(NOTICES_FAILED, reason=reason_of(error))
                seconds = min(seconds, RETRY_SECONDS)
            await self._sleep(seconds)

    async def look(self) -> bool:
        """Make one round; return whether everything found was told, or none may be told now.

        Raises StoreError.
        """
        if self._gate.closed_by() is not None:
            return True
        await self._store.outbox.purge(now=self._clock.now())
        found = await self._find()
        for is_digest, pool_ids in grouped(
            ((pool.customer_tid, pool.pool_id) for pool in found.values()), crowd=self._settings.crowd_pools
        ):
            if self._gate.closed_by() is not None:
                return True
            changes = await self._store.update(pool_ids, partial(self.decide, is_digest=is_digest))
            if changes.messages:
                told = sum(len(message.pools) for message, _ in changes.messages)
                self._observer.tell(NOTICES_WRITTEN, events=len(changes.messages), pools=told)
        return len(found) < MOST

    def decide(self, situation: Situation, *, is_digest: bool) -> NoticeChanges:
        """Return what follows for some pools; in a digest, what is told of them is one event for each kind."""
        news = _News()
        for pool in situation.pools.values():
            self._consider(pool, situation, news)
        for pools in _parts(news.expiring, whole=is_digest):
            self._tell(pools, news.changes)
        for receivers, pools_again in news.replenished.items():
            for pools in _parts(pools_again, whole=is_digest):
                kind = MessageKind.REPLENISHED if len(pools) == 1 else MessageKind.MANY_REPLENISHED
                news.changes.messages.append((self._message(kind, pools), receivers))
        return news.changes

    def _consider(self, pool: Upcoming, situation: Situation, news: _News) -> None:
        told = situation.told.get(pool.pool_id)
        match self._step(pool, told), told:
            case Tell(lead), _:
                news.expiring.append((pool, lead))
            case Replenished(within), LastNotice():
                receivers = self._receivers_told(situation.deliveries.get(told.event_id, {}))
                if receivers is None:
                    return
                if receivers:
                    news.replenished.setdefault(receivers, []).append((pool, told.lead))
                _take_back(pool, within if receivers else None, news.changes, at=self._clock.now())
            case Forget(), _:
                news.changes.forgotten.append(pool.pool_id)

    async def _find(self) -> dict[int, Upcoming]:
        """Return, by id, the pools of which something may have to be told, or taken back."""
        found: dict[int, Upcoming] = {}
        now = math.floor(self._clock.now())
        async for pools in self._store.approaching(after=now, until=now + self._leads[-1]):
            told = await self._store.told([pool.pool_id for pool in pools])
            found |= self._moved(pools, told)
            if len(found) >= MOST:
                return found
        async for page in self._store.all_told():
            told = {each.pool_id: each for each in page}
            found |= self._moved((await self._store.pools(told)).values(), told)
            if len(found) >= MOST:
                break
        return found

    def _moved(self, pools: Collection[Upcoming], told: dict[int, LastNotice]) -> dict[int, Upcoming]:
        return {pool.pool_id: pool for pool in pools if self._step(pool, told.get(pool.pool_id)) is not None}

    def _step(self, pool: Upcoming, told: LastNotice | None) -> Tell | Replenished | Forget | None:
        remaining = pool.empty_at - math.floor(self._clock.now())
        return next_step(remaining, None if told is None else told.lead, self._leads)

    def _tell(self, pools: Sequence[tuple[Upcoming, int]], changes: NoticeChanges) -> None:
        message = self._message(MessageKind.EXPIRING if len(pools) == 1 else MessageKind.MANY_EXPIRING, pools)
        changes.messages.append((message, self._store.outbox.receivers))
        for pool, lead in pools:
            changes.told.append(LastNotice(pool.pool_id, lead, message.event_id, pool.empty_at, message.at))

    def _receivers_told(self, deliveries: Mapping[str | None, Entry]) -> frozenset[str | None] | None:
        """Return which receivers know of a notice, since only they are to know that it is over; all, if it is too old.

        None if one is being told at this moment: the next round knows whether it was.
        """
        if not deliveries:
            return frozenset(self._store.outbox.receivers)
        now, entries = self._clock.now(), deliveries.values()
        if any(entry.state is DeliveryState.PENDING and entry.leased_until.timestamp() > now for entry in entries):
            return None
        return frozenset(entry.receiver for entry in entries if entry.state is DeliveryState.DELIVERED)

    def _message(self, kind: MessageKind, pools: Sequence[tuple[Upcoming, int]]) -> Message:
        """Make an event; a notice is worth sending until its pool runs empty, the news of a top-up while it is kept."""
        now = self._clock.now()
        is_notice = kind in {MessageKind.EXPIRING, MessageKind.MANY_EXPIRING}
        until = max(pool.empty_at for pool, _ in pools) if is_notice else now + self._settings.keep_seconds
        told = [{"pool_id": pool.pool_id, "empty_at": pool.empty_at, "lead_seconds": lead} for pool, lead in pools]
        return Message(new_event_id(), kind, pools[0][0].customer_tid, told, now, until)


def _take_back(pool: Upcoming, within: int | None, changes: NoticeChanges, *, at: float) -> None:
    """Take back what was told; a longer lead whose episode goes on stays told, if anything was."""
    if within is None:
        changes.forgotten.append(pool.pool_id)
    else:
        changes.told.append(LastNotice(pool.pool_id, within, new_event_id(), pool.empty_at, at))


def _parts(pools: Sequence[tuple[Upcoming, int]], *, whole: bool) -> Iterator[Sequence[tuple[Upcoming, int]]]:
    """Yield pools one by one, or all at once."""
    if whole and pools:
        yield pools
    else:
        yield from ([pool] for pool in pools)
