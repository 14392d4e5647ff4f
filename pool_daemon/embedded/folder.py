"""The folder of a mongod: its data, its lock, its log, and the secrets that decide who may use it.

Each user of a machine can reach a port of its loopback address, so the server asks for a password from its first
moment. MongoDB's exception for the first user, who needs none on loopback, is closed: that user is created by the
server's own identity, which the key file gives. Every start makes the server agree with the files. So there is nothing
to upgrade in a folder that was made without a password, and no moment at which a crash leaves it half done.
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

USER: Final = "pool-daemon"
PASSWORD_FILE: Final = "mongod.password"  # noqa: S105 - the name of a file
KEY_FILE: Final = "mongod.key"
PORT_FILE: Final = "mongod.port"

OWN_FILE: Final = 0o600
RANDOM_BYTES: Final = 32
SELECTION_MILLISECONDS: Final = 1000
"""How long a question to mongod waits before the next look at whether it still runs."""

ALREADY_EXISTS: Final = 51003
ACCOUNT: Final[dict[str, Any]] = {"roles": ["root"], "mechanisms": ["SCRAM-SHA-256"]}

_PASSWORD = re.compile(r"[\w-]{32,128}", re.ASCII)
_KEY = re.compile(r"[A-Za-z0-9+/]{6,1024}")


@dataclass(frozen=True, slots=True)
class Access:
    """The two secrets of a folder: the user's password, and the key that makes a client the server's equal."""

    folder: Path
    password: str
    key: str

    @classmethod
    def prepare(cls, folder: Path) -> Self:
        """Read the secrets of a folder, and make those that are missing, torn or readable by others fit.

        Raises OSError if the folder cannot be written. Nobody else may prepare it meanwhile.
        """
        password = _secret(folder / PASSWORD_FILE, _PASSWORD, secrets.token_urlsafe(RANDOM_BYTES))
        key = _secret(folder / KEY_FILE, _KEY, secrets.token_hex(RANDOM_BYTES))
        return cls(folder=folder, password=password, key=key)

    @property
    def options(self) -> tuple[str, ...]:
        """The options that make mongod ask for a password. None of them holds one: others see a command line."""
        return (
            f"--keyFile={self.folder / KEY_FILE}",
            "--setParameter=enableLocalhostAuthBypass=false",
            # The password is random: more rounds would make it no harder to guess, and each connection slower.
            "--setParameter=scramSHA256IterationCount=5000",
        )

    def uri(self, *, port: int, query: str) -> str:
        """Return the address by which the user connects."""
        return f"mongodb://{USER}:{self.password}@127.0.0.1:{port}/?{query}"

    def as_server(self, host: str) -> AsyncMongoClient[dict[str, Any]]:
        """Connect to `host` directly, as the server itself, which needs no user to exist."""
        return AsyncMongoClient(
            host,
            directConnection=True,
            serverSelectionTimeoutMS=SELECTION_MILLISECONDS,
            username="__system",
            password=self.key,
            authSource="local",
            authMechanism="SCRAM-SHA-256",
        )

    async def admit(self, client: AsyncMongoClient[dict[str, Any]]) -> bool:
        """Create the user, or give it the password of the folder; return whether the server answered.

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
        """Let other commands of the same user find the server; EmbeddedError if the folder cannot be written."""
        try:
            _write_private(self.folder / PORT_FILE, str(port))
        except OSError as error:
            raise EmbeddedError(
                f"the folder {self.folder} cannot be written ({error.strerror}): free some room"
            ) from error

    def withdraw(self) -> None:
        """Let other commands find the server no more."""
        (self.folder / PORT_FILE).unlink(missing_ok=True)


def address_of_running(folder: Path) -> str | None:
    """Return the address, with the password, of the mongod that runs in a folder; None if none does.

    One that was killed still seems to run. Raises OSError if the folder cannot be read.
    """
    try:
        port = int((folder / PORT_FILE).read_text(encoding="ascii"))
        password = (folder / PASSWORD_FILE).read_text(encoding="ascii").strip()
    except (FileNotFoundError, ValueError):
        return None
    return Access(folder=folder, password=password, key="").uri(port=port, query="directConnection=true")


def _secret(path: Path, form: re.Pattern[str], fresh: str) -> str:
    """Return what the file holds, without the end of a line; the fresh secret, written there, if it is no secret."""
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
    """Write a file that its owner alone can read: all of it or nothing."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWN_FILE), "w", encoding="ascii") as file:  # noqa: PTH123
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


LOCK = "mongod.lock"
"""Held by the mongod that uses the folder, whose process id it contains; empty after a clean end."""

LOG = "mongod.log"
PREVIOUS_LOG = "mongod.previous.log"

OWN_FOLDER: Final = 0o700


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


def _begin_log(folder: Path) -> None:
    log = folder / LOG
    with suppress(FileNotFoundError):
        log.replace(folder / PREVIOUS_LOG)
    log.touch(mode=0o600)
