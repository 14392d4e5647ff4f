"""The environment of a daemon that is started from a program."""

import os
from typing import Final

from pool_daemon.settings.sources import PREFIX, SYSTEMD_SECRETS_DIR

DEFAULTS: Final = {"LOG__FORMAT": "json", "HTTP__PORT": "0"}
"""A log that a program can read, and a port that nothing else has."""


def environment(**settings: str) -> dict[str, str]:
    """Return this process's environment with these settings and no others, named as `DATABASE__URI`.

    Settings meant for another daemon are removed: they would lead this one to its database, and change results.
    """
    inherited = {
        name: text
        for name, text in os.environ.items()
        if not name.upper().startswith(PREFIX) and name != SYSTEMD_SECRETS_DIR
    }
    return inherited | {PREFIX + name: text for name, text in (DEFAULTS | settings).items()}
