"""The rows of the table and their figures, each with its bounds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pool_daemon.bench.database import BenchDatabase


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value and its bounds; without a bound it is informative.

    `unit` is written behind the value; "×" is a ratio of two values measured in the same run.
    """

    name: str
    value: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def reached(self) -> bool | None:
        """Whether the value keeps its bounds; None without bounds. A value that could not be measured does not."""
        if self.at_most is None and self.at_least is None:
            return None
        low = -math.inf if self.at_least is None else self.at_least
        high = math.inf if self.at_most is None else self.at_most
        return low <= self.value <= high

    @property
    def bound(self) -> str:
        """The bound as text."""
        bounds = [
            f"{sign} {_shown(bound)}"
            for sign, bound in (("≥", self.at_least), ("≤", self.at_most))
            if bound is not None
        ]
        return f"{' and '.join(bounds)} {self.unit}" if bounds else ""

    @property
    def shown(self) -> str:
        """The value with its unit as text."""
        return f"{_shown(self.value)} {self.unit}"


class Row(Protocol):
    """One kind of work to measure, with all its parameters fixed."""

    @property
    def name(self) -> str:
        """The name that selects it on the command line."""

    @property
    def work(self) -> str:
        """A description of the work for the table."""

    def measure(self, stage: "BenchDatabase") -> Sequence[Figure]:
        """Do the work on an empty database and return the figures."""


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that `percent` % of the values do not exceed; NaN without values."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def median(values: Sequence[float]) -> float:
    """Return the median of the values, the lower of two; NaN without values."""
    return percentile(values, 50)


def exponent(costs: Mapping[int, float]) -> float:
    """Return the power of the size with which a cost grows from the smallest size to the largest: 1 is linear."""
    (small, low), (large, high) = min(costs.items()), max(costs.items())
    if small == large or low <= 0 or high <= 0:
        return math.nan
    return math.log(high / low) / math.log(large / small)


def _shown(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:,.{min(digits, 2)}f}"
