"""The report of the demo: what was expected of each pool, what happened, and what failed."""

from collections.abc import Sequence
from datetime import timedelta

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pool_daemon.demo.verdict import Finding, milliseconds


def report(findings: Sequence[Finding]) -> RenderableType:
    """Return the verdict as a table, with every fault on a line of its own below it, and a summary."""
    faults = [Text(f"✗ {finding.name}: {fault}", "red") for finding in findings for fault in finding.faults]
    return Group(Text(), _table(findings), Text(), *faults, _summary(findings))


def _table(findings: Sequence[Finding]) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for column in ("pool", "what it shows", "expected", "happened", ""):
        table.add_column(column)
    for finding in findings:
        mark = Text("✓", "green") if finding.held else Text("✗", "bold red")
        table.add_row(Text(finding.name, "bold"), finding.shows, finding.expected, finding.happened, mark)
    return table


def _summary(findings: Sequence[Finding]) -> Text:
    failed = sum(not finding.held for finding in findings)
    if failed:
        return Text(f"{failed} of {len(findings)} did not hold.", "bold red")
    latest = max((finding.lateness for finding in findings if finding.lateness), default=timedelta())
    return Text(
        f"All {len(findings)} held: nothing stopped early, and nothing more than {milliseconds(latest)} ms late.",
        "bold green",
    )
