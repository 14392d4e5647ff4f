"""The report of the benchmark: a table for people, an object for machines."""

import math
import re
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pool_daemon.bench.figures import Figure
from pool_daemon.bench.suite import Result, full

MARKS = {True: Text("reached", "green"), False: Text("not reached", "bold red"), None: Text()}


def report(results: Sequence[Result]) -> RenderableType:
    """Return the table: a line for each figure, the bounded ones of a row first, and a summary."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for column in ("work", "figure", "to reach"):
        table.add_column(column)
    table.add_column("measured", justify="right")
    table.add_column("")
    for result in results:
        for line in _lines(result):
            table.add_row(*line)
        table.add_section()
    return Group(Text(), table, Text(), _summary(results))


def as_json(results: Sequence[Result], *, circumstances: Mapping[str, Any]) -> dict[str, Any]:
    """Return the contents of the table, with the circumstances of the measurement."""
    return {
        **circumstances,
        "rows": [
            {
                "name": result.row.name,
                "work": result.row.work,
                "reached": result.reached,
                "failure": result.failure,
                "seconds": round(result.seconds, 1),
                "figures": [_figure(figure) for figure in result.figures],
            }
            for result in results
        ],
    }


def as_markdown(results: Sequence[Result], *, circumstances: Mapping[str, Any], before: str = "") -> str:
    """Return the table as pool_daemon/bench/README.md shows it, below the circumstances.

    Rows of the table `before` that were not measured now stay, and then so do its circumstances. A row that a full run
    no longer has is dropped.
    """
    minutes = sum(result.seconds for result in results) / 60
    where = f"MongoDB {circumstances['mongodb']}, {circumstances['cores']} cores"
    measured = {result.row.name: _markdown_lines(result) for result in results}
    rows = _rows_of(before) | measured
    kept = before.partition("\n")[0] if len(rows) > len(measured) else ""
    return "\n".join(
        [
            kept or f"pool-daemon {circumstances['version']}, {where}, {minutes:.0f} minutes.",
            "",
            "| work | figure | to reach | measured | |",
            "| -- | -- | --: | --: | -- |",
            *chain.from_iterable(rows.get(row.name, ()) for row in full()),
        ]
    )


def _markdown_lines(result: Result) -> list[str]:
    work = f"{result.row.work} (`{result.row.name}`)"
    if result.failure is not None:
        return [f"| {work} | could not be measured: {result.failure} | | | **not reached** |"]
    marks = {True: "reached", False: "**not reached**", None: ""}
    return [
        f"| {'' if number else work} | {figure.name} | {figure.bound} | {figure.shown} | {marks[figure.reached]} |"
        for number, figure in enumerate(result.figures)
    ]


def _rows_of(table: str) -> dict[str, list[str]]:
    """Return the lines of a written table by the name of their row."""
    rows: dict[str, list[str]] = {}
    for line in table.splitlines():
        if name := re.match(r"\| [^|]+\(`([^`]+)`\) \|", line):
            rows[name[1]] = [line]
        elif rows:
            rows[next(reversed(rows))].append(line)
    return rows


def _lines(result: Result) -> list[tuple[RenderableType, ...]]:
    work = Text(f"{result.row.work} [{result.row.name}]")
    if result.failure is not None:
        return [(work, Text(f"could not be measured: {result.failure}"), "", "", MARKS[False])]
    lines: list[tuple[RenderableType, ...]] = [
        ("", Text(figure.name), figure.bound, figure.shown, MARKS[figure.reached]) for figure in result.figures
    ]
    return [(work, *lines[0][1:]), *lines[1:]] if lines else []


def _figure(figure: Figure) -> dict[str, Any]:
    return {
        "name": figure.name,
        "value": figure.value if math.isfinite(figure.value) else None,
        "unit": figure.unit,
        "at_least": figure.at_least,
        "at_most": figure.at_most,
        "reached": figure.reached,
    }


def _summary(results: Sequence[Result]) -> Text:
    missed = [result.row.name for result in results if not result.reached]
    if missed:
        return Text(f"{len(missed)} of {len(results)} rows are not reached: {', '.join(missed)}.", "bold red")
    return Text(f"All {len(results)} rows are reached.", "bold green")
