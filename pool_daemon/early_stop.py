"""Signals that come while the daemon is still being imported: for a second nobody can act on them.

By default a stop would end the process with another exit code than a stop has; and as the first process of a container,
which the kernel spares such an end, the daemon would never learn of it and be killed when the patience is over. A
reload would end it, too.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
HELD_SIGNALS: Final = (*STOP_SIGNALS, signal.SIGHUP)


@contextmanager
def held_back() -> Iterator[None]:
    """Have a signal to stop or to reload wait until it is let through.

    At the end a stop is delivered; a reload has nothing left to reload, and is discarded.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD_SIGNALS)
    try:
        yield
    finally:
        if signal.SIGHUP in signal.sigpending():
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # discards it
        let_through()


def let_through(*numbers: signal.Signals) -> None:
    """Deliver those of the signals that have been held back, by default all, and hold them back no more."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers or HELD_SIGNALS)
