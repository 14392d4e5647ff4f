"""The folder of a mongod: its data, its lock, its log and its secrets."""

import fcntl
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pool_daemon.embedded.access import Access
from pool_daemon.errors import EmbeddedError

LOCK = "mongod.lock"
"""Held by the mongod that uses the folder, whose process id it contains; empty after a clean end."""

LOG = "mongod.log"
PREVIOUS_LOG = "mongod.previous.log"

OWNER_ONLY = 0o700


def default_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder of the daemon's own mongod: in systemd's state directory, else in the user's."""
    if systemd := environ.get("STATE_DIRECTORY"):
        return Path(systemd.split(":")[0]) / "mongod"
    home = environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(home) / "pool-daemon" / "mongod"


def claim(folder: Path) -> Access:
    """Make the folder, for its owner alone, with its secrets, and begin a new log; the previous one is kept beside it.

    Raises EmbeddedError if another mongod uses it or it cannot be written. Nothing is claimed for long:
    mongod itself takes the lock, and ends with DBPathInUse should another have been faster.
    """
    try:
        folder.mkdir(mode=OWNER_ONLY, parents=True, exist_ok=True)
        if folder.stat().st_mode & 0o777 != OWNER_ONLY:
            folder.chmod(OWNER_ONLY)
        with (folder / LOCK).open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _begin_log(folder)
            return Access.prepare(folder)
    except BlockingIOError:
        raise in_use(folder) from None
    except OSError as error:
        raise EmbeddedError(
            f"the folder {folder} cannot be written ({error.strerror}): correct it, or choose another"
        ) from error


def in_use(folder: Path) -> EmbeddedError:
    """Return the error for a folder that another mongod uses."""
    holder = (folder / LOCK).read_text().strip()
    process = f"process {holder}" if holder else "another process"
    return EmbeddedError(f"a mongod ({process}) uses {folder} already: stop it, or choose another folder")


def _begin_log(folder: Path) -> None:
    log = folder / LOG
    with suppress(FileNotFoundError):
        log.replace(folder / PREVIOUS_LOG)
    log.touch(mode=0o600)
