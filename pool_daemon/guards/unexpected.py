"""Which pools end unexpectedly, and how many of them lately: the one measure of the brake."""

import math
from collections import Counter, deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from pool_daemon.clock import Clock
from pool_daemon.settings import sections
from pool_daemon.store.pools import DuePool

MOST_REMEMBERED: Final = 50_000
"""Writes remembered, some 10 MB; and pools that are in flight or failed, which are fewer."""

MOST_LOST: Final = 100_000
"""Losses remembered of each kind; more than any limit but that of a grid of half a million pools."""

PAST_SECONDS: Final = 60
"""An end further back than this at its write is none that a customer can arrange: the explorer computes no end before
the present second."""

DAY_SECONDS: Final = 86_400
"""For how long a pool that was allowed is not judged again. One that fails is tried each hour. What another daemon has
settled is never reported here."""


class Kind(Enum):
    """Why the end of a pool could not be known."""

    NEAR = "written near its end"
    PAST = "written long past its end"
    UNSEEN = "found due though no change told of it"


COUNTS_SECONDS: Final = {Kind.NEAR: 1200, Kind.PAST: DAY_SECONDS, Kind.UNSEEN: DAY_SECONDS}
"""For how long an expiration counts. What a restored backup brings counts for a day: however slowly it comes, no more
goes in a day than the limit. Ends that are near come from purchases all day long, and from accidents (a bulk edit, a
wrong computation) within minutes."""

Key = tuple[Kind, int]
"""Why a pool is unexpected, and its owner; 0 stands for an owner who cannot be read."""

Census = Counter[Key]
"""Numbers of unexpected pools."""


