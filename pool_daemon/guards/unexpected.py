"""Which pools are unexpected, and how many of them there are: the one measure of the brake."""

from collections import Counter, deque
from dataclasses import dataclass
from enum import Enum
from typing import Final

from pool_daemon.settings import sections
from pool_daemon.store.pools import DuePool

MOST_NOTES: Final = 50_000
"""Writes remembered, some 10 MB."""

MOST_LOST: Final = 100_000
"""Losses remembered of each kind; more than any limit but that of a grid of half a million pools."""

PAST_SECONDS: Final = 60
"""An end further back than this at the instant of its write is none that the explorer computes, so no customer can
arrange it: it never writes an end before the present second."""


class Kind(Enum):
    """Why the end of a pool could not be known, with the seconds for which its loss counts.

    It was written near its end, or long past it, or it is found overdue beyond what was known. The two that a restored
    backup brings count for a day: however slowly it comes, and however often full scans follow each other, no more
    goes in a day than the limit. A leaky bucket would let go again what it drains. Ends that are near come from
    purchases all day long, and from accidents (a bulk edit, a wrong computation) within minutes.
    """

    NEAR = "near", 1200
    PAST = "past", 86_400
    OVERDUE = "overdue", 86_400


Census = Counter[tuple[Kind, int]]
"""How many pools of each kind an owner has; 0 stands for an owner who cannot be read."""


def counted(census: Census, settings: sections.Brake) -> int:
    """Count unexpected pools, each owner for a few at most, as far as a customer can arrange them.

    Ends that are near cost him a fraction of a cent each: he counts for `per_owner` of them. He cannot arrange that no
    daemon acts, but he can have pools that end all the time: of overdue ones he counts for a quarter of `min_pools`,
    so that a grid of five owners has a brake, too.
    """
    few = {Kind.NEAR: settings.per_owner, Kind.OVERDUE: max(settings.per_owner, settings.min_pools // 4)}
    return sum(min(number, few.get(kind, number)) for (kind, _), number in census.items())


def pools_of(census: Census, settings: sections.Brake) -> int:
    """Count unexpected pools as they are compared with all in use: without what one owner can arrange alone."""
    few = settings.per_owner
    return sum(min(number, few) if kind is Kind.NEAR else number for (kind, _), number in census.items())


class Lost:
    """Unexpected pools that have lost something lately; instants are those of the monotonic clock.

    Kept in memory. A restart forgets it, but what is held counts as long as it is held.
    """

    def __init__(self) -> None:
        self._lost: dict[Kind, deque[tuple[float, int]]] = {kind: deque(maxlen=MOST_LOST) for kind in Kind}

    def add(self, kind: Kind, owner: int, *, at: float) -> None:
        """Count a pool."""
        self._lost[kind].append((at, owner))

    def census(self, at: float) -> Census:
        """Return all that still count."""
        for kind, lost in self._lost.items():
            while lost and at - lost[0][0] >= kind.value[1]:
                lost.popleft()
        return Counter((kind, owner) for kind, lost in self._lost.items() for _, owner in lost)


@dataclass(frozen=True, slots=True)
class _Note:
    at: int
    end: int | None


class Notes:
    """Pools that were written near or past their end, and since when the change stream tells of every write.

    At most `MOST_NOTES` are kept, each for twice `notice_seconds`. What is forgotten before it was judged moves the
    instant since which the stream counts as followed behind the end of that pool: whatever ended before is overdue
    beyond what was known. So of a restore larger than that nothing goes unsuspected. It never moves behind the write,
    though, lest many writes make ends suspicious that have stood for long: beyond the bound, pools that were written
    longest ago, and are yet to end, count as known.
    """

    def __init__(self, settings: sections.Brake) -> None:
        self.since: int | None = None
        self._settings = settings
        self._notes: dict[int, _Note] = {}

    def note_watching(self, at: int) -> None:
        """Note that a stream begins at the unix second `at`: what ended before may have been written unseen."""
        self.since = at if self.since is None else max(self.since, at)

    def note_write(self, pool_id: int, empty_at: int | None, at: int) -> None:
        """Note that another writer has written a pool at the unix second `at`.

        Its end is None if that was not told: where rates were changed alone, or a workload of it came as deployed.
        """
        notice = int(self._settings.notice_seconds)
        self._notes.pop(pool_id, None)
        if empty_at is None or empty_at <= at + notice:
            self._notes[pool_id] = _Note(at, empty_at)
        while self._notes:
            oldest = next(iter(self._notes))
            expired = self._notes[oldest].at <= at - 2 * notice
            if len(self._notes) <= MOST_NOTES and not expired:
                break
            note = self._notes.pop(oldest)
            if note.end is not None:
                self.note_watching(min(note.end + 1, at if expired else note.at))

    def kind(self, pool: DuePool) -> Kind | None:
        """Return what its last write makes of a pool that is due; None if nothing."""
        note = self._notes.get(pool.pool_id)
        if note is None or pool.empty_at > note.at + self._settings.notice_seconds:
            return None
        return Kind.PAST if pool.empty_at < note.at - PAST_SECONDS else Kind.NEAR

    def written_after(self, pool_id: int, at: int) -> bool:
        """Return whether a pool was written after the unix second `at`, as far as is noted."""
        note = self._notes.get(pool_id)
        return note is not None and note.at > at

    def forget(self, pool_id: int) -> None:
        """Forget what was judged."""
        self._notes.pop(pool_id, None)

    def due(self, now: int) -> tuple[list[int], int]:
        """Return the ids of the pools written near an end that has come, and how many were written past theirs."""
        ends = [(pool_id, note.end, note.at) for pool_id, note in self._notes.items() if note.end is not None]
        near = [pool_id for pool_id, end, at in ends if at - PAST_SECONDS <= end <= now]
        return near, sum(end < at - PAST_SECONDS for _, end, at in ends)
