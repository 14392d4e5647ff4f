"""Signals that arrive while the daemon is still being imported: for about a second there is no handler.

By default a stop would end the process with a different exit code than an orderly stop. The first process of a
container would ignore it, because the kernel does not apply the default there, and would be killed after the grace
period. A reload would end the process, too.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
HELD_SIGNALS: Final = (*STOP_SIGNALS, signal.SIGHUP)


@contextmanager
def held_back() -> Iterator[None]:
    """Block the signals for stop and reload until they are let through.

    At the end a stop is delivered; a reload has nothing to reload, and is discarded.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD_SIGNALS)
    try:
        yield
    finally:
        if signal.SIGHUP in signal.sigpending():
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # discards it
        let_through()


def let_through(*numbers: signal.Signals) -> None:
    """Unblock some of the signals, by default all, and deliver those that are pending."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers or HELD_SIGNALS)
