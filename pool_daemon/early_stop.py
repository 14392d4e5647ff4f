"""A stop that is asked for while the daemon is still being imported: a second in which nobody can heed it.

By default it would end the process with another exit code than a stop has; and as the first process of a container,
which the kernel spares such an end, the daemon would never hear of it and be killed when the patience is over.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def held_back() -> Iterator[None]:
    """Have a signal to stop wait until it is let through, at the end of this at the latest."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        let_through()


def let_through() -> None:
    """Deliver what has been held back, and hold back no more."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
