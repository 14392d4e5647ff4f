"""Waiting for something to become true, with an end to patience."""

import asyncio
import inspect
import math
import time
from collections.abc import Awaitable, Callable

POLL_SECONDS = 0.01

TRIES = 5
AGAIN = "not within {} s in any of {} tries, but {}: {}"


def wait_until(condition: Callable[[], object], *, within_seconds: float, what: str) -> None:
    """Return as soon as the condition holds; fail with `what` was awaited when time is up."""
    deadline = time.monotonic() + within_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_seconds} s: {what}")
        time.sleep(POLL_SECONDS)


async def until(
    condition: Callable[[], object], *, within_seconds: float, what: str, every_seconds: float = POLL_SECONDS
) -> None:
    """Do the same while others go on, by the time of the event loop, which may be virtual.

    The condition may be a coroutine function.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_seconds
    while not await _answer(condition()):
        if loop.time() > deadline:
            raise AssertionError(f"not within {within_seconds} s: {what}")
        await asyncio.sleep(every_seconds)


async def _answer(answer: object) -> object:
    return await answer if inspect.isawaitable(answer) else answer


def soonest(trial: Callable[[], float], *, within_seconds: float, what: str) -> None:
    """Fail unless one of some trials takes no longer: a busy machine delays one or another, a fault delays all.

    A trial returns how long it took, in seconds.
    """
    took: list[float] = []
    while min(took, default=math.inf) >= within_seconds:
        if len(took) == TRIES:
            raise AssertionError(AGAIN.format(within_seconds, TRIES, took, what))
        took.append(trial())


async def soonest_of(trial: Callable[[], Awaitable[float]], *, within_seconds: float, what: str) -> None:
    """Do the same with trials of the event loop."""
    took: list[float] = []
    while min(took, default=math.inf) >= within_seconds:
        if len(took) == TRIES:
            raise AssertionError(AGAIN.format(within_seconds, TRIES, took, what))
        took.append(await trial())


def wait_for_instant(instant: float) -> None:
    """Return when the clock on the wall shows that instant, in unix seconds."""
    time.sleep(max(0.0, instant - time.time()))
