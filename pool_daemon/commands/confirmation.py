"""The confirmation of what a command is about to do to many pools at once."""

import sys


def agreed(what: str, question: str) -> bool:
    """Show what follows, and ask for confirmation on standard error; without a terminal the answer is no."""
    print(what, file=sys.stderr)
    if not sys.stdin.isatty():
        return False
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
