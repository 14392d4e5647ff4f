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

MOST_NOTES: Final = 50_000
"""Writes remembered, some 10 MB."""

MOST_ALLOWED: Final = 50_000
"""Pools remembered that are in flight, or failed: their next try is not unexpected. More than are ever in flight."""

MOST_LOST: Final = 100_000
"""Losses remembered of each kind; more than any limit but that of a grid of half a million pools."""

PAST_SECONDS: Final = 60
"""An end further back than this at the instant of its write is none that the explorer computes, so no customer can
arrange it: the explorer never writes an end before the present second."""


class Kind(Enum):
    """Why the end of a pool could not be known.

    It was written near its end, or long past it, or it is found overdue beyond what was known.
    """

    NEAR = "near"
    PAST = "past"
    OVERDUE = "overdue"


COUNTS_SECONDS: Final = {Kind.NEAR: 1200, Kind.PAST: 86_400, Kind.OVERDUE: 86_400}
"""For how long an expiration counts. What a restored backup brings counts for a day: however slowly it comes, and
however often full scans follow each other, no more goes in a day than the limit. Ends that are near come from purchases
all day long, and from accidents (a bulk edit, a wrong computation) within minutes."""

Key = tuple[Kind, int]
"""Why a pool is unexpected, and its owner; 0 stands for an owner who cannot be read."""

Census = Counter[Key]
"""Numbers of unexpected pools."""


