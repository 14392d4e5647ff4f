"""The settings: one frozen model a group, in a module of its own; each field has unit, bounds and reason.

To add a group: write its module beside this one, then give it a line in `Settings`. The file, the environment, the
secrets folder, `check-config` and `config.example.toml` are derived from the models.
"""

from collections.abc import Mapping
from typing import Any

from pydantic.fields import FieldInfo

from pool_daemon.settings.sections.brake import Brake
from pool_daemon.settings.sections.clock import Clock
from pool_daemon.settings.sections.database import Database
from pool_daemon.settings.sections.embedded import Embedded
from pool_daemon.settings.sections.expiry import Expiry
from pool_daemon.settings.sections.http import Http
from pool_daemon.settings.sections.lease import Lease
from pool_daemon.settings.sections.log import Log
from pool_daemon.settings.sections.reconcile import Reconcile
from pool_daemon.settings.sections.retry import Retry
from pool_daemon.settings.sections.section import Section, takes
from pool_daemon.settings.sections.stream import Stream

__all__ = [
    "SECTIONS",
    "Brake",
    "Clock",
    "Database",
    "Embedded",
    "Expiry",
    "Http",
    "Lease",
    "Log",
    "Reconcile",
    "Retry",
    "Section",
    "Settings",
    "Stream",
    "takes",
]


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
    log: Log = Log()
    http: Http = Http()

    def masked(self) -> dict[str, dict[str, Any]]:
        """Return every value in JSON's types; a secret that is set shows as asterisks, else as None."""
        return self.model_dump(mode="json")


SECTIONS: Mapping[str, Mapping[str, FieldInfo]] = {
    name: type(field.default).model_fields for name, field in Settings.model_fields.items()
}
