"""An event loop whose time leaps to whatever is due next: hours pass in milliseconds, and nothing is ever late."""

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine, Generator
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class _LeapingSelector(selectors.SelectSelector):
    """Waits for nothing: it moves the time on by as long as it was told to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("everybody waits and nothing is due: this would hang for ever")
        self.now += max(0.0, timeout)
        return super().select(0)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Begins at 0. Only for what neither talks to sockets nor starts threads."""

    def __init__(self) -> None:
        self._leaping = _LeapingSelector()
        super().__init__(self._leaping)

    def time(self) -> float:
        return self._leaping.now


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Make an ordinary function of a coroutine function: each call has a loop of its own."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            return runner.run(test(*args, **kwargs))

    return run


class ProcessClock:
    """The clock of one process: the loop's time, only faster or slower, and from another beginning."""

    def __init__(self, *, rate: float = 1.0, started_at: float = 0.0) -> None:
        self._rate = rate
        self._started_at = started_at

    def now(self) -> float:
        return 1_700_000_000 + asyncio.get_running_loop().time()

    def monotonic(self) -> float:
        return self._started_at + asyncio.get_running_loop().time() * self._rate


class Halting:
    """Awaits a coroutine that stands still after each of its awaits for as long as `pause_seconds` says.

    As a stopped process does: what it waited for has happened long since when it goes on. `stepped` is called each
    time that it has come as far as its next await.
    """

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, Any],
        *,
        pause_seconds: Callable[[], float],
        stepped: Callable[[], None] = lambda: None,
    ) -> None:
        self._coroutine = coroutine
        self._pause_seconds = pause_seconds
        self._stepped = stepped

    def __await__(self) -> Generator[Any, Any, Any]:
        resume, value = self._coroutine.send, None
        while True:
            try:
                awaited = resume(value)
            except StopIteration as ended:
                return ended.value
            finally:
                self._stepped()
            try:
                yield awaited
                yield from asyncio.sleep(self._pause_seconds()).__await__()
            except BaseException as error:  # noqa: BLE001 - a cancellation is passed on to the coroutine
                resume, value = self._coroutine.throw, error
            else:
                resume, value = self._coroutine.send, None
