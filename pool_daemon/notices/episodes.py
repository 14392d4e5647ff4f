"""When a notice is due, and when it no longer is: what follows from the time that a pool lasts, and nothing else.

An *episode* of a lead (a time before the end, in seconds) begins when a pool lasts no longer than that. It is over when
the pool lasts a tenth longer than that again, so a workload that moves the end by minutes neither begins nor ends one.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

LASTS_LONGER: Final = 1.1
"""The time, in leads, beyond which a pool counts as lasting longer again."""

USEFUL_SECONDS: Final = 10
"""The shortest time before its end for which a pool is told. It is more than two clocks may be apart: the end of a pool
that has run empty is, with each write of the explorer, the present by the explorer's clock."""


@dataclass(frozen=True, slots=True)
class Tell:
    """The pool has come within this lead, which is shorter than the one that was told."""

    lead: int


@dataclass(frozen=True, slots=True)
class Replenished:
    """The pool lasts longer again than the lead that was told; `within` is the next lead whose episode goes on."""

    within: int | None


@dataclass(frozen=True, slots=True)
class Forget:
    """The pool has run empty: whatever comes after that is another episode."""


Step = Tell | Replenished | Forget


def next_step(remaining: int, told: int | None, leads: Sequence[int]) -> Step | None:
    """Return what follows for a pool that lasts for `remaining` seconds and of which the lead `told` was told last.

    Of several leads that a pool comes within at once only the shortest is told.
    """
    if remaining <= 0:
        return None if told is None else Forget()
    nearest = _shortest(leads, at_least=remaining)
    if nearest is not None and (told is None or nearest < told):
        return Tell(nearest) if remaining >= USEFUL_SECONDS else None
    if told is None or remaining <= told * LASTS_LONGER:
        return None
    return Replenished(within=_shortest(leads, at_least=remaining / LASTS_LONGER))


def _shortest(leads: Iterable[int], *, at_least: float) -> int | None:
    return min((lead for lead in leads if lead >= at_least), default=None)


class Verdict(Enum):
    """What to do with a notice at the moment of sending it."""

    SEND = auto()
    WAIT = auto()
    DROP = auto()


def at_sending(remaining: int, lead: int) -> Verdict:
    """Return what to do with the notice of a lead, now that its pool lasts for `remaining` seconds.

    Between the lead and a tenth more its episode goes on, and nothing would be told a second time: it waits.
    """
    if not 0 < remaining <= lead * LASTS_LONGER:
        return Verdict.DROP
    return Verdict.SEND if remaining <= lead else Verdict.WAIT


MOST_IN_DIGEST: Final = 1000
"""The most pools of one event, some 60 kilobytes; a larger crowd gets several."""

MOST_TOGETHER: Final = 100
"""The most pools whose events are written in one transaction."""


def grouped(pools: Iterable[tuple[int, int]], *, crowd: int) -> Iterator[tuple[bool, list[int]]]:
    """Yield the ids of pools (owner, id) in groups, and for each whether it is a digest.

    The pools of an owner of more than `crowd` are digests, those of the others are told one by one.
    """
    by_owner: dict[int, list[int]] = {}
    for owner, pool_id in pools:
        by_owner.setdefault(owner, []).append(pool_id)
    single = [pool_id for ids in by_owner.values() if len(ids) <= crowd for pool_id in ids]
    for start in range(0, len(single), MOST_TOGETHER):
        yield False, single[start : start + MOST_TOGETHER]
    for ids in by_owner.values():
        if len(ids) > crowd:
            for start in range(0, len(ids), MOST_IN_DIGEST):
                yield True, ids[start : start + MOST_IN_DIGEST]
