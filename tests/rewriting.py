"""An explorer that writes one pool all the time, beside what changes the same pool."""

import threading
import time
from typing import Self

from arithmetic_model import Rates
from deadline import until
from explorer import Explorer

REST_SECONDS = 0.002

LONG_REST_SECONDS = 0.06
"""Each tenth rest: a change of somebody else that falls into it stands, those between two quick writes never do."""


class Rewriting:
    """Adds one storage unit second to a pool again and again, in a thread, each time as the explorer does.

    `added` counts those that are written. With `times`, it ends after so many.
    """

    def __init__(
        self, explorer: Explorer, pool_id: int, *, times: int | None = None, rest_seconds: float = REST_SECONDS
    ) -> None:
        self._explorer = explorer
        self._pool_id = pool_id
        self._times = times
        self._rest_seconds = rest_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="the explorer")
        self.added = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def is_over(self) -> bool:
        return not self._thread.is_alive()

    async def until_it_has_written_twice(self) -> None:
        """Wait until a write that began after now is done, or there is none any more."""
        goal = self.added + 2
        await until(lambda: self.added >= goal or self.is_over, within_seconds=20, what="it to write twice")

    def _run(self) -> None:
        while not self._stop.is_set() and self.added != self._times:
            self._explorer.top_up(self._pool_id, Rates(su=1.0))
            self.added += 1
            time.sleep(self._rest_seconds if self.added % 10 else LONG_REST_SECONDS)
