"""How long a pool lasts, held against the pool's own arithmetic."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_daemon.capacity.exhaustion import Resource
from pool_daemon.capacity.outlook import first_to_run_out, lasting_until, outlook, to_buy
from pool_daemon.capacity.pool import NEVER, Pool, new_pool

NOW = 1_800_000_000
DAY = 86_400


def pool(**fields: float) -> Pool:
    return replace(new_pool(17, 7, 0, ["a"], now=NOW), **fields)  # type: ignore[arg-type]


def test_each_resource_ends_where_its_amount_divided_by_its_rate_says() -> None:
    drained = pool(cus=20.0 * DAY, active_cu=2.0, sus=3.0 * DAY, active_su=1.0, ipv4us=5.0)
    compute, storage, addresses = outlook(drained, now=NOW + DAY)
    assert (compute.left, compute.rate, compute.runs_out_at) == (18.0 * DAY, 2.0, NOW + 10 * DAY)
    assert (storage.left, storage.runs_out_at) == (2.0 * DAY, NOW + 3 * DAY)
    assert (addresses.left, addresses.runs_out_at, addresses.is_unused) == (5.0, NEVER, True)
    assert first_to_run_out((compute, storage, addresses)) == storage
    assert drained.last_updated == NOW


def test_a_resource_that_ran_out_since_the_last_write_tells_when() -> None:
    (compute, *_) = outlook(pool(cus=100.0, active_cu=1.0), now=NOW + 500)
    assert (compute.left, compute.is_exhausted, compute.runs_out_at) == (0.0, True, NOW + 100)


def test_of_a_resource_that_was_exhausted_when_it_was_written_nothing_is_claimed() -> None:
    outlooks = outlook(pool(cus=0.5, active_cu=1.0, sus=9.0, active_su=1.0), now=NOW)
    assert (outlooks[0].is_exhausted, outlooks[0].runs_out_at) == (True, None)
    assert first_to_run_out(outlooks) == outlooks[0]


def test_nothing_runs_out_of_a_pool_that_nothing_drains_and_dust_is_nothing() -> None:
    outlooks = outlook(pool(cus=0.0, active_cu=0.000009, active_su=-0.000009), now=NOW)
    assert first_to_run_out(outlooks) is None
    assert lasting_until(outlooks, now=NOW, seconds=DAY) is None
    assert to_buy(outlooks, now=NOW, until=NOW + DAY) == {}
    assert not any(each.is_exhausted for each in outlooks)


def test_what_lasts_long_enough_has_not_to_be_bought() -> None:
    outlooks = outlook(pool(cus=2.0 * DAY, active_cu=2.0, sus=100.0 * DAY, active_su=1.0), now=NOW)
    until = lasting_until(outlooks, now=NOW, seconds=30 * DAY)
    assert until == NOW + 31 * DAY
    assert to_buy(outlooks, now=NOW, until=until) == {Resource.COMPUTE: 60 * DAY}


def test_a_pool_that_ran_out_long_ago_begins_anew_now() -> None:
    outlooks = outlook(pool(cus=100.0, active_cu=1.0), now=NOW + 500)
    assert lasting_until(outlooks, now=NOW + 500, seconds=30) == NOW + 530
    assert to_buy(outlooks, now=NOW + 500, until=NOW + 530) == {Resource.COMPUTE: 30}


@given(
    left=st.floats(0, 1e15),
    rates=st.tuples(st.floats(0.001, 1e6), st.floats(0.001, 1e6)),
    passed=st.integers(0, 10 * DAY),
    seconds=st.integers(1, 10_000 * DAY),
)
def test_a_pool_that_is_topped_up_by_what_is_to_be_bought_lasts_so_long(
    left: float, rates: tuple[float, float], passed: int, seconds: int
) -> None:
    drained = pool(cus=left, active_cu=rates[0], sus=left / 3, active_su=rates[1])
    now = NOW + passed
    outlooks = outlook(drained, now=now)
    until = lasting_until(outlooks, now=now, seconds=seconds)
    assert until is not None
    amounts = to_buy(outlooks, now=now, until=until)
    bought = [float(amounts.get(resource, 0)) for resource in Resource]
    drained.add_capacity(*bought, now=now)
    assert drained.empty_at >= until


@pytest.mark.parametrize("less", [1, 2])
@given(left=st.integers(0, 10**9), rate=st.integers(1, 1000), seconds=st.integers(1, 10**8))
def test_less_than_what_is_to_be_bought_is_too_little(less: int, left: int, rate: int, seconds: int) -> None:
    drained = pool(cus=left, active_cu=rate)
    outlooks = outlook(drained, now=NOW)
    until = lasting_until(outlooks, now=NOW, seconds=seconds)
    assert until is not None
    amount = to_buy(outlooks, now=NOW, until=until)[Resource.COMPUTE]
    drained.add_capacity(max(0, amount - less), 0, 0, now=NOW)
    assert drained.empty_at < until
