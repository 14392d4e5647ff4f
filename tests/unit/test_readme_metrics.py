"""The README's table of metrics is the code's."""

from pathlib import Path

from pool_daemon.telemetry.metric_table import as_markdown

README = Path(__file__).parents[2] / "README.md"
HOW = "python -c 'from pool_daemon.telemetry.metric_table import as_markdown; print(as_markdown())'"


def test_the_readme_lists_every_metric_as_the_code_has_it() -> None:
    assert as_markdown() in README.read_text(encoding="utf-8"), f"put into README.md what this prints: {HOW}"
