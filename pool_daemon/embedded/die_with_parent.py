"""A launcher that replaces itself with a program which the kernel kills together with its parent.

Run as a file, by an interpreter without site-packages: ``die_with_parent.py PARENT_PID PROGRAM [ARGUMENT...]``. The
child itself has to make the request below, and Python code between fork and exec is unsafe in a daemon that has a
second thread; so the launcher stands between the daemon and mongod.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h: the signal that a process gets when the thread that forked it ends. It survives exec."""

CANNOT_RUN = 126
"""The exit code of a shell for a program that exists but cannot be run."""


def main() -> None:
    """Request the signal, then replace this process with the program."""
    parent, program, *arguments = sys.argv[1:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        return  # the parent ended before the request was made: no signal would ever come
    try:
        os.execv(program, [program, *arguments])  # noqa: S606 - replacing itself is the purpose
    except OSError as error:
        sys.stderr.write(f"die_with_parent cannot run it: {error.strerror}\n")
        sys.exit(CANNOT_RUN)


if __name__ == "__main__":
    main()
