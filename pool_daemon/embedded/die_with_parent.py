"""A program that becomes another program which the kernel ends together with its parent.

Run as a file, by an interpreter without site-packages: ``die_with_parent.py PARENT_PID PROGRAM [ARGUMENT...]``. It
stands between the daemon and mongod because the request below has to be made by the child itself, and Python
code between fork and exec is unsafe in a daemon that has a second thread.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h: which signal a process gets when the thread that forked it has ended. It outlasts exec."""

CANNOT_RUN = 126
"""What a shell exits with for a program that is there but cannot be run."""


def main() -> None:
    """Ask for the signal, then become the program."""
    parent, program, *arguments = sys.argv[1:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        return  # the parent ended before the request was made: no signal would ever come
    try:
        os.execv(program, [program, *arguments])  # noqa: S606 - to become another program is its whole purpose
    except OSError as error:
        sys.stderr.write(f"die_with_parent cannot run it: {error.strerror}\n")
        sys.exit(CANNOT_RUN)


if __name__ == "__main__":
    main()
