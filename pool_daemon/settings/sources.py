"""The sources of the settings, in rising order: defaults, the TOML file, the secrets folder, the environment.

pydantic-settings reads the secrets folder. File and environment are read here. Its sources for those keep no place of a
value that an error could name, ignore a missing file and a misspelt variable, and read only `os.environ`.
"""

import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NestedSecretsSettingsSource, SecretsSettingsSource, SettingsError

from pool_daemon.errors import ConfigurationError
from pool_daemon.settings.fields import takes
from pool_daemon.settings.settings import SECTIONS, Settings

PREFIX = "POOL_DAEMON_"
CONFIG = "POOL_DAEMON_CONFIG"
DEFAULT_CONFIG = Path("/etc/pool-daemon/config.toml")
SECRETS_DIR = "POOL_DAEMON_SECRETS_DIR"
SYSTEMD_SECRETS_DIR = "CREDENTIALS_DIRECTORY"
SEPARATOR = "__"
KUBERNETES_LINK = re.compile(
    r"([a-z0-9_]+_)?(service_host|service_port(_[a-z0-9_]+)?|port_\d+_(tcp|udp|sctp)(_[a-z]+)?)"
)
KUBERNETES_PORT = re.compile(r"(tcp|udp|sctp)://")
"""Variables that Kubernetes sets for a Service whose name begins like the daemon's. The value of a plain
port has this form."""

READABLE_BY_ALL = stat.S_IROTH
ENTERED_BY_ALL = stat.S_IXOTH

Key = tuple[str, ...]


class Reading(NamedTuple):
    """A value as it was read, and its source, which an operator has to edit in order to change it."""

    value: Any
    place: str
    file: Path | None = None


class Overridden(NamedTuple):
    """A setting that has two sources: the one in force, and the one without effect."""

    setting: str
    in_force: str
    without_effect: str


class Sources:
    """All values from all sources; of each key only the one that ranks highest.

    The TOML file is `config`, else what POOL_DAEMON_CONFIG names (empty: none), else that of an installed daemon if it
    exists.
    """

    def __init__(self, *, config: Path | None, environ: Mapping[str, str]) -> None:
        config = config or _usual_config(environ)
        folder = environ.get(SECRETS_DIR) or environ.get(SYSTEMD_SECRETS_DIR)
        self._readings: dict[Key, Reading] = {}
        self.overridden: list[Overridden] = []
        """Settings with two sources, in the order of the one without effect."""
        for found in (
            _read_file(config) if config else (),
            _read_secrets(Path(folder)) if folder else (),
            _read_environment(environ),
        ):
            for key, reading in found:
                if lower := self._readings.get(key):
                    self.overridden.append(
                        Overridden(".".join(key), in_force=reading.place, without_effect=lower.place)
                    )
                self._readings[key] = reading

    def load(self) -> Settings:
        """Validate all values.

        Raises ConfigurationError with one line per problem: the key, its source, the problem and the remedy.
        """
        values: dict[str, dict[str, Any]] = {}
        problems = []
        for key, reading in self._readings.items():
            if _is_setting(key):
                values.setdefault(key[0], {})[key[1]] = reading.value
            else:
                problems.append(_complaint(key, reading.place, _what_is_wrong_with_key(key, reading.value)))
        try:
            settings = Settings.model_validate(values)
        except ValidationError as error:
            problems += [self._explain(detail) for detail in error.errors(include_input=False)]
        else:
            if settings.grace.until_told and not settings.notices.before:
                key = ("grace", "until_told")
                problems.append(_complaint(key, self.place_of(*key), "needs notices.before, for nothing else is told"))
        if problems:
            raise ConfigurationError("\n".join(problems))
        return settings

    def place_of(self, section: str, field: str) -> str:
        """Return the source of a value, or `default`."""
        reading = self._readings.get((section, field))
        return reading.place if reading else "default"

    def exposed(self) -> Path | None:
        """Return the file that holds MongoDB's address with a password, if every user can read that file."""
        reading = self._readings.get(("database", "uri"))
        if reading is None or reading.file is None:
            return None
        file = reading.file.resolve()
        entered = all(folder.stat().st_mode & ENTERED_BY_ALL for folder in file.parents)
        return reading.file if entered and file.stat().st_mode & READABLE_BY_ALL else None

    def _explain(self, detail: ErrorDetails) -> str:
        """Translate an error of pydantic's for an operator, without the value: it may be a secret."""
        section, field = str(detail["loc"][0]), str(detail["loc"][1])
        own = detail.get("ctx", {}).get("error")
        wrong = str(own) if own else f"must be {takes(SECTIONS[section][field]) or 'text in quotes'}"
        return _complaint((section, field), self.place_of(section, field), wrong)


