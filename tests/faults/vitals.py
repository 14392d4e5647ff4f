"""How a process fares in the long run: its memory, its open files, its threads."""

import statistics
import threading
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

PERIOD_SECONDS = 0.5


class Sample(NamedTuple):
    """What was seen at one moment, `seconds` after the first look."""

    seconds: float
    megabytes: float
    files: int
    threads: int


class Vitals:
    """Looks at a process twice a second from a thread of its own; a context manager."""

    def __init__(self, *, pid: int) -> None:
        self._process = Path(f"/proc/{pid}")
        self._samples: list[Sample] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="vitals", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    @property
    def settled(self) -> list[Sample]:
        """What was seen in the second half: by then what is needed once has been taken."""
        return self._samples[len(self._samples) // 2 :]

    def now(self) -> Sample:
        """Look once."""
        status = dict(line.split(":", 1) for line in (self._process / "status").read_text().splitlines())
        files = sum(1 for _ in (self._process / "fd").iterdir())
        return Sample(
            len(self._samples) * PERIOD_SECONDS,
            int(status["VmRSS"].split()[0]) / 1024,
            files,
            int(status["Threads"]),
        )

    def growth_megabytes(self) -> float:
        """Return how much the memory grew in the second half, by the line that fits it best."""
        samples = self.settled
        slope = statistics.linear_regression(
            [sample.seconds for sample in samples], [sample.megabytes for sample in samples]
        ).slope
        return slope * (samples[-1].seconds - samples[0].seconds)

    def _watch(self) -> None:
        while not self._over.wait(PERIOD_SECONDS):
            self._samples.append(self.now())
