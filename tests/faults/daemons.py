"""The daemons of the suite: settings that all of them have, so that what is injected is the only thing that happens."""

from collections.abc import Iterator
from contextlib import contextmanager

from daemon_process import DaemonProcess, running_daemon
from explorer import Explorer

from pool_daemon.settings.sections import SECTIONS

ALONE = {"HTTP__ENABLED": "false"}
"""No port is opened, so that two daemons never want the same one."""

STORM = {"BRAKE__ENABLED": "false"}
"""Everything is due at once, and that is meant."""


def settings(*wanted: dict[str, str]) -> dict[str, str]:
    """Put settings together, later ones winning."""
    together = {name: value for some in (ALONE, *wanted) for name, value in some.items()}
    return {name: value for name, value in together.items() if name.partition("__")[0].lower() in SECTIONS}


@contextmanager
def daemon_on(uri: str, explorer: Explorer, *wanted: dict[str, str]) -> Iterator[DaemonProcess]:
    """Run a daemon on the explorer's database that must stop in order at the end."""
    with running_daemon(uri=uri, database_name=explorer.database.name, **settings(*wanted)) as daemon:
        yield daemon
