"""What the tables of commands are written on."""

import os
import sys
from typing import Final

from rich.console import Console

UNBROKEN: Final = 200
"""Columns where no terminal sets a bound: `grep` and `less` want a row in one line."""


def paper() -> Console:
    """Return a console as wide as the terminal, or as $COLUMNS says, or wide enough to break no row."""
    bounded = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if bounded else UNBROKEN)
