"""Memory: what the C library and the interpreter are told about how to keep it."""

import ctypes
import gc
from typing import Final

M_ARENA_MAX: Final = -8
"""The parameter's number in the C library's `malloc.h`."""


def keep_one_heap() -> None:
    """Let all threads allocate from one heap; to be called before there is a second thread.

    The GNU C library gives threads heaps of their own so that they need not wait for each other, which the
    interpreter's lock makes them do anyway. What one batch gives back then lies idle in one thread's heap while the
    next is read into another's: ten times as many pools in a storm took 9 MB more, and with one heap 1.6. Other C
    libraries have one heap to begin with.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 1)


def calm_the_collector() -> None:
    """Let the garbage collector pass over what is here to stay, and come round a tenth as often.

    In a storm it took a fifth of the daemon's processor time, looking for cycles among documents that have none.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
