"""The clock on the wall, of which a test's daemons see one of their own."""

import os
import struct
import subprocess
from pathlib import Path


class WallClock:
    """A clock that a test sets: a library in front of those of the daemons moves it, see wall_clock.c.

    `environment` is what a daemon must be started with.
    """

    def __init__(self, *, folder: Path, library: Path) -> None:
        self._offset = folder / "offset"
        self._offset.touch()
        self.environment = {"LD_PRELOAD": str(library), "WALL_CLOCK_OFFSET": str(self._offset)}
        self.step_to(0)

    def step_to(self, offset_seconds: int) -> None:
        """Be so far ahead of the true time from this moment on, or behind it."""
        with self._offset.open("r+b", buffering=0) as offset:
            offset.write(struct.pack("<q", offset_seconds))


def compiled(folder: Path) -> Path:
    """Compile the library, which takes a C compiler, and return it."""
    library = folder / "wall_clock.so"
    source = Path(__file__).with_name("wall_clock.c")
    command = [
        os.environ.get("CC", "cc"),
        "-shared",
        "-fPIC",
        "-O2",
        "-Wall",
        "-Werror",
        "-o",
        str(library),
        str(source),
    ]
    subprocess.run(command, check=True)
    return library
