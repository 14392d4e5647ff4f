"""The rounding of the explorer service, reproduced exactly.

That service divides and adds with 64-bit mantissas when it predicts the second at which a pool runs empty. A double (53
bits) gives another second about once in 700 pools, an exact fraction once in 10,000. A second too early or too late is
what this daemon exists to prevent.
"""

import math
from collections.abc import Iterable
from typing import Final

MANTISSA_BITS: Final = 64
"""Significant bits that a quotient or a sum keeps."""

LATEST: Final = 2**63 - 1
"""The last instant of an int64, in unix seconds; as an `empty_at` it means never."""

EARLIEST: Final = -(2**63)
"""The first instant of an int64, in unix seconds."""


def runs_out_at(left: float, rate: float, since: int) -> int:
    """Return the unix second at which an amount runs out.

    `left` is in unit seconds at the instant `since`, `rate` in units. The quotient `left / rate` and then its
    sum with `since` are each rounded once to a 64-bit mantissa, half to even; the sum loses its fraction and
    is held within an int64. A rate of 0 never runs out. Both numbers must be finite.
    """
    if rate == 0:
        return LATEST
    left_numerator, left_denominator = left.as_integer_ratio()
    rate_numerator, rate_denominator = rate.as_integer_ratio()
    numerator = left_numerator * rate_denominator
    denominator = left_denominator * rate_numerator
    # Two more bits than are kept: one to see a half, one to see that something follows it.
    scale = max(0, MANTISSA_BITS + 2 + denominator.bit_length() - numerator.bit_length())
    quotient, rest = divmod(numerator << scale, denominator)
    if rest:
        quotient |= 1
    total = to_mantissa(to_mantissa(quotient) + (since << scale))
    seconds = total >> scale if total >= 0 else -(-total >> scale)
    return max(EARLIEST, min(seconds, LATEST))


def to_mantissa(number: int) -> int:
    """Return an integer rounded half to even to its 64 most significant bits."""
    excess = number.bit_length() - MANTISSA_BITS
    if excess <= 0:
        return number
    kept = number >> excess
    rest = number - (kept << excess)
    half = 1 << (excess - 1)
    if rest > half or (rest == half and kept & 1):
        kept += 1
    return kept << excess


def round_half_away(number: float) -> float:
    """Return the nearest whole number, halves away from zero (Python's own `round` takes them to even)."""
    fraction, whole = math.modf(number)
    return whole + math.trunc(2 * fraction)


def all_finite(numbers: Iterable[float]) -> bool:
    """Return whether no number is NaN, infinite or an integer too large for a double."""
    try:
        return all(map(math.isfinite, numbers))
    except OverflowError:
        return False
