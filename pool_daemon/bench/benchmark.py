"""Runs the benchmark row by row, each on an empty database, even if the row before has failed."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pymongo.errors import PyMongoError

from pool_daemon.bench.database import BenchDatabase
from pool_daemon.bench.figures import Figure, Row
from pool_daemon.errors import PoolDaemonError


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a row: its figures, or why there are none."""

    row: Row
    figures: Sequence[Figure]
    seconds: float
    failure: str | None = None

    @property
    def reached(self) -> bool:
        """Whether every figure keeps its bounds."""
        return self.failure is None and all(figure.reached is not False for figure in self.figures)


def results(rows: Sequence[Row], stage: BenchDatabase) -> Iterator[Result]:
    """Measure row after row and yield the result of each.

    A row that cannot be measured counts as not reached, and the others are measured all the same.
    """
    for row in rows:
        stage.begin(row.work)
        started_at = time.monotonic()
        figures: Sequence[Figure] = ()
        failure = None
        try:
            figures = row.measure(stage)
        except (PoolDaemonError, PyMongoError) as error:
            failure = str(error)
        yield Result(row, figures, time.monotonic() - started_at, failure)
        stage.clear()