def measure(census: Census, settings: sections.Brake) -> tuple[int, int]:
    """Return the numbers of unexpected pools that are compared with `min_pools`, and with all pools in use.

    Of what a customer can arrange, an owner counts for a few pools at most. *Near* ends cost a fraction of a cent each:
    an owner counts for `per_owner`. *Unseen* ends need a time in which no daemon acts, which no customer arranges, but
    a customer can have pools that end all the time: an owner counts for a quarter of `min_pools`, so that a grid of
    five owners has a brake, too. In the second number all unseen ones count: such a grid has few other pools.
    """
    few = {Kind.NEAR: settings.per_owner, Kind.UNSEEN: max(settings.per_owner, settings.min_pools // 4)}
    number = sum(min(pools, few.get(kind, pools)) for (kind, _), pools in census.items())
    share = sum(min(pools, few[kind]) if kind is Kind.NEAR else pools for (kind, _), pools in census.items())
    return number, share


@dataclass(frozen=True, slots=True)
class _Write:
    at: int
    end: int | None
    owner: int | None


class UnexpectedPools:
    """Other writers' writes of pools near or past their end, and the pools in flight or with losses lately, in memory.

    `since` is the unix second from which on the change stream reports every write, `known_through` the one up to which
    this daemon has settled what was due, `writes` the number of writes reported.

    At most `MOST_REMEMBERED` of the writes are kept, each for twice `notice_seconds`. One that is forgotten before its
    pool was judged moves `since` on to the end of that pool, so that this end counts as unseen: a restore of more pools
    than that is suspected, too. Where the bound is exceeded, `since` moves no further than to the second of the write
    itself: so no number of writes makes an end suspicious that has stood for long. The price is that a pool which was
    written longest ago, and is yet to end, counts as known.
    """

    def __init__(self, settings: sections.Brake, clock: Clock) -> None:
        self.writes = 0
        self.since: int | None = None
        self.known_through: float = -math.inf
        self._settings = settings
        self._clock = clock
        self._writes: dict[int, _Write] = {}
        self._allowed: dict[int, tuple[Key | None, float]] = {}
        self._lost: dict[Kind, deque[tuple[float, int]]] = {kind: deque(maxlen=MOST_LOST) for kind in Kind}

    def watching_since(self, at: int) -> None:
        """Record that a stream begins at the unix second `at`: ends before it may have been written unseen."""
        self.since = at if self.since is None else max(self.since, at)

    def record(self, pool_id: int, empty_at: int | None, at: int, owner: int | None = None) -> None:
        """Record that another writer has written a pool at the unix second `at`.

        Its end or owner is None if the change does not contain it; what was recorded of it before stands.
        """
        notice = int(self._settings.notice_seconds)
        former = self._writes.pop(pool_id, None) or _Write(at, None, None)
        self.writes += 1
        if empty_at is None or empty_at <= at + notice:
            end = former.end if empty_at is None else empty_at
            self._writes[pool_id] = _Write(at, end, former.owner if owner is None else owner)
        self._forget_oldest(at, notice)

    def _forget_oldest(self, at: int, notice: int) -> None:
        while self._writes:
            oldest, write = next(iter(self._writes.items()))
            expired = write.at <= at - 2 * notice
            if len(self._writes) <= MOST_REMEMBERED and not expired:
                break
            del self._writes[oldest]
            if write.end is not None:
                self.watching_since(min(write.end + 1, at if expired else write.at))

    def record_owners(self, owners: Mapping[int, int]) -> None:
        """Record the owners of some pools, by id."""
        for pool_id in owners.keys() & self._writes.keys():
            self._writes[pool_id] = replace(self._writes[pool_id], owner=owners[pool_id])

    def near(self, now: int) -> dict[int, int | None]:
        """Return the pools that were written near an end which has come by the unix second `now`: owners by id."""
        ends = [(pool_id, write, write.end) for pool_id, write in self._writes.items() if write.end is not None]
        return {pool_id: write.owner for pool_id, write, end in ends if write.at - PAST_SECONDS <= end <= now}

    def written_after(self, pool_id: int, at: int) -> bool:
        """Return whether a pool was written after the unix second `at`, as far as is recorded."""
        write = self._writes.get(pool_id)
        return write is not None and write.at > at

    def key_of(self, pool: DuePool, *, full_scan: bool = True) -> Key | None:
        """Return as what a due pool counts; None if its end was known, or it was allowed, and it was not written since.

        One that turns up behind what was settled has been written since: the stream is yet to report that.
        """
        write = self._writes.get(pool.pool_id)
        if write is not None and pool.empty_at <= write.at + self._settings.notice_seconds:
            kind: Kind | None = Kind.PAST if pool.empty_at < write.at - PAST_SECONDS else Kind.NEAR
        else:
            kind = self._kind_of_unwritten(pool, full_scan=full_scan)
        return None if kind is None else (kind, pool.owner or 0)

    def _kind_of_unwritten(self, pool: DuePool, *, full_scan: bool) -> Kind | None:
        _, allowed_at = self._allowed.get(pool.pool_id, (None, -math.inf))
        # A synced pool that no full scan has found is there because another of its resources has run out.
        if self._clock.monotonic() - allowed_at < DAY_SECONDS or (pool.synced and not full_scan):
            return None
        if not pool.synced and pool.empty_at < self.known_through - PAST_SECONDS:
            return Kind.PAST
        unseen = self.since is None or pool.empty_at < self.since
        return Kind.UNSEEN if unseen or pool.empty_at <= self.known_through else None

    def allow(self, pool_id: int, key: Key | None) -> None:
        """Note that a pool is in flight; without a key it is expected, or was allowed before."""
        former, _ = self._allowed.get(pool_id, (None, 0.0))
        self._allowed[pool_id] = key or former, self._clock.monotonic()
        self._writes.pop(pool_id, None)
        if len(self._allowed) > MOST_REMEMBERED:
            del self._allowed[next(iter(self._allowed))]

    def settled(self, pool_ids: Collection[int], *, lost: Collection[int]) -> None:
        """Note which pools are settled, and which lost a workload; one that goes in portions counts once."""
        now = self._clock.monotonic()
        for pool_id in lost:
            key, _ = self._allowed.get(pool_id, (None, now))
            if key is not None:
                self._lost[key[0]].append((now, key[1]))
                self._allowed[pool_id] = None, now
        for pool_id in pool_ids:
            self._allowed.pop(pool_id, None)

    def forget(self, *pool_ids: int) -> None:
        """Forget pools that are held."""
        for pool_id in pool_ids:
            self._writes.pop(pool_id, None)
            self._allowed.pop(pool_id, None)

    def census(self, *kinds: Kind) -> Census:
        """Count the pools of some kinds that have lost something lately, or were allowed lately and are not done."""
        now = self._clock.monotonic()
        recent = [(*key, at) for key, at in self._allowed.values() if key is not None and key[0] in kinds]
        for kind in kinds:
            lost = self._lost[kind]
            while lost and now - lost[0][0] >= COUNTS_SECONDS[kind]:
                lost.popleft()
            recent += [(kind, owner, at) for at, owner in lost]
        return Counter((kind, owner) for kind, owner, at in recent if now - at < COUNTS_SECONDS[kind])
