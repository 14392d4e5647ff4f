"""Memory: settings of the C library's allocator and of the garbage collector."""

import ctypes
import gc
from typing import Final

M_ARENA_MAX: Final = -8
"""The parameter's number in the C library's `malloc.h`."""


def keep_one_heap() -> None:
    """Make all threads allocate from one heap; call it before there is a second thread.

    The GNU C library gives threads heaps of their own so that they do not wait for each other, which the interpreter's
    lock makes them do anyway. Memory that one batch releases then lies unused in one thread's heap while the next batch
    is read into another's: ten times as many pools in a storm took 9 MB more, and with one heap 1.6. Other C libraries
    have one heap anyway.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 1)


def calm_the_collector() -> None:
    """Exempt all existing objects from garbage collection, and collect a tenth as often.

    In a storm it took a fifth of the daemon's processor time, searching for cycles among documents that have none.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
