"""The 64-bit mantissa, judged by exact fractions that are rounded in another way than the daemon rounds."""

import math
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pool_daemon.capacity.arithmetic import (
    EARLIEST,
    LATEST,
    all_finite,
    round_half_away,
    runs_out_at,
    to_mantissa,
)

SINCE = 1_600_000_000
finite = st.floats(allow_nan=False, allow_infinity=False)
rates = finite.filter(bool)
instants = st.integers(EARLIEST, LATEST) | st.integers(1_500_000_000, 1_900_000_000)


def rounded(exact: Fraction) -> Fraction:
    """Round to 64 significant bits, half to even, by searching for the binade."""
    if exact == 0:
        return exact
    unit = Fraction(1)
    while abs(exact) / unit >= 2**64:
        unit *= 2
    while abs(exact) / unit < 2**63:
        unit /= 2
    return round(exact / unit) * unit


def modelled(left: float, rate: float, since: int) -> int:
    seconds = math.trunc(rounded(rounded(Fraction(left) / Fraction(rate)) + since))
    return max(EARLIEST, min(seconds, LATEST))


@given(left=finite, rate=rates, since=instants)
@example(left=5e-324, rate=1.7976931348623157e308, since=SINCE)
@example(left=1.7976931348623157e308, rate=5e-324, since=SINCE)
@example(left=5e-324, rate=-5e-324, since=0)
@example(left=-1.7976931348623157e308, rate=5e-324, since=LATEST)
def test_any_finite_numbers_come_out_as_exact_fractions_rounded_twice(left: float, rate: float, since: int) -> None:
    assert runs_out_at(left, rate, since) == modelled(left, rate, since)


@given(
    seconds=st.integers(0, 2**40),
    rate=st.integers(1, 10**12).map(lambda thousandths: thousandths / 1000),
    ulps=st.integers(-3, 3),
    since=instants,
)
def test_amounts_that_last_almost_whole_seconds_come_out_as_exact_fractions_rounded_twice(
    seconds: int, rate: float, ulps: int, since: int
) -> None:
    left = seconds * rate
    for _ in range(abs(ulps)):
        left = math.nextafter(left, math.copysign(math.inf, ulps))
    assert runs_out_at(left, rate, since) == modelled(left, rate, since)


@given(rate=st.integers(2**51, 2**52 - 1), missing=st.integers(0, 2**22), since=st.integers(2**30, 2**31))
def test_amounts_a_hair_short_of_whole_seconds_come_out_as_exact_fractions_rounded_twice(
    rate: int, missing: int, since: int
) -> None:
    # The seconds are those for which rate x seconds - missing is a double: only such an amount lies so close to
    # a second that it matters whether the quotient is rounded before the sum, and which way a half of it goes.
    odd = 2 * rate + 1
    seconds = missing * pow(odd, -1, 2**31) % 2**31
    left = float(odd * seconds - missing)
    assert left == odd * seconds - missing
    assert runs_out_at(left, float(odd), since) == modelled(left, float(odd), since)


@pytest.mark.parametrize(
    ("left", "rate"), [(1769169376.6967378, 1.4575248753096968), (2759340714.067168, 1.7604600395077108)]
)
def test_a_quotient_is_rounded_before_it_is_added(left: float, rate: float) -> None:
    exact = Fraction(left) / Fraction(rate)
    assert math.trunc(rounded(exact + SINCE)) == SINCE + math.trunc(exact)
    assert runs_out_at(left, rate, SINCE) == SINCE + math.trunc(exact) + 1


def test_a_quotient_just_below_a_second_is_not_rounded_up_to_it_as_doubles_would() -> None:
    left, rate = 3 - 2**-30, 1.0
    assert int(left / rate + SINCE) == SINCE + 3
    assert runs_out_at(left, rate, SINCE) == SINCE + 2


def test_a_sum_that_needs_more_than_64_bits_is_rounded_up_where_an_exact_fraction_is_not() -> None:
    left, rate = math.nextafter(1.0, 0.0), 1.0
    assert math.trunc(Fraction(left) + SINCE) == SINCE
    assert runs_out_at(left, rate, SINCE) == SINCE + 1


def test_what_nothing_drains_never_runs_out() -> None:
    assert runs_out_at(0.0, 0.0, SINCE) == LATEST
    assert runs_out_at(1e300, -0.0, SINCE) == LATEST


def test_an_end_beyond_64_bits_is_held_at_their_last_second() -> None:
    assert runs_out_at(1e300, 1e-300, SINCE) == LATEST
    assert runs_out_at(float(2**63), 1.0, SINCE) == LATEST
    assert runs_out_at(-1e300, 1e-300, SINCE) == EARLIEST


def test_a_fraction_of_a_second_is_cut_off_towards_zero_on_both_sides() -> None:
    assert runs_out_at(2.5, 1.0, 0) == 2
    assert runs_out_at(-2.5, 1.0, 0) == -2


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (2**64 - 1, 2**64 - 1),
        (2**64 + 1, 2**64),
        (2**64 + 2, 2**64 + 2),
        (2**64 + 3, 2**64 + 4),
        (2**65 + 2, 2**65),
        (2**65 + 3, 2**65 + 4),
        (2**65 + 6, 2**65 + 8),
        (2**65 - 1, 2**65),
        (-(2**64) - 3, -(2**64) - 4),
        (-(2**65) - 2, -(2**65)),
        (0, 0),
    ],
)
def test_an_integer_keeps_64_bits_and_its_halves_go_to_even(number: int, expected: int) -> None:
    assert to_mantissa(number) == expected


@given(st.floats(-1e20, 1e20))
@example(0.49999999999999994)
@example(2.5)
@example(-2.5)
@example(4503599627370497.5)
def test_halves_go_away_from_zero(number: float) -> None:
    assert round_half_away(number) == Decimal(number).quantize(Decimal(1), ROUND_HALF_UP)


def test_an_integer_too_large_for_a_double_counts_as_not_finite() -> None:
    assert all_finite([0.0, 1.5, 2**63])
    assert not all_finite([0.0, 10**400])
    assert not all_finite([math.nan])
    assert not all_finite([-math.inf])
