"""The folder of a mongod: data, lock, log, and the secrets that give access to the server.

Every user of a machine can reach a port of its loopback address, so the server requires a password from the start.
MongoDB's localhost exception, which lets the first user in without one, is disabled: that user is created with the
server's own identity, which the key file provides. Every start updates the server from the files. So a folder that was
made without a password needs no upgrade, and a crash leaves nothing half done.
"""

import fcntl
import os
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from pymongo import AsyncMongoClient
from pymongo.errors import AutoReconnect, OperationFailure

from pool_daemon.errors import EmbeddedError

LOCK: Final = "mongod.lock"
"""Locked by the mongod that uses the folder; contains its process id, nothing after a clean shutdown."""

LOG: Final = "mongod.log"
PREVIOUS_LOG: Final = "mongod.previous.log"

OWN_FOLDER: Final = 0o700

USER: Final = "pool-daemon"
PASSWORD_FILE: Final = "mongod.password"  # noqa: S105 - the name of a file
KEY_FILE: Final = "mongod.key"
PORT_FILE: Final = "mongod.port"

OWN_FILE: Final = 0o600
RANDOM_BYTES: Final = 32
SELECTION_MILLISECONDS: Final = 1000
"""Time-out of a command to mongod, after which the process is checked again."""

ALREADY_EXISTS: Final = 51003
ACCOUNT: Final[dict[str, Any]] = {"roles": ["root"], "mechanisms": ["SCRAM-SHA-256"]}

_PASSWORD = re.compile(r"[\w-]{32,128}", re.ASCII)
_KEY = re.compile(r"[A-Za-z0-9+/]{6,1024}")


@dataclass(frozen=True, slots=True)
class Access:
    """The two secrets of a folder: the user's password, and the key with which a client acts as the server itself."""

    folder: Path
    password: str
    key: str

    @classmethod
    def prepare(cls, folder: Path) -> Self:
        """Read the secrets of a folder, and replace those that are missing, truncated or readable by others.

        Raises OSError if the folder cannot be written. The caller holds the folder's lock.
        """
        password = _secret(folder / PASSWORD_FILE, _PASSWORD, secrets.token_urlsafe(RANDOM_BYTES))
        key = _secret(folder / KEY_FILE, _KEY, secrets.token_hex(RANDOM_BYTES))
        return cls(folder=folder, password=password, key=key)

    @property
    def options(self) -> tuple[str, ...]:
        """The options that make mongod require a password. None contains one: a command line is public."""
        return (
            f"--keyFile={self.folder / KEY_FILE}",
            "--setParameter=enableLocalhostAuthBypass=false",
            # The password is random: more rounds would make it no harder to guess, and each connection slower.
            "--setParameter=scramSHA256IterationCount=5000",
        )

    def uri(self, *, port: int, query: str) -> str:
        """Return the address for the user, password included."""
        return f"mongodb://{USER}:{self.password}@127.0.0.1:{port}/?{query}"

    def as_server(self, host: str) -> AsyncMongoClient[dict[str, Any]]:
        """Connect to `host` directly with the identity of the server itself, for which no user has to exist."""
        return AsyncMongoClient(
            host,
            directConnection=True,
            serverSelectionTimeoutMS=SELECTION_MILLISECONDS,
            username="__system",
            password=self.key,
            authSource="local",
            authMechanism="SCRAM-SHA-256",
        )

    async def create_user(self, client: AsyncMongoClient[dict[str, Any]]) -> bool:
        """Create the user, or set its password to that of the folder; return whether the server answered.

        `client` comes from `as_server`. Raises EmbeddedError if the server refuses.
        """
        try:
            try:
                await client.admin.command("createUser", USER, pwd=self.password, **ACCOUNT)
            except OperationFailure as error:
                if error.code != ALREADY_EXISTS:
                    raise
                await client.admin.command("updateUser", USER, pwd=self.password, **ACCOUNT)
        except AutoReconnect:
            return False
        except OperationFailure as error:
            raise EmbeddedError(f"the mongod of {self.folder} refuses the user {USER}: {error}") from error
        return True

    def publish(self, port: int) -> None:
        """Write the port for other commands of the same user; EmbeddedError if the folder cannot be written."""
        try:
            _write_private(self.folder / PORT_FILE, str(port))
        except OSError as error:
            raise EmbeddedError(
                f"the folder {self.folder} cannot be written ({error.strerror}): free some room"
            ) from error

    def withdraw(self) -> None:
        """Remove the port."""
        (self.folder / PORT_FILE).unlink(missing_ok=True)


def default_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder of the daemon's own mongod: in systemd's state directory, else in the user's."""
    if systemd := environ.get("STATE_DIRECTORY"):
        return Path(systemd.split(":")[0]) / "mongod"
    home = environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(home) / "pool-daemon" / "mongod"


def claim(folder: Path) -> Access:
    """Create the folder, for its owner alone, with its secrets and a new log; the previous log is kept beside it.

    Raises EmbeddedError if another mongod uses the folder, or if it cannot be written. The lock is released at once:
    mongod takes it itself, and ends with DBPathInUse if another was faster.
    """
    try:
        folder.mkdir(mode=OWN_FOLDER, parents=True, exist_ok=True)
        if folder.stat().st_mode & 0o777 != OWN_FOLDER:
            folder.chmod(OWN_FOLDER)
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


def address_of_running(folder: Path) -> str | None:
    """Return the address, with the password, of the mongod that runs in a folder; None if none does.

    A mongod that was killed still counts as running. Raises OSError if the folder cannot be read.
    """
    try:
        port = int((folder / PORT_FILE).read_text(encoding="ascii"))
        password = (folder / PASSWORD_FILE).read_text(encoding="ascii").strip()
    except (FileNotFoundError, ValueError):
        return None
    return Access(folder=folder, password=password, key="").uri(port=port, query="directConnection=true")


def _begin_log(folder: Path) -> None:
    log = folder / LOG
    with suppress(FileNotFoundError):
        log.replace(folder / PREVIOUS_LOG)
    log.touch(mode=0o600)


def _secret(path: Path, form: re.Pattern[str], fresh: str) -> str:
    """Return the secret in a file; if it holds none of this form, write the fresh one there and return that."""
    try:
        path.chmod(OWN_FILE)
        text = path.read_text(encoding="ascii").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        text = ""
    if not form.fullmatch(text):
        text = fresh
        _write_private(path, text)
    return text


def _write_private(path: Path, text: str) -> None:
    """Write a file atomically, readable by its owner alone."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWN_FILE), "w", encoding="ascii") as file:  # noqa: PTH123
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
