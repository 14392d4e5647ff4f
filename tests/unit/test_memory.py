"""The heaps of the C library, counted in a process of its own."""

import subprocess
import sys

import pytest

HEAPS_OF_FIVE_THREADS = """
import ctypes, os, sys, tempfile, threading
from pool_daemon.process import keep_one_heap

if "one" in sys.argv:
    keep_one_heap()
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fdopen.restype = ctypes.c_void_p
libc.fclose.argtypes = [ctypes.c_void_p]
libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]

together = threading.Barrier(5)
def allocate():
    together.wait()
    libc.malloc(5000)
    together.wait()

threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads:
    thread.start()
allocate()
for thread in threads:
    thread.join()

with tempfile.TemporaryFile() as report:
    stream = libc.fdopen(os.dup(report.fileno()), b"w")
    libc.malloc_info(0, stream)
    libc.fclose(stream)
    report.seek(0)
    print(report.read().count(b"<heap nr="))
"""


@pytest.mark.parametrize(("told", "expected"), [("one", 1), ("nothing", 5)])
def test_all_threads_allocate_from_one_heap_once_told(told: str, expected: int) -> None:
    counted = subprocess.run(
        [sys.executable, "-c", HEAPS_OF_FIVE_THREADS, told], capture_output=True, text=True, check=True
    )

    assert int(counted.stdout) == expected
