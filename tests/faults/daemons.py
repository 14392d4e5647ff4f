"""The daemons of the suite, and the settings that some of them need."""

from collections.abc import Iterator
from contextlib import contextmanager

from daemon_process import DaemonProcess, running_daemon
from deadline import wait_until
from explorer import Explorer

STORM = {"BRAKE__ENABLED": "false"}
"""Very much is due at once, and that is meant."""

RESTARTED = {"LEASE__IDENTITY": "the-same-again"}
"""What was killed and is started again need not wait for its own lease to expire."""

IMPATIENT = {"DATABASE__TIMEOUT_SECONDS": "1", "DATABASE__SERVER_SELECTION_SECONDS": "1"}
"""What hangs is given up within a second."""


@contextmanager
def daemon_on(uri: str, explorer: Explorer, **settings: str) -> Iterator[DaemonProcess]:
    """Run a daemon on the explorer's database that must stop in order at the end."""
    with running_daemon(uri=uri, database_name=explorer.database.name, **settings) as daemon:
        yield daemon


def wait_for_indexes(explorer: Explorer) -> None:
    """Wait until the daemon has built its indexes: one that waits for a lock makes everybody wait behind it."""
    wait_until(
        lambda: (
            len(explorer.pools.index_information()) == 3
            and len(explorer.workloads.index_information()) >= 4
            and len(explorer.events.index_information()) == 3
        ),
        within_seconds=30,
        what="the indexes",
    )
