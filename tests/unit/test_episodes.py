"""When a notice is due, by the time that a pool lasts."""

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_daemon.notices.episodes import (
    LASTS_LONGER,
    MOST_IN_DIGEST,
    MOST_TOGETHER,
    Forget,
    Replenished,
    Step,
    Tell,
    Verdict,
    at_sending,
    grouped,
    next_step,
)

WEEK, DAY, HOUR = 604_800, 86_400, 3600
LEADS = [HOUR, DAY, WEEK]


@pytest.mark.parametrize(
    ("remaining", "told", "step"),
    [
        (WEEK + 1, None, None),
        (WEEK, None, Tell(WEEK)),
        (DAY, None, Tell(DAY)),
        (HOUR, None, Tell(HOUR)),
        (HOUR, DAY, Tell(HOUR)),
        (HOUR, HOUR, None),
        (10, None, Tell(HOUR)),
        (9, None, None),
        (9, DAY, None),
        (0, None, None),
        (0, HOUR, Forget()),
        (-5, WEEK, Forget()),
        (int(HOUR * 1.1), HOUR, None),
        (int(HOUR * 1.1) + 1, HOUR, Replenished(DAY)),
        (int(DAY * 1.1) + 1, HOUR, Replenished(WEEK)),
        (int(WEEK * 1.1), HOUR, Replenished(WEEK)),
        (int(WEEK * 1.1) + 1, HOUR, Replenished(None)),
        (2 * WEEK, 30 * DAY, None),
    ],
)
def test_what_follows_from_the_time_that_a_pool_lasts(remaining: int, told: int | None, step: Step | None) -> None:
    assert next_step(remaining, told, LEADS) == step


def walk(remaining: Sequence[int], leads: Sequence[int]) -> list[tuple[int, int]]:
    """Follow a pool through what remains of it; return at which steps it was told which lead."""
    told: int | None = None
    notices = []
    for index, each in enumerate(remaining):
        match next_step(each, told, leads):
            case Tell(lead):
                told = lead
                notices.append((index, lead))
            case Replenished(within):
                told = within
            case Forget():
                told = None
    return notices


@given(
    st.lists(st.integers(10, 2 * WEEK), max_size=60),
    st.lists(st.sampled_from([60, HOUR, DAY, 3 * DAY, WEEK]), min_size=1, unique=True),
)
def test_between_two_notices_of_a_lead_the_pool_has_lasted_a_tenth_longer(
    remaining: list[int], leads: list[int]
) -> None:
    last: dict[int, int] = {}
    for index, lead in walk(remaining, leads):
        assert remaining[index] <= lead
        assert not any(remaining[index] <= shorter < lead for shorter in leads)
        if lead in last:
            assert max(remaining[last[lead] : index]) > lead * LASTS_LONGER
        last[lead] = index


@given(st.lists(st.integers(10, 2 * WEEK), min_size=1, max_size=60))
def test_a_pool_within_a_lead_has_been_told_that_lead_or_a_shorter_one(remaining: list[int]) -> None:
    for index, each in enumerate(remaining):
        lead = min((lead for lead in LEADS if each <= lead), default=None)
        if lead is not None:
            assert any(told <= lead for _, told in walk(remaining[: index + 1], LEADS))


@pytest.mark.parametrize(
    ("remaining", "verdict"),
    [
        (0, Verdict.DROP),
        (1, Verdict.SEND),
        (HOUR, Verdict.SEND),
        (HOUR + 1, Verdict.WAIT),
        (int(HOUR * 1.1), Verdict.WAIT),
        (int(HOUR * 1.1) + 1, Verdict.DROP),
    ],
)
def test_what_becomes_of_a_notice_at_the_moment_of_sending(remaining: int, verdict: Verdict) -> None:
    assert at_sending(remaining, HOUR) is verdict


def test_every_pool_is_in_one_group_and_only_a_crowd_is_a_digest() -> None:
    owners = {1: 20, 2: 21, 3: 1, 4: 2 * MOST_IN_DIGEST + 1, **dict.fromkeys(range(100, 300), 1)}
    pools = [(owner, owner * 10_000 + number) for owner, count in owners.items() for number in range(count)]
    random.shuffle(pools)
    groups = list(grouped(pools, crowd=20))
    assert sorted(pool_id for _, ids in groups for pool_id in ids) == sorted(pool_id for _, pool_id in pools)
    for is_digest, ids in groups:
        assert len(ids) <= (MOST_IN_DIGEST if is_digest else MOST_TOGETHER)
        assert not is_digest or {pool_id // 10_000 for pool_id in ids} in ({2}, {4})