def measure(census: Census, settings: sections.Brake) -> tuple[int, int]:
    """Return the numbers of unexpected pools that are compared with `min_pools`, and with all pools in use.

    Each owner counts for a few at most, as far as a customer can arrange them. Ends that are near cost him a fraction
    of a cent each: he counts for `per_owner` of them. He cannot arrange that no daemon acts, but he can have pools that
    end all the time: of overdue ones he counts for a quarter of `min_pools`, so that a grid of five owners has a brake,
    too; and for all of them as a share, for a grid of five owners has few others.
    """
    few = {Kind.NEAR: settings.per_owner, Kind.OVERDUE: max(settings.per_owner, settings.min_pools // 4)}
    number = sum(min(pools, few.get(kind, pools)) for (kind, _), pools in census.items())
    share = sum(min(pools, few[kind]) if kind is Kind.NEAR else pools for (kind, _), pools in census.items())
    return number, share


class UnexpectedExpirations:
    """Counts unexpected pools from the moment they are in flight, for a while after they have lost something.

    Kept in memory. A restart forgets it, but every hold counts as long as it stands.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lost: dict[Kind, deque[tuple[float, int]]] = {kind: deque(maxlen=MOST_LOST) for kind in Kind}
        self._allowed: dict[int, tuple[Key | None, float]] = {}

    def mark_in_flight(self, pool_id: int, key: Key | None = None) -> None:
        """Note that a pool may be settled; without a key it is expected, or was allowed before."""
        if key is not None or pool_id not in self._allowed:
            self._allowed[pool_id] = key, self._clock.monotonic()
        if len(self._allowed) > MOST_ALLOWED:
            del self._allowed[next(iter(self._allowed))]

    def is_allowed(self, pool_id: int) -> bool:
        """Return whether a pool was allowed and has not been settled since."""
        return pool_id in self._allowed

    def settled(self, pool_ids: Collection[int], *, lost: Collection[int] = ()) -> None:
        """Note which pools are done, and which have lost something; one that is settled in portions counts once."""
        now = self._clock.monotonic()
        for pool_id in lost:
            key, _ = self._allowed.get(pool_id, (None, now))
            if key is not None:
                self._lost[key[0]].append((now, key[1]))
                self._allowed[pool_id] = None, now
        for pool_id in pool_ids:
            self._allowed.pop(pool_id, None)

    def census(self, *kinds: Kind) -> Census:
        """Count the pools of some kinds that have lost something lately, or were allowed lately and are not done."""
        now = self._clock.monotonic()
        recent = [(key[0], key[1], at) for key, at in self._allowed.values() if key is not None and key[0] in kinds]
        for kind in kinds:
            lost = self._lost[kind]
            while lost and now - lost[0][0] >= COUNTS_SECONDS[kind]:
                lost.popleft()
            recent += [(kind, owner, at) for at, owner in lost]
        return Counter((kind, owner) for kind, owner, at in recent if now - at < COUNTS_SECONDS[kind])


@dataclass(frozen=True, slots=True)
class _Note:
    at: int
    end: int | None
    owner: int | None


class Notes:
    """Pools that were written near or past their end, and since when the change stream tells of every write.

    `settled_through` is the unix second up to which this daemon has settled what was due. At most `MOST_NOTES` are
    kept, each for twice `notice_seconds`. A note that is forgotten before its pool was judged moves the instant since
    which the stream counts as followed behind the end of that pool: of a restore larger than that nothing goes
    unsuspected. It never moves behind the write, though, lest many writes make ends suspicious that have stood for
    long: beyond the bound, pools that were written longest ago, and are yet to end, count as known.
    """

    def __init__(self, settings: sections.Brake) -> None:
        self.since: int | None = None
        self.settled_through: float = -math.inf
        self._settings = settings
        self._notes: dict[int, _Note] = {}

    def note_watching(self, at: int) -> None:
        """Note that a stream begins at the unix second `at`: what ended before may have been written unseen."""
        self.since = at if self.since is None else max(self.since, at)

    def note_write(self, pool_id: int, empty_at: int | None, at: int, owner: int | None = None) -> None:
        """Note that another writer has written a pool at the unix second `at`.

        Its end is None if that was not told: where rates were changed alone, or a workload of it came as deployed. Its
        owner is None if that was not told: an owner noted before stands.
        """
        notice = int(self._settings.notice_seconds)
        former = self._notes.pop(pool_id, None)
        if empty_at is None or empty_at <= at + notice:
            self._notes[pool_id] = _Note(at, empty_at, owner if owner is not None or former is None else former.owner)
        while self._notes:
            oldest = next(iter(self._notes))
            expired = self._notes[oldest].at <= at - 2 * notice
            if len(self._notes) <= MOST_NOTES and not expired:
                break
            note = self._notes.pop(oldest)
            if note.end is not None:
                self.note_watching(min(note.end + 1, at if expired else note.at))

    def forget(self, *pool_ids: int) -> None:
        """Forget what was judged."""
        for pool_id in pool_ids:
            self._notes.pop(pool_id, None)

    def written_after(self, pool_id: int, at: int) -> bool:
        """Return whether a pool was written after the unix second `at`, as far as is noted."""
        note = self._notes.get(pool_id)
        return note is not None and note.at > at

    def note_owners(self, owners: Mapping[int, int]) -> None:
        """Note the owners of some pools, by id."""
        for pool_id, owner in owners.items():
            if pool_id in self._notes:
                self._notes[pool_id] = replace(self._notes[pool_id], owner=owner)

    def near(self, now: int) -> dict[int, int | None]:
        """Return the pools that were written near an end which has come by the unix second `now`: owners by id."""
        ends = [(pool_id, note, note.end) for pool_id, note in self._notes.items() if note.end is not None]
        return {pool_id: note.owner for pool_id, note, end in ends if note.at - PAST_SECONDS <= end <= now}

    def kind_of_written(self, pool: DuePool) -> Kind | None:
        """Return what its last write makes of a pool that is due; None if nothing."""
        note = self._notes.get(pool.pool_id)
        if note is None or pool.empty_at > note.at + self._settings.notice_seconds:
            return None
        return Kind.PAST if pool.empty_at < note.at - PAST_SECONDS else Kind.NEAR

    def kind_of_overdue(self, pool: DuePool) -> Kind | None:
        """Return what a pool is that is due without a note; None if it ended while the stream was followed.

        A pool that turns up behind what was settled has been written since: the stream is yet to tell of it.
        """
        if not pool.synced and pool.empty_at < self.settled_through - PAST_SECONDS:
            return Kind.PAST
        unseen = self.since is None or pool.empty_at < self.since
        return Kind.OVERDUE if unseen or pool.empty_at <= self.settled_through else None
