"""The benchmark from its first row to its last: each row on an empty database, whatever became of the one before."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pymongo.errors import PyMongoError

from pool_daemon.bench.figures import Figure, Row
from pool_daemon.bench.stage import Stage
from pool_daemon.errors import PoolDaemonError


@dataclass(frozen=True, slots=True)
class Result:
    """What a row came to: its figures, or why there are none."""

    row: Row
    figures: Sequence[Figure]
    seconds: float
    failure: str | None = None

    @property
    def reached(self) -> bool:
        """Whether every figure was reached that was to be reached."""
        return self.failure is None and all(figure.reached is not False for figure in self.figures)


def results(rows: Sequence[Row], stage: Stage) -> Iterator[Result]:
    """Measure row after row and yield what each came to.

    A row that cannot be measured is not reached, and the others are measured all the same.
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