def load_settings(config: Path | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings from all sources.

    Raises ConfigurationError with one line per problem.
    """
    return Sources(config=config, environ=environ).load()


def _usual_config(environ: Mapping[str, str]) -> Path | None:
    if CONFIG in environ:
        return Path(environ[CONFIG]) if environ[CONFIG] else None
    try:
        return DEFAULT_CONFIG if DEFAULT_CONFIG.is_file() else None
    except PermissionError:  # an installed daemon's, and this user is not meant to read it
        return None


def _read_file(path: Path) -> Iterator[tuple[Key, Reading]]:
    try:
        with path.open("rb") as file:
            document = tomllib.load(file)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: is not UTF-8 text; save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: is not TOML: {error}") from None
    except RecursionError:
        raise ConfigurationError(f"{path}: is nested too deeply; a section holds fields, and nothing deeper") from None
    for section, table in document.items():
        if isinstance(table, dict):
            yield from (((section, field), Reading(value, f"file {path}", path)) for field, value in table.items())
        else:
            yield (section,), Reading(table, f"file {path}")


def _read_secrets(folder: Path) -> Iterator[tuple[Key, Reading]]:
    try:
        names = sorted(_names_of_secrets(folder))
        flat = SecretsSettingsSource(BaseSettings, secrets_dir=folder)
        texts = NestedSecretsSettingsSource(flat, secrets_case_sensitive=True).env_vars
    except OSError as error:
        raise ConfigurationError(f"secrets folder {folder}: cannot be read: {error.strerror}") from None
    except (SettingsError, UnicodeDecodeError):
        raise ConfigurationError(f"secrets folder {folder}: must hold nothing but small text files") from None
    for name in names:
        if name not in texts:
            raise ConfigurationError(f"secret {folder / name}: must be a file that lies inside the folder")
        yield _key(name), Reading(texts[name], f"secret {folder / name}", folder / name)


def _names_of_secrets(folder: Path) -> Iterator[str]:
    """Yield the names of the files that are meant for the daemon, each of them readable."""
    for entry in folder.iterdir():
        if entry.name.lower() in SECTIONS and entry.is_dir():
            raise ConfigurationError(f"secret {entry}: is a folder; put its secrets beside it, as {entry.name}__FIELD")
        if SEPARATOR not in entry.name:
            continue
        try:
            with entry.open("rb"):
                yield entry.name
        except OSError as error:
            raise ConfigurationError(f"secret {entry}: cannot be read: {error.strerror}") from None


def _read_environment(environ: Mapping[str, str]) -> Iterator[tuple[Key, Reading]]:
    for name, text in environ.items():
        if name.startswith(PREFIX) and name not in {CONFIG, SECRETS_DIR}:
            yield _key(name.removeprefix(PREFIX)), Reading(text, f"environment variable {name}")


def _key(name: str) -> Key:
    return tuple(name.lower().split(SEPARATOR))


def _is_setting(key: Key) -> bool:
    match key:
        case (section, field):
            return field in SECTIONS.get(section, {})
        case _:
            return False


def _what_is_wrong_with_key(key: Key, value: Any) -> str:
    dotted = ".".join(key)
    if dotted in SECTIONS:
        return f"is a section; set one of its fields: {', '.join(SECTIONS[dotted])}"
    if KUBERNETES_LINK.fullmatch(dotted) or KUBERNETES_PORT.match(str(value)):
        return "is no setting; Kubernetes makes it for a Service of that name: set enableServiceLinks to false"
    known = [f"{section}.{field}" for section, fields in SECTIONS.items() for field in fields]
    close = get_close_matches(dotted, known, n=1)
    return f"is no setting; did you mean {close[0]}?" if close else "is no setting; remove it"


def _complaint(key: Key, place: str, wrong: str) -> str:
    return f"{'.'.join(key)} ({place}): {wrong}"
