"""All settings as one value, the settings in force, and the example file.

To add a section: write its model in `sections.py`, or a module of its own like `grace.py`, then give it a line in
`Settings`. The file, the environment, the secrets folder, `check-config` and `config.example.toml` are derived from the
models.
"""

import json
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar, cast

from pydantic.fields import FieldInfo

from pool_daemon.settings.fields import Section, takes
from pool_daemon.settings.grace import Grace
from pool_daemon.settings.notices import Alertmanager, Notices, Webhook
from pool_daemon.settings.sections import (
    Brake,
    Clock,
    Database,
    Embedded,
    Events,
    Expiry,
    Http,
    Lease,
    Log,
    Reconcile,
    Retry,
    Stream,
)


class Settings(Section):
    """All settings. Built in code it reads nothing from outside; see `load_settings`."""

    database: Database = Database()
    embedded: Embedded = Embedded()
    expiry: Expiry = Expiry()
    stream: Stream = Stream()
    lease: Lease = Lease()
    clock: Clock = Clock()
    brake: Brake = Brake()
    retry: Retry = Retry()
    reconcile: Reconcile = Reconcile()
    grace: Grace = Grace()
    notices: Notices = Notices()
    webhook: Webhook = Webhook()
    alertmanager: Alertmanager = Alertmanager()
    events: Events = Events()
    log: Log = Log()
    http: Http = Http()

    def masked(self) -> dict[str, dict[str, Any]]:
        """Return every value in JSON's types; a secret that is set shows as asterisks, else as None."""
        return self.model_dump(mode="json")


SECTIONS: Mapping[str, Mapping[str, FieldInfo]] = {
    name: type(field.default).model_fields for name, field in Settings.model_fields.items()
}

RELOADABLE: Final = frozenset({"expiry", "stream", "clock", "brake", "retry", "reconcile", "events", "log"})
"""Sections that parts read anew at each use: bounds, rates and intervals."""

FIXED: Final = frozenset(
    {
        ("expiry", "max_sleep_seconds"),
        ("expiry", "full_scan_seconds"),
        ("expiry", "drain_seconds"),
        ("reconcile", "enabled"),
        ("log", "format"),
    }
)
"""Fields of those sections that are read only at the start."""

S = TypeVar("S", bound=Section)


class LiveSettings:
    """Holds the settings in force, and returns views of their sections that follow a reload."""

    def __init__(self, settings: Settings) -> None:
        self.current = settings

    def view(self, section: Callable[[Settings], S]) -> S:
        """Return a view of that section that always reads the settings in force."""
        return cast("S", _View(self, section))

    def replace(self, settings: Settings) -> tuple[list[str], list[str]]:
        """Put new settings in force, as far as that is possible without a restart.

        Returns the dotted names of the fields that changed, and of those that need a restart.
        """
        changed: list[str] = []
        waiting: list[str] = []
        for name, new in settings:
            for field in type(new).model_fields:
                if getattr(new, field) != getattr(getattr(self.current, name), field):
                    now = name in RELOADABLE and (name, field) not in FIXED
                    (changed if now else waiting).append(f"{name}.{field}")
        self.current = self.current.model_copy(
            update={name: self._in_force(name, getattr(settings, name)) for name in RELOADABLE}
        )
        return changed, waiting

    def _in_force(self, name: str, new: Section) -> Section:
        """Return a section with its new values, but the old ones of fields that wait for a restart."""
        old = getattr(self.current, name)
        return new.model_copy(update={field: getattr(old, field) for section, field in FIXED if section == name})


class _View:
    def __init__(self, live: LiveSettings, section: Callable[[Settings], Section]) -> None:
        self._live = live
        self._section = section

    def __getattr__(self, name: str) -> Any:
        return getattr(self._section(self._live.current), name)


HEAD = """\
# Settings of pool-daemon. Every setting is commented out and shows its default, or an example if it has none.
# The secrets folder ($POOL_DAEMON_SECRETS_DIR, else $CREDENTIALS_DIRECTORY; a file per secret, such as
# database__uri) ranks above this file, and the environment (such as POOL_DAEMON_DATABASE__NAME) above both.
# `pool-daemon check-config --config THIS_FILE` tells what is in force and where it came from.
# A running daemon takes up changes on SIGHUP (`systemctl reload`), but for what needs a restart, which says so.
"""


def example_toml() -> str:
    """Return the text of config.example.toml."""
    return HEAD + "".join(_section(name) for name in SECTIONS)


def _section(name: str) -> str:
    about = type(Settings.model_fields[name].default).__doc__ or ""
    fields = "\n".join(
        "\n".join(_field(key, field, restart=(name, key) in FIXED)) for key, field in SECTIONS[name].items()
    )
    if name not in RELOADABLE:
        about = f"{about} Needs a restart."
    return "\n" + "\n".join(_comment(about)) + f"\n[{name}]\n{fields}\n"


def _field(key: str, field: FieldInfo, *, restart: bool) -> Iterator[str]:
    accepted = takes(field)
    explained = f"{field.description} Takes {accepted}." if accepted else field.description
    yield from _comment(f"{explained} Needs a restart." if restart else explained or "")
    value = field.examples[0] if field.default is None and field.examples else field.default
    yield f"#{key} = {json.dumps(value)}"


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, width=110, initial_indent="# ", subsequent_indent="# ")
