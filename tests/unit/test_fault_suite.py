"""Which sizes of the faults a short run takes, and that it publishes none."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import conftest
import pytest
from faults import conftest as faults_conftest

HERE = Path("test_something.py")


class Options:
    """A run's configuration, as far as the hooks ask for it; `left_out` are the tests that it leaves out."""

    def __init__(self, **options: Any) -> None:
        self._options = options
        self.left_out: list[Any] = []

    @property
    def hook(self) -> Self:
        return self

    def pytest_deselected(self, items: list[Any]) -> None:
        self.left_out.extend(items)

    def getoption(self, name: str) -> Any:
        return self._options.get(name.lstrip("-").replace("-", "_"))


def item(name: str, *, is_full: bool, path: Path = HERE) -> Any:
    marker = pytest.mark.faults if is_full else None
    return SimpleNamespace(
        path=path, name=f"{name}[{is_full}]", originalname=name, get_closest_marker={"faults": marker}.get
    )


def items() -> list[Any]:
    elsewhere = HERE.with_name("test_other.py")
    return [
        item("in_both_sizes", is_full=False),
        item("in_both_sizes", is_full=True),
        item("small_only", is_full=False),
        item("in_both_sizes", is_full=False, path=elsewhere),
    ]


def test_a_short_run_takes_no_small_size_of_what_it_takes_in_full() -> None:
    options, taken = Options(short=True), items()
    small, *others = taken
    faults_conftest.pytest_collection_modifyitems(options, taken)  # type: ignore[arg-type] # as far as it asks
    assert (taken, options.left_out) == (others, [small])


def test_any_other_run_takes_what_is_selected() -> None:
    options, taken = Options(short=False), items()
    every = list(taken)
    faults_conftest.pytest_collection_modifyitems(options, taken)  # type: ignore[arg-type] # as far as it asks
    assert (taken, options.left_out) == (every, [])


@pytest.mark.parametrize(("short", "faults_table"), [(True, None), (False, Path("table.md")), (False, None)])
def test_either_option_may_stand_alone(*, short: bool, faults_table: Path | None) -> None:
    conftest.pytest_configure(Options(short=short, faults_table=faults_table))  # type: ignore[arg-type] # as above


def test_a_short_run_publishes_nothing() -> None:
    with pytest.raises(pytest.UsageError, match="leave --short out"):
        conftest.pytest_configure(Options(short=True, faults_table=Path("table.md")))  # type: ignore[arg-type] # as above
