"""What the faults did to the invariants: a row for each fault, printed as one table at the end of the run."""

from collections.abc import Sized
from typing import NamedTuple

HEADINGS = ("#", "fault", "trials", "violations", "figure")


class Figure(NamedTuple):
    """One row of the table."""

    number: int
    fault: str
    trials: int
    violations: int
    figure: str


class Figures:
    """Collects the rows of a run; a test records its row before it judges it, so that a failure is in the table."""

    def __init__(self) -> None:
        self._rows: list[Figure] = []

    def __bool__(self) -> bool:
        return bool(self._rows)

    def record(self, number: int, fault: str, *, trials: int, violations: int | Sized, figure: str) -> None:
        """Add the row of a fault: how often it was injected, how many violations (or which ones), what was measured."""
        count = violations if isinstance(violations, int) else len(violations)
        self._rows.append(Figure(number, fault, trials, count, figure))

    def as_markdown(self) -> str:
        """Return the table, its rows in the order of the faults; its columns are aligned for the terminal too."""
        rows = [HEADINGS, *map(_cells, sorted(self._rows, key=lambda row: (row.number, row.trials, row.fault)))]
        widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
        lines = [_line(row, widths) for row in rows]
        return "\n".join([lines[0], _line(tuple("-" * width for width in widths), widths), *lines[1:]])


def _cells(row: Figure) -> tuple[str, ...]:
    return tuple(f"{cell:,}" if isinstance(cell, int) else cell for cell in row)


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    """Write words to the left of their column and numbers to the right."""
    aligned = [
        cell.rjust(width) if HEADINGS[column] in {"#", "trials", "violations"} else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return f"| {' | '.join(aligned)} |"
