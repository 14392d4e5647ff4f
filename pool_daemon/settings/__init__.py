"""The settings, and the sources from which they are read."""

from pool_daemon.settings.sections import Database, Embedded, Expiry, Http, Lease, Log, Stream
from pool_daemon.settings.settings import Settings, example_toml
from pool_daemon.settings.sources import Sources, load_settings

__all__ = [
    "Database",
    "Embedded",
    "Expiry",
    "Http",
    "Lease",
    "Log",
    "Settings",
    "Sources",
    "Stream",
    "example_toml",
    "load_settings",
]
