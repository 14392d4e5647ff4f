"""The console for the tables of commands."""

import os
import sys
from typing import Final

from rich.console import Console

UNBROKEN: Final = 200
"""Columns without a terminal: `grep` and `less` need each row on one line."""


def paper() -> Console:
    """Return a console as wide as the terminal, or as $COLUMNS, or wide enough to break no row."""
    bounded = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if bounded else UNBROKEN)
