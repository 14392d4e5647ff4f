"""What the faults did to the invariants: a row for each fault, printed as one table at the end of the run."""

from collections.abc import Callable, Iterable, Iterator, Sized
from pathlib import Path
from typing import NamedTuple

from pool_daemon.generated_table import read_table, write_table

PROPERTY = "fault"
"""The name under which a row travels with the report of its test."""

HEADINGS = ("#", "fault", "trials", "violations", "figure")


class Figure(NamedTuple):
    """One row of the table."""

    number: int
    fault: str
    trials: int
    violations: int
    figure: str


class Figures:
    """Records the rows of one test; it does so before it judges, so that a failure is in the table too.

    A row travels with the test's report, from whichever process the test ran in.
    """

    def __init__(self, *, record_property: Callable[[str, object], None]) -> None:
        self._record_property = record_property

    def record(self, number: int, fault: str, *, trials: int, violations: int | Sized, figure: str) -> None:
        """Add the row of a fault: how often it was injected, how many violations (or which ones), what was measured."""
        count = violations if isinstance(violations, int) else len(violations)
        self._record_property(PROPERTY, tuple(Figure(number, fault, trials, count, figure)))


def table_of(rows: Iterable[Figure]) -> str:
    """Write the rows as Markdown, in the order of the faults, with columns that are aligned for the terminal too."""
    lines = [HEADINGS, *map(_cells, sorted(rows, key=lambda row: (row.number, row.trials, row.fault)))]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    heading, *body = [_line(line, widths) for line in lines]
    return "\n".join([heading, _line(tuple("-" * width for width in widths), widths), *body])


def write_rows(path: Path, rows: Iterable[Figure]) -> None:
    """Write the rows into the table of a Markdown file; rows of faults that were not injected now stay as they are."""
    measured = list(rows)
    numbers = {row.number for row in measured}
    kept = [row for row in _rows_of(read_table(path)) if row.number not in numbers]
    write_table(path, table_of([*kept, *measured]))


def _rows_of(table: str) -> Iterator[Figure]:
    for line in table.splitlines()[2:]:
        number, fault, trials, violations, figure = (cell.strip() for cell in line.strip("|").split("|"))
        yield Figure(int(number), fault, int(trials.replace(",", "")), int(violations.replace(",", "")), figure)


def _cells(row: Figure) -> tuple[str, ...]:
    return tuple(f"{cell:,}" if isinstance(cell, int) else cell for cell in row)


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    """Write words to the left of their column and numbers to the right."""
    aligned = [
        cell.rjust(width) if HEADINGS[column] in {"#", "trials", "violations"} else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return f"| {' | '.join(aligned)} |"
